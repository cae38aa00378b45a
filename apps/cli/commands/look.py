"""`circuits look`: one image at one layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import OF_SCENES, CommandResult, ImageOptions, Many, Session, figures, reporting
from apps.cli.errors import UsageError
from apps.cli.output.circuit_text import short
from apps.cli.output.console import clock, signed, table
from apps.cli.registry import command
from apps.images import open_sources

if TYPE_CHECKING:
    from circuits.activations.neuron_groups import Groups
    from circuits.activations.semantic_dictionary import ActivationGrid, SemanticDictionary
    from circuits.activations.spatial_attribution import PositionCheck
    from circuits.attribution.attribute import Attribution
    from circuits.network.model import Model


@command(group="Analysis", order=150, summary="one image at one layer: positions, neuron groups, class attribution")
@dataclass(frozen=True, kw_only=True)
class Look(ImageOptions):
    """Analyze one image at one layer: semantic dictionary, neuron groups, and attribution to classes.

    Lists the strongest units at each position, the groups of channels that are active together and where, the
    contributions of positions and groups to the classes with the highest scores, and the correlation of these
    contributions with ablating the positions. With --out all is drawn, with a visualization for each unit and group,
    and an activation grid.

    Example:
        circuits look scenes/mixed4a --images scenes:1
        circuits look googlenet-bvlc/mixed4d --images dog.jpg --groups 6 --at 5,7 --out dog
    """

    address: tyro.conf.Positional[str]
    """The layer: model/layer."""
    at: Many = ()
    """A position of the layer's map, row,column; may be repeated. By default where the activations are largest."""
    groups: int = 6
    """How many groups of channels."""
    classes: Many = ()
    """A class, by number or name; may be repeated. By default the three with the highest scores."""
    top: int = 4
    """Units of each position."""
    steps: int = 96
    """Steps of the optimization of icons."""
    pooled: int | None = None
    """One icon of the activation grid for so many rows by columns; by default what makes at most 64. 0: no grid."""
    whiten: Many = field(default=())
    """Images to whiten the activation grid with, so that it shows what is specific to the image."""

    files: ClassVar[tuple[str, ...]] = ("dictionary.png", "groups.png", "attribution.png", "grid.png")

    def run(self, session: Session) -> CommandResult:
        """The analysis of the image."""
        from circuits import plot
        from circuits.activations.neuron_groups import neuron_groups
        from circuits.activations.semantic_dictionary import semantic_dictionary, single_image
        from circuits.activations.spatial_attribution import check_positions
        from circuits.attribution.attribute import attribute
        from circuits.attribution.class_scores import chosen_classes

        self.check_least("groups", "top", "steps")
        self.check_least("pooled", least=0)
        elapsed = clock()
        model, unit = self.address_of(self.address)
        if unit.index is not None:
            raise UsageError(f"look takes a layer, for example {model.name}/{unit.layer}; {unit.short} is a unit")
        images = self.open_images(model.name) if self.images else open_sources(("scenes:1",), None, 0)
        if not self.images and model.name not in OF_SCENES:
            raise UsageError(f"{model.name} needs an image to look at: --images IMAGE")
        image = single_image(images)
        wanted: Any = self.classes or 3
        classes = chosen_classes(model, wanted, image)  # refuses unknown ones before the icons are made
        steps = 0 if self.out is None else self.steps
        with session.progress(f"looking at {image.ids[0]}") as report:
            dictionary = semantic_dictionary(
                model, unit.short, image, at=self._positions(), top=self.top, steps=steps, seed=self.seed,
                **reporting(report),
            )  # fmt: skip
            groups = neuron_groups(
                model, unit.layer, image, k=self.groups, classes=classes, steps=steps, seed=self.seed,
                **reporting(report),
            )  # fmt: skip
            attributions = [
                attribute(model, image, source=unit.layer, target=c, method="grad*act") for c in groups.classes
            ]
            checks = [check_positions(model, image, attribution, seed=self.seed) for attribution in attributions]
            grid = self._grid(model, unit.layer, image, report) if steps else None
        seconds = elapsed()
        document: dict[str, Any] = {
            "model": model.name,
            "layer": unit.short,
            "image": image.ids[0],
            "dictionary": dictionary.describe()["entries"],
            "groups": groups.describe(),
            "attribution": [_attribution(f, n, c) for f, n, c in zip(attributions, groups.names, checks, strict=True)],
            "provenance": groups.provenance,
        }

        def show(console: Console) -> None:
            _show(console, dictionary, groups, document["attribution"])
            console.print(Text(f"{image.ids[0]}, {seconds:.1f} s", style="dim"))
            if self.out is None:
                console.print(Text("--out DIR draws it, with an icon for each unit and group", style="dim"))

        drawn = {"dictionary": dictionary.plot, "groups": lambda: plot.groups_figure(groups, dictionary.image)}
        if attributions:
            options: dict[str, Any] = {"names": groups.names, "checks": checks}
            drawn["attribution"] = lambda: plot.attribution_figure(attributions, dictionary.image, **options)
        if grid is not None:
            drawn["grid"] = grid.plot
        return CommandResult(document, show, figures(**drawn))

    def _positions(self) -> list[tuple[int, int]] | None:
        positions = []
        for text in self.at:
            row, comma, column = text.partition(",")
            if not (comma and row.strip().isdecimal() and column.strip().isdecimal()):
                raise UsageError(f"--at is row,column, for example 5,7; not {text[:40]!r}")
            positions.append((int(row), int(column)))
        return positions or None

    def _grid(self, model: Model, layer: str, image: Any, report: Any) -> ActivationGrid | None:
        from circuits.activations.semantic_dictionary import activation_grid
        from circuits.activations.whitening import measure_whitening

        if self.pooled == 0:
            return None
        size = model.layers[layer].size or (1, 1)
        pooled = self.pooled or next(p for p in range(1, 1 + max(size)) if -(-size[0] // p) * -(-size[1] // p) <= 64)
        whitening = None
        if self.whiten:
            whitening = measure_whitening(model, layer, open_sources(self.whiten, self.limit, self.seed))
        return activation_grid(
            model, layer, image, whitening=whitening, pooled=pooled, steps=self.steps, seed=self.seed,
            **reporting(report),
        )  # fmt: skip


def _attribution(attribution: Attribution, name: str, check: PositionCheck) -> dict[str, Any]:
    return {
        "target": attribution.target,
        "class": name,
        "score": float(attribution.response[0]),
        "places": attribution.by_position[0].cpu(),
        "units": [{"unit": f"{attribution.source}:{c}", "contribution": v} for c, v in attribution.top(10)],
        "silenced": {"correlation": check.correlation, "chance": check.shuffled, "drops": check.drops},
    }


def _show(console: Console, dictionary: SemanticDictionary, groups: Groups, attributions: list[dict[str, Any]]) -> None:
    rows = [
        [f"{e.position[0]},{e.position[1]}" if k == 0 else "", short(u), v, t]
        for e in dictionary.entries
        for k, (u, v, t) in enumerate(zip(e.units, e.values, e.typical, strict=True))
    ]
    console.print(table(["at", "top units", "value", "average here"], rows, right="  rr"))
    console.print()
    names = [n.split(",")[0] for n in groups.names]
    lines = [
        [g, ", ".join(u.rpartition(":")[2] for u, _ in units), *(signed(float(p)) for p in groups.pushes[g, 0])]
        for g, units in enumerate(groups.units(4))
    ]
    rest = ["rest", "", *(signed(float(p)) for p in groups.rest[0])]
    console.print(table(["group", "channels", *names], [*lines, rest], right="  " + "r" * len(names)))
    held = f"the groups hold {groups.explained:.0%} of the squares; of shuffled channels {groups.shuffled:.0%}"
    console.print(Text(held, style="dim"))
    console.print()
    attribution_rows = [
        [
            a["class"].split(",")[0],
            a["score"],
            *_best(a["places"]),
            a["silenced"]["correlation"],
            a["silenced"]["chance"],
        ]
        for a in attributions
    ]
    columns = ["class", "score", "most from", "", "correlation with ablation", "chance"]
    console.print(table(columns, attribution_rows, right=" r rrr"))


def _best(contributions: Any) -> tuple[str, Text]:
    flat = int(contributions.abs().flatten().argmax())
    width = contributions.shape[1]
    return f"{flat // width},{flat % width}", signed(float(contributions.flatten()[flat]))
