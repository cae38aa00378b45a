"""`circuits neighbors`: the units of a layer that are most like one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, ImageOptions, Session, figures, reporting
from apps.cli.errors import UsageError
from apps.cli.output.circuit_text import short
from apps.cli.output.console import table
from apps.cli.registry import command


@command(group="Analysis", order=100, summary="units of a layer most similar to a unit, by weights or by activations")
@dataclass(frozen=True, kw_only=True)
class ShowNeighbors(ImageOptions):
    """Show the units of a layer that are most like one of them.

    Similar by incoming weights (from the layer before), by outgoing weights (into the layer after), or by activations
    on images. The similarity that one pair in a hundred of the layer reaches is the reference.

    Example:
        circuits neighbors scenes/mixed4a:11
        circuits neighbors googlenet-bvlc/mixed4c:447 --by activations --images photos --out near
    """

    address: tyro.conf.Positional[str]
    """Address of a unit, model included: scenes/mixed4a:11."""
    by: Literal["incoming", "outgoing", "activations"] = "incoming"
    """Alike in incoming weights, outgoing weights, or in activations on --images."""
    top: int = 10
    """How many neighbors to show."""
    positions: int = 16
    """Positions per image, with --by activations."""

    files: ClassVar[tuple[str, ...]] = ("neighbors.png",)

    def run(self, session: Session) -> CommandResult:
        """The neighbors of the unit."""
        from circuits.units.similarity import neighbors

        self.check_least("top")
        if self.images and self.by != "activations":
            raise UsageError("--images goes with --by activations; weights need no images")
        model, unit = self.address_of(self.address)
        options: dict[str, Any] = {}
        with session.progress(f"neighbors of {unit.short}") as report:
            if self.by == "activations":
                options = {"images": self.open_images(model.name), "positions": self.positions, "seed": self.seed}
                options |= reporting(report)
            result = neighbors(model, unit, by=self.by, n=self.top, **options)

        def show(console: Console) -> None:
            console.print(Text.assemble((result.unit, "bold"), f"  by {result.measure}"))
            if result.silent:
                console.print(Text("it has nothing to compare: zero everywhere", style="yellow"))
            rows = [[Text(short(u), style="bold"), f"{v:+.3f}", "" if v > result.chance else "as chance"]
                    for u, v in result.rows]  # fmt: skip
            console.print(table(["unit", "likeness", ""], rows, right=" r"))
            text = f"{result.count} units compared; one pair in a hundred reaches {result.chance:.3f}"
            console.print(Text(text, style="dim"))

        return CommandResult(result.describe(), show, figures(neighbors=result.plot))
