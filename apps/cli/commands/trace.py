"""`circuits trace`: the circuit of a unit."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, ImageOptions, Many, Session, loading_code, reporting
from apps.cli.errors import UsageError
from apps.cli.output.circuit_text import show_circuit, show_offer
from apps.cli.output.console import clock
from apps.cli.output.part_names import label_parts
from apps.cli.registry import command

if TYPE_CHECKING:
    from circuits.network.model import Model
    from circuits.tracing.circuit import Circuit
    from zoo.images.sources import Images


REPORT = ("index.html", "circuit.json", "circuit.png")
"""The files of a report."""
STEPS = 128
"""Steps of visualizations where none are given."""


def _steps(arguments: list[str]) -> int:
    if len(arguments) > 1 or not all(word.isdecimal() for word in arguments):
        raise ValueError(f"a number of steps, not {' '.join(arguments)!r}")
    return int(arguments[0]) if arguments else STEPS


OptionalSteps = Annotated[
    int,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",  # tyro knows no optional value
        metavar="[STEPS]",
        instance_from_str=_steps,
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    ),
]


@command(
    group="Analysis", order=20, summary="the circuit of a unit: its parents, their weights and contributions, a report"
)
@dataclass(frozen=True, kw_only=True)
class Trace(ImageOptions):
    """Trace the circuit of a unit: the units that activate it, and the weights between them.

    The units of the layer before that move it most, over all positions of at most 200 of the images (gradient x
    activation from the mean), become its parents, and theirs theirs for --depth steps. What each contributes, counted
    from its mean, is shown for the unit's top activating images. What is not listed is summed up, so that traced +
    others = all. The circuit is then scored: all other units are set to
    their means, and the same is done with random circuits of the same size (--no-score skips that); where it keeps
    less than .9, also with a learned mask of that size, and --by mask is offered if that keeps more. With --out
    comes a report: index.html, circuit.json, circuit.png, and the command and the Python that make it again.

    Example:
        circuits trace scenes/mixed4a:11 --out report
        circuits trace googlenet-bvlc/mixed4c:499 --images photos --depth 2 --width 4 --out cars
        circuits trace googlenet-bvlc/mixed4c:499 --images photos --through-bottlenecks
        circuits trace scenes/mixed4a:11@3,5 --no-score --json
    """

    address: tyro.conf.Positional[str]
    """The unit: model/layer:unit, with @y,x to look at one position only."""
    depth: int | None = None
    """How many layers to go back; by default 1, or through all --layers."""
    layers: Many = ()
    """Layer to go back through, the latest first; may be repeated. LAYER~NAME takes the latents
    of an SAE (--sae) instead of channels. By default the layers that every path crosses."""
    width: int = 6
    """How many parents a unit is given."""
    by: Literal["gradient", "integrated", "patching", "mask", "weights", "attribution", "ablation"] | None = None
    """What ranks the parents: one of the methods of `circuits rank`, over all positions, by default gradient; or weight
    x activation, gradient x activation, or what is lost without them, at the strongest positions. mask keeps most and
    takes longer. Through bottlenecks, and where sources are latents, weights."""
    through_bottlenecks: bool = False
    """Also trace through the units behind the ReLUs between two layers, such as an inception block's bottlenecks: every
    step is then linear, and nothing of the response is left unexplained. By weights."""
    baseline: Literal["mean", "resample", "zero"] | None = None
    """What contributions are counted from; by default zero for weights and attribution, else the mean."""
    against: str | None = None
    """Folder of counterfactual images, one for each image in the order of their names, as the baseline."""
    store: Path | None = None
    """Store with part labels (`circuits label`): units are named after the parts that they detect."""
    score: bool = True
    """Do not try the circuit against random ones of the same size."""
    random: int = 50
    """How many random circuits to compare with."""
    score_images: int = 100
    """Images to try them on, at most; `circuits score` takes twice as many by default."""
    visualize: OptionalSteps = 0
    """With --out: add a feature visualization to each unit of the report, of so many steps (128 where no number
    follows)."""

    files: ClassVar[tuple[str, ...]] = REPORT

    def run(self, session: Session) -> CommandResult:
        """Trace, name the parts where they are known, score."""
        from circuits.plot.drawing.wording import ENOUGH
        from circuits.tracing.trace import trace

        check_random(self.random)
        self.check_least("depth", "width")
        self.check_least("score_images", least=2)
        if self.visualize < 0 or (self.visualize and self.out is None):
            raise UsageError("--visualize takes steps from 1, and draws into the report of --out DIR")
        elapsed = clock()
        model, unit = self.address_of(self.address)
        images = self.open_images(model.name)
        with session.progress(f"tracing {unit}") as report:
            circuit = trace(
                model,
                unit,
                images=images,
                depth=self.depth,
                width=self.width,
                by=self.by,
                layers=list(self.layers) or None,
                through_bottlenecks=self.through_bottlenecks,
                baseline=self.baseline,
                against=self.counterfactuals(self.against),
                **reporting(report),
            )
        circuit = label_parts(model, circuit, images, self.store)
        if self.score:
            # latents cannot be held at their means before a max pool: they are ablated to what they are counted from
            latents = any("~" in layer for layer in circuit.layers[1:])
            further: dict[str, Any] = {}
            if latents:
                further = {"baseline": self.baseline or "mean", "against": self.counterfactuals(self.against)}
            elif min(len(images), self.score_images) > 3:  # by='mask' is of channels
                further = {"mask": ENOUGH}
            circuit = scored(session, model, circuit, images, self.random, self.seed, self.score_images, **further)
        visualizations = visualized(session, model, circuit, self.visualize, self.seed) if self.visualize else None
        seconds = elapsed()

        def show(console: Console) -> None:
            show_circuit(console, circuit)
            show_offer(console, circuit, by_mask_command(self, model, circuit))
            console.print(Text(f"{len(images)} images of {images.name}, {seconds:.1f} s", style="dim"))

        def write(folder: Path) -> None:
            write_report(folder, model, circuit, images, session.invocation, self.python(str(unit)), visualizations)

        return CommandResult(circuit.to_json(), show, write, named="")

    def _counted(self) -> str:
        given = {
            "by": self.by,
            "layers": list(self.layers) or None,
            "through_bottlenecks": self.through_bottlenecks or None,
            "baseline": self.baseline,
        }
        against = "" if self.against is None else f", against={self.counterfactuals_code(self.against)}"
        return "".join(f", {name}={value!r}" for name, value in given.items() if value is not None) + against

    def python(self, unit: str) -> str:
        """The Python that does the same."""
        lines = [
            "import circuits",
            "from zoo import open_images",
            "",
            loading_code(unit.rpartition("/")[0], self.weights),
            f"images = {self.images_code}",
            f"options = dict(depth={self.depth or len(self.layers) or 1}, width={self.width}{self._counted()})",
            f"circuit = circuits.trace(model, {unit!r}, images=images, **options)",
        ]
        if self.score:
            ablated = f", baseline={self.baseline!r}" if self.baseline and any("~" in n for n in self.layers) else ""
            lines.append(
                f"score = circuits.score(model, circuit, images=images, random={self.random}, "
                f"limit={self.score_images}, seed={self.seed}{ablated})"
            )
        if self.visualize:
            lines += [
                "from circuits.visualization import visualize",
                "units = [node.unit for node in circuit.nodes]",
                f"images = visualize(model, units, steps={self.visualize}, seed={self.seed})",
            ]
        return "\n".join(lines) + "\n"


def by_mask_command(options: ImageOptions, model: Model, circuit: Circuit) -> str:
    """The command that gives the target of a circuit as many parents by a learned mask, with the model and the images.

    Args:
        options: of the command that traced or scored it; model: the circuit's; circuit: not of latents.
    """
    words = ["circuits", "trace", circuit.target, "--by", "mask"]
    layer = circuit.layers[0]
    for source in circuit.layers[1:]:
        if model.before(layer) != source:
            words += [word for name in circuit.layers[1:] for word in ("--layers", name)]
            break
        layer = source
    words += ["--depth", str(len(circuit.layers) - 1), "--width", str(circuit.provenance.get("width", 6))]
    for option in fields(ImageOptions):
        value = getattr(options, option.name)
        if value == option.default or option.name in ("out", "json", "debug"):
            continue
        name = "--model" if option.name == "own" else f"--{option.name.replace('_', '-')}"
        words += [word for each in (value if isinstance(value, tuple) else (value,)) for word in (name, str(each))]
    return shlex.join(words)


def check_random(random: int) -> None:
    """Refuse numbers of random circuits that are too few or never end."""
    if not 1 <= random <= 10_000:
        raise UsageError(f"--random is between 1 and 10000, not {random}")


def scored(
    session: Session,
    model: Model,
    circuit: Circuit,
    images: Images,
    random: int,
    seed: int,
    limit: int = 200,
    **options: Any,
) -> Circuit:
    """The circuit with its score; further options are those of `score`."""
    from circuits.tracing.score import score

    options |= {"random": random, "limit": limit, "seed": seed}
    with session.progress(f"scoring against {random} random circuits") as report:
        result = score(model, circuit, images=images, **options, **reporting(report))
    return replace(circuit, score=result)


def visualized(session: Session, model: Model, circuit: Circuit, steps: int, seed: int) -> dict[str, Any]:
    """Unit address -> its feature visualization, for the units of a circuit that have one."""
    from circuits import plot
    from circuits.visualization import visualize

    units = [node.unit for node in circuit.nodes]
    with session.progress(f"visualizing {len(units)} units, step") as report:
        results = visualize(model, units, steps=steps, seed=seed, **reporting(report))
    return {r.unit: plot.pixels(r.image, r.channels) for r in results if r.status == "ok"}


def write_report(
    folder: Path,
    model: Model,
    circuit: Circuit,
    images: Images,
    command: str,
    python: str,
    visualizations: dict[str, Any] | None = None,
) -> None:
    """The report of a circuit: index.html, circuit.json, circuit.png; with `visualizations` of its units."""
    from circuits import plot

    image_crops = plot.crops(circuit, images, model.input)
    page = plot.trace_report(circuit, image_crops, command, python, visualizations)
    (folder / "index.html").write_text(page, encoding="utf-8")
    if visualizations is not None:
        image_crops = {
            unit: [visualizations[unit], *crops] if unit in visualizations else crops
            for unit, crops in image_crops.items()
        }
    plot.save_figure(plot.circuit_graph(circuit, image_crops), folder / "circuit.png")
    circuit.save(folder / "circuit.json")
