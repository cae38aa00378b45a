"""`circuits neighbours`, `match` and `factors`: which units are alike, in one network or two, and what weights hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import Many, ModelOptions, PictureOptions, Result, Session, reporting
from apps.cli.console import table
from apps.cli.drawing import short
from apps.cli.errors import UsageError
from apps.cli.kernels import reading, sketch
from apps.pictures import open_pictures

if TYPE_CHECKING:
    from circuits.factors import Factors
    from circuits.universality import Matches


@dataclass(frozen=True, kw_only=True)
class ShowNeighbours(PictureOptions):
    """Show the units of a layer that are most like one of them.

    Like by what they read (the weights from the layer before), by what reads them (the weights into the layer
    after), or by when they fire on pictures. Beside them stands what one pair in a hundred of the layer reaches.

    Example:
        circuits neighbours scenes/mixed4a:11
        circuits neighbours googlenet-bvlc/mixed4c:447 --by activations --images photos --out near
    """

    address: tyro.conf.Positional[str]
    """Address of a unit, model included: scenes/mixed4a:11."""
    by: Literal["incoming", "outgoing", "activations"] = "incoming"
    """Alike in incoming weights, outgoing weights, or in activations on --images."""
    top: int = 10
    """How many neighbours to show."""
    positions: int = 16
    """Places read per picture, with --by activations."""

    def run(self, session: Session) -> Result:
        """The neighbours of the unit."""
        from circuits.likeness import neighbours

        if self.top < 1:
            raise UsageError(f"--top is at least 1, not {self.top}")
        if self.images and self.by != "activations":
            raise UsageError("--images goes with --by activations; weights need no pictures")
        model, unit = self.address_of(self.address)
        options: dict[str, Any] = {}
        with session.progress(f"neighbours of {unit.short}") as report:
            if self.by == "activations":
                options = {"images": self.pictures(model.name), "positions": self.positions, "seed": self.seed}
                options |= reporting(report)
            found = neighbours(model, unit, by=self.by, n=self.top, **options)

        def show(console: Console) -> None:
            console.print(Text.assemble((found.unit, "bold"), f"  by {found.measure}"))
            if found.silent:
                console.print(Text("it has nothing to compare: zero everywhere", style="yellow"))
            rows = [[Text(short(u), style="bold"), f"{v:+.3f}", "" if v > found.chance else "as chance"]
                    for u, v in found.rows]  # fmt: skip
            console.print(table(["unit", "likeness", ""], rows, right=" r"))
            text = f"{found.count} units compared; one pair in a hundred reaches {found.chance:.3f}"
            console.print(Text(text, style="dim"))

        def write(folder: Path) -> None:
            from circuits.plot.canvas import save_figure
            from circuits.plot.structure import neighbours_table

            save_figure(neighbours_table(found), folder / "neighbours.png")

        return Result(found.describe(), show, write)


@dataclass(frozen=True, kw_only=True)
class MatchUnits(PictureOptions):
    """Match the units of a layer with those of another network: which one fires at the same places.

    Both networks see the same pictures and are read at the same places; each unit is given the unit of the other
    that correlates most with it. Two controls stand beside: an untrained network of the other's shape, and
    the other network on other pictures.

    Example:
        circuits match scenes/mixed4a scenes/mixed4b --images scenes:100
        circuits match googlenet-bvlc/mixed3b squeezenet-1.1/fire5 --layers fire4 --images photos
    """

    first: tyro.conf.Positional[str]
    """A layer, model included: googlenet-bvlc/mixed3b. --weights is its weights file."""
    second: tyro.conf.Positional[str]
    """A layer of the other network: squeezenet-1.1/fire5."""
    layers: Many = ()
    """Further layers of the other network to search; may be repeated."""
    other_weights: str | None = None
    """Weights file of the other network, or `random`."""
    assignment: bool = False
    """Give every unit a partner of its own, instead of its best match."""
    positions: int = 16
    """Places read per picture."""
    top: int = 15
    """How many pairs to show."""

    def run(self, session: Session) -> Result:
        """The matched pairs."""
        from circuits.address import Unit
        from circuits.errors import AddressError, shorten
        from circuits.model import load
        from circuits.universality import match

        if self.top < 1:
            raise UsageError(f"--top is at least 1, not {self.top}")
        at = Unit.parse(self.second)
        if at.model is None:
            raise AddressError(f"{shorten(self.second)!r} does not say which model: write squeezenet-1.1/fire5, say")
        for one in (Unit.parse(self.first), at):
            if one.index is not None:
                raise UsageError(f"match takes layers, not the unit {shorten(one.short)}: leave its number out")
        images = self._pictures(Unit.parse(self.first).model, at.model)
        model, layer = self.address_of(self.first)
        other = load(at.model, weights=self.other_weights, device=self.device)
        spaces = [at.short, *self.layers]
        with session.progress(f"{layer} and {self.second}") as report:
            found = match(
                model,
                layer.short,
                other,
                spaces,
                images=images,
                positions=self.positions,
                assignment=self.assignment,
                seed=self.seed,
                **reporting(report),
            )

        def write(folder: Path) -> None:
            from circuits.plot.canvas import save_figure
            from circuits.plot.structure import match_matrix, match_table

            save_figure(match_table(found, n=self.top), folder / "pairs.png")
            save_figure(match_matrix(found), folder / "matrix.png")

        return Result(found.describe(), lambda console: _show_match(console, found, self.top), write)

    def _pictures(self, first: str | None, second: str) -> Any:
        if not self.images and {first, second} != {"scenes"}:
            raise UsageError("match needs pictures to look at: --images FOLDER (or --images scenes:500)")
        return open_pictures(self.images or ("scenes:200",), self.limit, self.seed)


def _show_match(console: Console, found: Matches, top: int) -> None:
    controls = list(found.controls)
    rows = [
        [
            Text(short(p.unit), style="bold"),
            Text(short(p.other), style="bold"),
            f"{p.correlation:.3f}",
            "yes" if p.mutual else "",
            *(f"{p.chance[name]:.3f}" for name in controls),
        ]
        for p in found.pairs[:top]
    ]
    columns = [found.first, found.second, "correlation", "mutual", *controls]
    console.print(table(columns, rows, right="  r rr"))
    summary = found.summary()
    text = (
        f"{summary['matched']} of {summary['units']} units matched, {summary['mutual']} mutual, "
        f"median {summary['median']:.3f}"
    )
    for name, values in summary["controls"].items():
        text += f"; {name}: median {values['median']:.3f}, {values['mutual']} mutual, beaten by {values['beaten']}"
    console.print(Text(text, style="dim"))


@dataclass(frozen=True, kw_only=True)
class ShowFactors(ModelOptions):
    """Tell the weights into a unit, a family or a branch as a few groups of channels and their places.

    One-sided NMF (Voss et al., Visualizing Weights, 2021): the channel side of each factor is not negative, its
    place is signed. The same share for weights with shuffled channels stands beside as the control.

    Example:
        circuits factors scenes/mixed4a:11 --factors 3
        circuits factors googlenet-bvlc/mixed4d_5x5 --factors 6 --out factors
        circuits factors scenes/mixed4a:11 --also mixed4a:3 --also mixed4a:7
    """

    address: tyro.conf.Positional[str]
    """Address of a unit, a branch or a layer, model included."""
    also: Many = ()
    """Further units of the same layer, factored together; may be repeated."""
    source: str | None = None
    """Layer (or layer~basis) that the weights start from; by default the trunk layer before."""
    factors: int = 3
    """How many factors."""
    top: int = 5
    """How many sources to name for each."""

    def run(self, session: Session) -> Result:
        """The factors of the weights."""
        from circuits.errors import GraphError
        from circuits.factors import one_sided_nmf
        from circuits.weights import expanded_weights

        if self.top < 1:
            raise UsageError(f"--top is at least 1, not {self.top}")
        model, unit = self.address_of(self.address)
        source = self.source or model.before(unit.layer)
        if source is None:
            raise GraphError(f"{unit.short} reads the picture itself; no layer with weights lies before it")
        with session.progress(f"factors of {source} -> {unit.short}") as report:
            weights = expanded_weights(model, source=source, target=[unit, *self.also])
            found = one_sided_nmf(weights, self.factors, seed=self.seed, **reporting(report))
        document = {"model": model.name, "source": weights.source, **found.describe(self.top)}
        document["provenance"] = {**document["provenance"], "weights": model.digest}

        def write(folder: Path) -> None:
            import numpy as np

            from circuits.plot.canvas import save_figure
            from circuits.plot.factors import factor_figure

            save_figure(factor_figure(found, n=self.top), folder / "factors.png")
            np.savez(folder / "factors.npz", channels=found.channels, spatial=found.spatial)

        return Result(document, lambda console: _show_factors(console, found, self.top), write)


def _show_factors(console: Console, found: Factors, top: int) -> None:
    from statistics import mean

    for k in range(len(found)):
        lost = f"  {found.each[k]:.1%} of the weights is lost without it"
        console.print(Text.assemble((f"factor {k + 1}", "bold"), lost))
        named = "  ".join(f"{unit} {value:.2f}" for unit, value in found.top(k, top))
        console.print(Text(f"  {named}"))
        rows = [
            [Text(f"  {target}"), reading(found.spatial[k, i]), sketch(found.spatial[k, i])]
            for i, target in enumerate(found.targets[:6])
        ]
        console.print(table(["  target", "what it does", "kernel, row by row"], rows))
    more = f"; {len(found.targets) - 6} more targets, --json lists them all" if len(found.targets) > 6 else ""
    chance = f"{mean(found.shuffled):.1%} with channels shuffled"
    text = f"{found.explained:.1%} of the weights' sum of squares; {chance}{more}"
    console.print(Text(text, style="dim"))
