"""`circuits match`: which units of two networks correspond, against controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import OF_SCENES, CommandResult, ImageOptions, Many, Session, check_known, figures, reporting
from apps.cli.errors import UsageError
from apps.cli.output.circuit_text import short
from apps.cli.output.console import table
from apps.cli.registry import command
from apps.images import open_sources

if TYPE_CHECKING:
    from circuits.units.universality import Matches


@command(
    group="Analysis",
    order=110,
    summary="the unit of another network that correlates most with a unit, against controls",
)
@dataclass(frozen=True, kw_only=True)
class MatchUnits(ImageOptions):
    """Match the units of a layer with those of another network: the most correlated one.

    Both networks get the same images and are compared at the same positions; each unit is matched with the
    unit of the other that correlates most with it. There are two controls: an untrained network of the other's shape,
    and the other network on other images.

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
    """Positions per image."""
    top: int = 15
    """How many pairs to show."""

    files: ClassVar[tuple[str, ...]] = ("pairs.png", "matrix.png")

    def run(self, session: Session) -> CommandResult:
        """The matched pairs."""
        from circuits import plot
        from circuits.errors import AddressError, shorten
        from circuits.network.address import Unit
        from circuits.network.model import load
        from circuits.units.universality import match

        self.check_least("top")
        at = Unit.parse(self.second)
        if at.model is None:
            raise AddressError(f"{shorten(self.second)!r} does not name its model: write squeezenet-1.1/fire5, say")
        for given_unit in (Unit.parse(self.first), at):
            if given_unit.index is not None:
                raise UsageError(f"match takes layers, not the unit {shorten(given_unit.short)}: leave its number out")
        images = self._open_images(Unit.parse(self.first).model, at.model)
        model, layer = self.address_of(self.first)
        check_known(at.model, None)
        other = load(at.model, weights=self.other_weights, device=self.device)
        spaces = [at.short, *self.layers]
        with session.progress(f"{layer} and {self.second}") as report:
            matches = match(
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

        write = figures(pairs=lambda: matches.plot(n=self.top), matrix=lambda: plot.match_matrix(matches))
        return CommandResult(matches.describe(), lambda console: _show_match(console, matches, self.top), write)

    def _open_images(self, first: str | None, second: str) -> Any:
        if not self.images and not {first, second} <= {*OF_SCENES}:
            raise UsageError("match needs images to look at: --images FOLDER (or --images scenes:500)")
        return open_sources(self.images or ("scenes:200",), self.limit, self.seed)


def _show_match(console: Console, matches: Matches, top: int) -> None:
    controls = list(matches.controls)
    rows = [
        [
            Text(short(p.unit), style="bold"),
            Text(short(p.other), style="bold"),
            f"{p.correlation:.3f}",
            "yes" if p.mutual else "",
            *(f"{p.chance[name]:.3f}" for name in controls),
        ]
        for p in matches.pairs[:top]
    ]
    columns = [matches.first, matches.second, "correlation", "mutual", *controls]
    console.print(table(columns, rows, right="  r rr"))
    summary = matches.summary()
    text = (
        f"{summary['matched']} of {summary['units']} units matched, {summary['mutual']} mutual, "
        f"median {summary['median']:.3f}"
    )
    for name, values in summary["controls"].items():
        text += f"; {name}: median {values['median']:.3f}, {values['mutual']} mutual, beaten by {values['beaten']}"
    console.print(Text(text, style="dim"))
