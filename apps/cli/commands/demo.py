"""`circuits demo`: the main job in one go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.commands.trace import REPORT, OptionalSteps, scored, write_report
from apps.cli.common import Command, CommandResult, Session
from apps.cli.errors import UsageError
from apps.cli.output.circuit_text import short, show_circuit
from apps.cli.output.console import clock, signed, table
from apps.cli.output.demo_story import CAR_PARTS, car_unit, parts_of
from apps.cli.output.kernel_text import halves
from apps.cli.output.part_names import SURE
from apps.cli.output.photo_demo import MODEL
from apps.cli.registry import command

WIDTH = 8
"""Most parents to list."""
THRESHOLD = 0.01
"""Share of the strongest below which a parent is left to the rest."""


@command(group="Models and images", order=10, summary="trace the car detector of the built-in network, with its report")
@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Trace a car detector: find it, trace its parents, label them, and score the circuit.

    The built-in network was trained on drawn scenes. A car is windows above a body above wheels, and the same parts in
    another order are no car; so a unit that knows cars must know where its parts are. The demo finds that unit, traces
    the units that activate it, labels them by the masks of the parts, describes their kernels, and compares the circuit
    with random ones. With --out the report is written. Offline, under a minute on two cores.

    It is a benchmark with a known answer: the units for parts were trained by masks, the car unit reads only these,
    and a penalty keeps its parents few. Which parts, where and with which sign was learned from labels.

    `circuits demo googlenet-bvlc` tells the story of a network trained on photographs, where nothing was built in: the
    best units for cars, their parents, named by outlined parts where there are such, and what is lost without the parts
    and without the units for them, beside controls. It needs its weights and photographs ($CIRCUITS_WEIGHTS,
    $CIRCUITS_DATA), takes some minutes, and says what does not hold.

    Example:
        circuits demo
        circuits demo --out demo        # then open demo/index.html
        circuits demo googlenet-bvlc --store store --out cars
    """

    model: tyro.conf.Positional[Literal["scenes", "googlenet-bvlc"]] = "scenes"
    """The network of the story."""
    cars: Path | None = None
    """googlenet-bvlc: folder of photographs of cars; by default cars in $CIRCUITS_DATA."""
    others: Path | None = None
    """googlenet-bvlc: folder of photographs of other things; by default imagenet-sample in $CIRCUITS_DATA."""
    parts: Path | None = None
    """googlenet-bvlc: folder with images/ and annotations.json (COCO), cars with outlined parts; by default car-parts
    in $CIRCUITS_DATA where that is there."""
    store: Path | None = None
    """googlenet-bvlc: store that part labels are read from, or written to."""
    units: int = 2
    """googlenet-bvlc: how many of the best units for cars."""
    visualize: OptionalSteps = 0
    """googlenet-bvlc, with --out: feature visualizations of the units, of so many steps (128 where no number
    follows)."""
    n: int = 312
    """How many scenes to look at; 24 of each class by default."""

    files: ClassVar[tuple[str, ...]] = (*REPORT, "mixed*-*.png", *(f"mixed*-*/{name}" for name in REPORT))

    def run(self, session: Session) -> CommandResult:
        """Find, trace, name, score."""
        if self.model == MODEL:
            return self._on_photographs(session)
        given = [name for name in ("cars", "others", "parts", "store", "visualize") if getattr(self, name)]
        if given:
            raise UsageError(f"--{given[0]} is for the demo on photographs: circuits demo {MODEL}")
        from circuits.network.model import load
        from circuits.tracing.trace import trace
        from zoo.images.sources import open_images

        if self.n < 26:
            raise UsageError(f"--n is at least 26, two scenes of each class, not {self.n}")
        elapsed = clock()
        model = load("scenes", device=self.device)
        source = f"scenes:{self.n}@{self.seed}"
        with session.progress("looking for the car detector"):
            images = open_images(source)
            unit, auc = car_unit(model, images, self.seed)
        with session.progress(f"tracing {unit}"):
            circuit = trace(model, unit, images=images, depth=1, width=WIDTH, threshold=THRESHOLD)
            scores = parts_of(model, circuit, images)
        labels = {u: max(parts, key=lambda p: parts[p]) for u, parts in scores.items() if parts}
        circuit = circuit.label({unit: "car", **{u: part for u, part in labels.items() if scores[u][part] >= SURE}})
        circuit = scored(session, model, circuit, images, random=64, seed=self.seed)
        parents = [_parent(edge, labels, scores, circuit.score) for edge in circuit.into(circuit.target)]
        seconds = elapsed()
        python = _PYTHON.format(source=source, unit=unit, width=WIDTH, threshold=THRESHOLD, seed=self.seed)

        def show(console: Console) -> None:
            console.print(
                Text.assemble(
                    (short(unit), "bold"),
                    f" is the car detector of {model.name}: AUC {auc:.3f} on {len(images)} scenes\n",
                )
            )
            show_circuit(console, circuit)
            console.print()
            rows = [
                [
                    p["part"],
                    p["auc"],
                    short(p["unit"]),
                    signed(p["strength"]),
                    signed(p["halves"]["above"]),
                    signed(p["halves"]["below"]),
                    p["worth"],
                ]
                for p in parents
            ]
            columns = ["part", "AUC by masks", "unit", "contributes", "kernel above", "below", "worth"]
            console.print(table(columns, rows, right=" r rrrr"))
            console.print()
            console.print(Text(_verdict(parents)))
            console.print(Text(_BUILT_IN, style="dim"))
            console.print(Text(f"{seconds:.0f} s", style="dim"))

        def write(folder: Path) -> None:
            write_report(folder, model, circuit, images, session.invocation, python)

        document = {"unit": unit, "auc": auc, "parents": parents, "circuit": circuit.to_json(), "seconds": seconds}
        return CommandResult(document, show, write)

    def _on_photographs(self, session: Session) -> CommandResult:
        from apps.cli.output.photo_demo import car_stories, open_photographs, result_of
        from circuits.network.model import load

        self.check_least("units")
        if self.visualize < 0 or (self.visualize and self.out is None):
            raise UsageError("--visualize takes steps from 1, and draws into the reports of --out DIR")
        photographs = open_photographs(self.cars, self.others, self.parts, self.seed)
        model = load(self.model, device=self.device)
        stories = car_stories(session, model, photographs, store=self.store, units=self.units, seed=self.seed)
        return result_of(session, model, photographs, stories, self.visualize, self.seed)


_PYTHON = """\
import circuits

model = circuits.load("scenes")
circuit = circuits.trace(model, "{unit}", images="{source}", depth=1, width={width}, threshold={threshold})
score = circuits.score(model, circuit, images="{source}", random=64, seed={seed})
"""


_BUILT_IN = (
    "Built in: units for parts, trained by masks; few parents, all of them such units. "
    "Learned from labels: which parts, where, and with which sign."
)


def _parent(edge: Any, labels: dict[str, str], scores: dict[str, dict[str, float]], score: Any) -> dict[str, Any]:
    part = labels.get(edge.source)
    return {
        "unit": edge.source,
        "part": part,
        "auc": scores[edge.source][part] if part is not None else None,
        "strength": edge.strength,
        "halves": halves(edge.kernel),
        "worth": None if score is None else score.minimality.get(edge.source),
    }


def _verdict(parents: list[dict[str, Any]]) -> str:
    """The result for the three parts, in a sentence."""
    named = {p["part"]: p for p in reversed(parents) if p["auc"] is not None and p["auc"] >= SURE and p["strength"] > 0}
    seen = [part for part in CAR_PARTS if part in named]
    if len(seen) < len(CAR_PARTS):
        return f"Found among its parents: {', '.join(seen) or 'none of its parts'}."
    units = {part: short(named[part]["unit"]) for part in CAR_PARTS}
    window, wheel = (
        "{}: {:+.2g} above, {:+.2g} below".format(units[p], *(named[p]["halves"][h] for h in ("above", "below")))
        for p in ("window", "wheel")
    )
    return f"A car, to this unit, is windows ({window}) over a body ({units['car_body']}) over wheels ({wheel})."
