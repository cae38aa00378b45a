"""`circuits demo googlenet-bvlc`: the car story on photographs, with what holds of it and what does not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, Session, reporting
from apps.cli.errors import UsageError
from apps.cli.output.circuit_text import short, show_score
from apps.cli.output.console import signed, table

if TYPE_CHECKING:
    import torch

    from apps.cli.output.photo_story import Height, PartLoss, Story
    from circuits.common.statistics import Estimate
    from circuits.dataset.concept_search import Finding
    from circuits.dataset.labels.results import PartLabels
    from circuits.network.model import Model
    from circuits.tracing.circuit import Circuit
    from zoo.images.sources import Images

MODEL, LAYERS = "googlenet-bvlc", ("mixed4b", "mixed4c")
PARTS = ("wheel", "glass", "door")
WIDTH, RANDOM, TRACED, OTHERS = 6, 20, 75, 300
"""Parents; random circuits; photographs of cars to trace on; photographs of other things."""


@dataclass(frozen=True)
class Photographs:
    """The photographs of the demo.

    Attributes:
        cars, others: photographs of cars, and of other things.
        annotated: with outlines of parts, or None; then parents have no names.
    """

    cars: Images
    others: Images
    annotated: Images | None


@dataclass(frozen=True)
class UnitStory:
    """One unit for cars: how well it detects them, its circuit, and what it loses without parts."""

    finding: Finding
    circuit: Circuit
    parents: list[dict[str, Any]]
    height: Height | None
    losses: list[PartLoss]

    def describe(self) -> dict[str, Any]:
        """Everything, for JSON."""
        losses = [{**loss.describe(), "used": loss.used} for loss in self.losses]
        return {
            "finding": self.finding.describe(), "parents": self.parents, "losses": losses,
            "height": None if self.height is None else self.height.describe(), "circuit": self.circuit.to_json(),
        }  # fmt: skip


def open_photographs(cars: Path | None, others: Path | None, parts: Path | None, seed: int) -> Photographs:
    """The photographs of the options, or of the folders `cars`, `imagenet-sample` and `car-parts` in $CIRCUITS_DATA.

    Raises:
        UsageError: there are none of cars or of other things. ImageError: a folder that cannot be read.
    """
    from apps.cli.output.photo_story import GROUPS, without_vehicles
    from zoo.images.coco import open_annotated
    from zoo.images.sources import open_images

    def folder(given: Path | None, name: str) -> Path | None:
        base = os.environ.get("CIRCUITS_DATA")
        return given or (Path(base).expanduser() / name if base and (Path(base).expanduser() / name).is_dir() else None)

    of_cars, of_others, of_parts = folder(cars, "cars"), folder(others, "imagenet-sample"), folder(parts, "car-parts")
    if of_cars is None or of_others is None:
        option = "--cars FOLDER, photographs of cars" if of_cars is None else "--others FOLDER, of other things"
        raise UsageError(
            f"the demo on {MODEL} needs photographs: {option} (or the sets of docs/car.md in $CIRCUITS_DATA)"
        )
    annotated = None
    if of_parts is not None:
        annotated = open_annotated(of_parts / "images", of_parts / "annotations.json", groups=GROUPS)
    plain = open_images(without_vehicles(open_images(of_others)), limit=OTHERS, seed=seed)
    return Photographs(open_images(of_cars), plain, annotated)


def car_stories(
    session: Session,
    model: Model,
    photographs: Photographs,
    *,
    layers: tuple[str, str] = LAYERS,
    parts: Sequence[str] = PARTS,
    store: Path | None = None,
    units: int = 2,
    seed: int = 0,
) -> list[UnitStory]:
    """The story of the best units for cars, the best first; `layers`: of the parts, and of the whole.

    Args:
        session: for progress; model; photographs: see there.
        parts: names of parts, the lower and the upper one of a car first.
        store: where part labels are, or will be.
        units: how many units for cars.
        seed: of all that is random.
    """
    from apps.cli.output.photo_story import Story, occlusions, part_losses
    from circuits.dataset.concept_search import find
    from circuits.network.hooks import capture
    from circuits.tracing.trace import trace

    cars, others = photographs.cars, photographs.others
    with session.progress("looking for units for cars"):
        findings = find(model, positive=cars, negative=others, layer=layers[1], seed=seed)
    labels = (
        None if photographs.annotated is None else _labels(session, model, photographs.annotated, layers, store, seed)
    )
    present = [] if labels is None else [part for part in parts if part in labels.parts]
    story, stories = None, []
    if labels is not None and photographs.annotated is not None and present:
        story = Story.of_labels(model, layers, cars, others, photographs.annotated, labels, present, seed=seed)
        with session.progress("filling in parts") as report:
            occluded = occlusions(story, controls=present, seed=seed, progress=report)
        reference = capture(model, others, [layers[0]])[layers[0]]
    traced = cars.spread(TRACED)
    for finding in findings.rows[:units]:
        with session.progress(f"tracing {finding.unit}") as report:
            circuit = trace(model, finding.unit, images=traced, layers=[layers[0]], width=WIDTH, **reporting(report))
        circuit = circuit.label({} if labels is None else labels.names())
        circuit = _scored(session, model, circuit, cars, traced, others, seed)
        height, losses = None, []
        if story is not None:
            height = _height(story, finding.unit, parts)
            with session.progress(f"taking parts from {finding.unit}") as report:
                losses = part_losses(story, occluded, finding.unit, reference, progress=report)
        stories.append(UnitStory(finding, circuit, _parents(circuit, labels), height, losses))
    return stories


def _labels(
    session: Session, model: Model, annotated: Images, layers: tuple[str, str], store: Path | None, seed: int
) -> PartLabels:
    from circuits.dataset.labels.label import label
    from circuits.dataset.labels.results import read_labels

    labels = None if store is None else read_labels(store, model.name, model.digest)
    if labels is not None and layers[0] in labels.layers:
        return labels
    with session.progress(f"labeling units of {layers[0]} by {len(annotated)} outlined photographs") as report:
        labels = label(model, annotated, layers=[layers[0]], seed=seed, **reporting(report))
    if store is not None:
        labels.save(store)
    return labels


def _scored(
    session: Session, model: Model, circuit: Circuit, cars: Images, traced: Images, others: Images, seed: int
) -> Circuit:
    """The circuit with its score on cars that it was not traced on, and as many other things."""
    import torch

    from circuits.tracing.score import score

    seen = set(traced.ids)
    rest = cars.subset([i for i, name in enumerate(cars.ids) if name not in seen] or range(len(cars)))
    images = torch.cat([rest.tensor(model.input), others.spread(len(rest)).tensor(model.input)])
    with session.progress(f"scoring against {RANDOM} random circuits, and a learned mask") as report:
        result = score(model, circuit, images=images, random=RANDOM, mask=True, seed=seed, **reporting(report))
    return replace(circuit, score=result)


def _height(story: Story, unit: str, parts: Sequence[str]) -> Height | None:
    """Where kernels from the units of the first two parts lie; None where they lie the same upside down.

    Kernels of one position do, and those of a unit behind a max pool, which weigh all positions of its window alike.
    """
    index = story.model.unit(unit).index
    kernels: torch.Tensor = story.kernels()[index]
    rows = kernels.sum(dim=2)
    upright = float((rows - rows.flip(1)).abs().max()) > 1e-5 * float(rows.abs().max())
    if not upright or not set(parts[:2]) <= set(story.tops):
        return None
    return story.height(unit, kernels, (parts[0], parts[1]))


def _parents(circuit: Circuit, labels: PartLabels | None) -> list[dict[str, Any]]:
    whole = next(rest.total for rest in circuit.rest if rest.target == circuit.target)
    rows = []
    for edge in circuit.into(circuit.target):
        row: dict[str, Any] = {"unit": edge.source, "strength": edge.strength}
        row["share"] = edge.strength / whole if whole > 0 else None  # of what all units of the layer add up to
        best = None if labels is None else labels.of(edge.source)[0]
        if labels is not None and best is not None:
            row |= {"part": best.part, "auc": best.auc, "control": best.control, "named": best.above_controls}
        rows.append(row)
    return rows


# -- what is printed ----------------------------------------------------------------------------------------


def result_of(
    session: Session, model: Model, photographs: Photographs, stories: Sequence[UnitStory], steps: int, seed: int
) -> CommandResult:
    """What the command prints and writes.

    Args:
        session, model, photographs, seed: as for `car_stories`.
        stories: the units, the best first.
        steps: of the visualizations in the reports; 0 for none.
    """

    def show(console: Console) -> None:
        n = f"{len(photographs.cars)} photographs of cars, {len(photographs.others)} of other things"
        console.print(Text(n, style="dim"))
        for story in stories:
            console.print()
            _show(console, model, story)
        console.print()
        if photographs.annotated is None:
            note = (
                "Parents have no names: --parts FOLDER, with images/ and annotations.json (COCO), names them by masks."
            )
            console.print(Text(note, style="yellow"))
        console.print(Text(verdict(stories)))

    def write(folder: Path) -> None:
        from apps.cli.commands.trace import visualized, write_report
        from circuits import plot

        for story in stories:
            circuit, name = story.circuit, short(story.circuit.target).replace(":", "-")
            visualizations = visualized(session, model, circuit, steps, seed) if steps else {}
            part = folder / name
            part.mkdir(parents=True, exist_ok=True)
            source = (photographs.cars.origin or {"sources": ["cars"]})["sources"][0]
            python = _PYTHON.format(
                model=model.name, unit=circuit.target, width=WIDTH, layer=circuit.layers[1], cars=source, traced=TRACED
            )
            traced = photographs.cars.spread(TRACED)
            write_report(part, model, circuit, traced, session.invocation, python, visualizations if steps else None)
            if visualizations:  # without any photograph: to be shown where these may not be
                figure = plot.circuit_graph(circuit, {unit: [pixels] for unit, pixels in visualizations.items()})
                plot.save_figure(figure, folder / f"{name}.png")

    return CommandResult({"model": model.name, "units": [story.describe() for story in stories]}, show, write)


_PYTHON = """\
import circuits
from zoo import open_images

model = circuits.load("{model}")
cars = open_images({cars!r}).spread({traced})
circuit = circuits.trace(model, "{unit}", images=cars, layers=["{layer}"], width={width})
"""


def _show(console: Console, model: Model, story: UnitStory) -> None:
    from circuits.plot.drawing.wording import minus

    finding, unit = story.finding, story.circuit.target
    between = "" if finding.low is None else f" ({finding.low:.3f} to {finding.high:.3f})"
    branch = model.branch_of(model.unit(unit))
    where = f", of {branch}" if branch else ""
    console.print(Text.assemble((short(unit), "bold"), f"{where}: AUC for cars {finding.auc:.3f}{between}"))
    named = any("part" in row for row in story.parents)
    rows = [
        [
            short(row["unit"]),
            signed(row["strength"]),
            "" if row["share"] is None else minus(f"{100 * row['share']:.0f} %"),
            *(
                [row["part"] if row["named"] else f"({row['part']})", f"{row['auc']:.3f}", f"{row['control']:.3f}"]
                if named
                else []
            ),
        ]
        for row in story.parents
    ]
    columns = ["parent", "contributes", "of all units'", *(["part", "AUC by masks", "best control"] if named else [])]
    console.print(table(columns, rows, right=" rr rr"))
    show_score(console, story.circuit)
    if story.height is not None:
        h = story.height
        console.print(
            Text(
                f"weights from units for the lower part lie {h.difference:+.2f} positions below those for the upper "
                f"part; random sets of equal activity {h.control.low:+.2f} to {h.control.high:+.2f}"
            )
        )
    elif story.losses:
        console.print(
            Text("its weights have no height: they cannot tell what is above from what is below", style="dim")
        )
    if story.losses:
        lost = [
            [
                loss.part,
                str(loss.occluded),
                _text(loss.elsewhere),
                str(loss.ablated),
                str(loss.control),
                "yes" if loss.used else "no",
            ]
            for loss in story.losses
        ]
        columns = [
            "lost without",
            "part filled in",
            "outlines elsewhere",
            "its units at means",
            "as many of equal activity",
            "used",
        ]
        console.print(table(columns, lost, right=" rrrr "))


def _text(share: Estimate | None) -> str:
    return "" if share is None else str(share)


def verdict(stories: Sequence[UnitStory]) -> str:
    """What holds of the story, and what does not, in a sentence for each unit."""
    sentences = []
    for story in stories:
        unit = short(story.circuit.target)
        named = [row["part"] for row in story.parents if row.get("named") and row["strength"] > 0]
        used = [loss.part for loss in story.losses if loss.used]
        unused = [loss.part for loss in story.losses if not loss.used]
        text = f"{unit}: parents named by masks: {', '.join(named) or 'none'}"
        if used:
            text += f"; loses more without {', '.join(used)}, and without the units for it, than the controls lose"
        if unused:
            text += f"; that it uses {', '.join(unused)} is not shown"
        h = story.height
        if h is not None:
            text += f"; parts {'lie' if h.difference > h.control.high else 'do not lie'} where they do in cars"
        sentences.append(text + ".")
    return "\n".join(sentences)
