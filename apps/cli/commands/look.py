"""`circuits look`: one picture taken apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, Many, PictureOptions, Session, reporting
from apps.cli.errors import UsageError
from apps.cli.output.circuit_text import short
from apps.cli.output.console import clock, signed, table
from apps.cli.registry import command
from apps.pictures import open_pictures

if TYPE_CHECKING:
    from circuits.activations.neuron_groups import Groups
    from circuits.activations.semantic_dictionary import ActivationGrid, SemanticDictionary
    from circuits.activations.spatial_attribution import PositionCheck
    from circuits.attribution.attribute import Attribution
    from circuits.network.model import Model


@command(group="Analysis", order=150, summary="one image at one layer: positions, neuron groups, class attribution")
@dataclass(frozen=True, kw_only=True)
class Look(PictureOptions):
    """Take one picture apart at one layer: what is where, in which groups, and what it does for the classes.

    Says which units are strongest at a place, which groups of channels fire together and where, which places and
    groups speak for the classes with the highest scores, and whether silencing those places does what attribution
    foretells. With --out it draws all that, with an icon for each unit and group, and an activation grid.

    Example:
        circuits look scenes/mixed4a --images scenes:1
        circuits look googlenet-bvlc/mixed4d --images dog.jpg --groups 6 --at 5,7 --out dog
    """

    address: tyro.conf.Positional[str]
    """The layer: model/layer."""
    at: Many = ()
    """A place of the layer's map, row,column; may be repeated. By default where the layer says most."""
    groups: int = 6
    """How many groups of channels."""
    classes: Many = ()
    """A class, by number or name; may be repeated. By default the three with the highest scores."""
    top: int = 4
    """Units of each place."""
    steps: int = 96
    """Steps of the optimization of icons."""
    pooled: int | None = None
    """One icon of the activation grid for so many rows by columns; by default what makes at most 64. 0: no grid."""
    whiten: Many = field(default=())
    """Pictures of which to take what the layer says in general, so that the activation grid shows what is special."""

    def run(self, session: Session) -> CommandResult:
        """The picture, taken apart."""
        from circuits.activations.neuron_groups import neuron_groups
        from circuits.activations.semantic_dictionary import semantic_dictionary, single_image
        from circuits.activations.spatial_attribution import check_positions
        from circuits.attribution.attribute import attribute

        self._check()
        elapsed = clock()
        model, unit = self.address_of(self.address)
        if unit.index is not None:
            raise UsageError(f"look takes a layer, for example {model.name}/{unit.layer}; {unit.short} is a unit")
        images = self.pictures(model.name) if self.images else open_pictures(("scenes:1",), None, 0)
        if not self.images and model.name != "scenes":
            raise UsageError(f"{model.name} needs a picture to look at: --images PICTURE")
        picture = single_image(images)
        steps = 0 if self.out is None else self.steps
        with session.progress(f"looking at {picture.ids[0]}") as report:
            said = semantic_dictionary(
                model, unit.short, picture, at=self._places(), top=self.top, steps=steps, seed=self.seed,
                **reporting(report),
            )  # fmt: skip
            wanted: Any = self.classes or 3
            groups = neuron_groups(
                model, unit.layer, picture, k=self.groups, classes=wanted, steps=steps, seed=self.seed,
                **reporting(report),
            )  # fmt: skip
            found = [attribute(model, picture, source=unit.layer, target=c, method="grad*act") for c in groups.classes]
            checks = [check_positions(model, picture, one, seed=self.seed) for one in found]
            grid = self._grid(model, unit.layer, picture, report) if steps else None
        seconds = elapsed()
        document: dict[str, Any] = {
            "model": model.name,
            "layer": unit.short,
            "picture": picture.ids[0],
            "dictionary": said.describe()["entries"],
            "groups": groups.describe(),
            "attribution": [_attribution(f, n, c) for f, n, c in zip(found, groups.names, checks, strict=True)],
            "provenance": groups.provenance,
        }

        def show(console: Console) -> None:
            _show(console, said, groups, document["attribution"])
            console.print(Text(f"{picture.ids[0]}, {seconds:.1f} s", style="dim"))
            if self.out is None:
                console.print(Text("--out DIR draws it, with an icon for each unit and group", style="dim"))

        return CommandResult(document, show, lambda folder: _write(folder, said, groups, found, checks, grid))

    def _check(self) -> None:
        for name, number, least in (
            ("groups", self.groups, 1),
            ("top", self.top, 1),
            ("steps", self.steps, 1),
            ("pooled", self.pooled, 0),
        ):
            if number is not None and number < least:
                raise UsageError(f"--{name} is at least {least}, not {number}")

    def _places(self) -> list[tuple[int, int]] | None:
        places = []
        for text in self.at:
            row, comma, column = text.partition(",")
            if not (comma and row.strip().isdecimal() and column.strip().isdecimal()):
                raise UsageError(f"--at is row,column, for example 5,7; not {text[:40]!r}")
            places.append((int(row), int(column)))
        return places or None

    def _grid(self, model: Model, layer: str, picture: Any, report: Any) -> ActivationGrid | None:
        from circuits.activations.semantic_dictionary import activation_grid
        from circuits.activations.whitening import measure_whitening

        if self.pooled == 0:
            return None
        size = model.layers[layer].size or (1, 1)
        pooled = self.pooled or next(p for p in range(1, 1 + max(size)) if -(-size[0] // p) * -(-size[1] // p) <= 64)
        whitening = None
        if self.whiten:
            whitening = measure_whitening(model, layer, open_pictures(self.whiten, self.limit, self.seed))
        return activation_grid(
            model, layer, picture, whitening=whitening, pooled=pooled, steps=self.steps, seed=self.seed,
            **reporting(report),
        )  # fmt: skip


def _attribution(found: Attribution, name: str, check: PositionCheck) -> dict[str, Any]:
    return {
        "target": found.target,
        "class": name,
        "score": float(found.response[0]),
        "places": found.places[0].cpu(),
        "units": [{"unit": f"{found.source}:{c}", "contribution": v} for c, v in found.top(10)],
        "silenced": {"correlation": check.correlation, "chance": check.shuffled, "drops": check.drops},
    }


def _show(console: Console, said: SemanticDictionary, groups: Groups, attributions: list[dict[str, Any]]) -> None:
    rows = [
        [f"{e.position[0]},{e.position[1]}" if k == 0 else "", short(u), v, t]
        for e in said.entries
        for k, (u, v, t) in enumerate(zip(e.units, e.values, e.typical, strict=True))
    ]
    console.print(table(["at", "says most", "value", "average here"], rows, right="  rr"))
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
    places = [
        [
            a["class"].split(",")[0],
            a["score"],
            *_best(a["places"]),
            a["silenced"]["correlation"],
            a["silenced"]["chance"],
        ]
        for a in attributions
    ]
    columns = ["class", "score", "most from", "", "agrees with silencing (r)", "chance"]
    console.print(table(columns, places, right=" r rrr"))


def _best(places: Any) -> tuple[str, Text]:
    flat = int(places.abs().flatten().argmax())
    width = places.shape[1]
    return f"{flat // width},{flat % width}", signed(float(places.flatten()[flat]))


def _write(
    folder: Path,
    said: SemanticDictionary,
    groups: Groups,
    found: list[Attribution],
    checks: list[PositionCheck],
    grid: ActivationGrid | None,
) -> None:
    from circuits.plot.activations.image import attribution_figure, dictionary_figure, grid_figure, groups_figure
    from circuits.plot.drawing.canvas import save_figure

    save_figure(dictionary_figure(said), folder / "dictionary.png")
    save_figure(groups_figure(groups, said.image), folder / "groups.png")
    if found:
        figure = attribution_figure(found, said.image, names=groups.names, checks=checks)
        save_figure(figure, folder / "attribution.png")
    if grid is not None:
        save_figure(grid_figure(grid), folder / "grid.png")
