"""`circuits attribute`: what each unit of a layer contributes to a unit, on pictures; and the sum that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, PictureOptions, Session
from apps.cli.errors import UsageError
from apps.cli.output.console import clock, signed, table
from apps.cli.registry import command

if TYPE_CHECKING:
    from circuits.attribution.attribute import Attribution
    from zoo.images.sources import Images

SHOWN_PICTURES = 8


@command(group="Analysis", order=50, summary="what each unit of a layer contributes to a unit, on images")
@dataclass(frozen=True, kw_only=True)
class Attribute(PictureOptions):
    """Say what each unit of a layer contributes to a unit's response, picture by picture and on average.

    The response is taken at the unit's peak on each picture, or at the position of the address (@y,x), before its own
    rectifier. weight*act multiplies expanded weights with activations; with the biases it sums up to the response
    where nothing nonlinear lies between. grad*act uses the gradient on the picture, integrated averages it on the way
    from zero, ablation measures what is lost without the unit. All units + biases + the nonlinear rest = the response.

    Example:
        circuits attribute scenes/mixed4a:11 --source mixed3b --images scenes:100
        circuits attribute scenes/mixed4a:11@3,5 --source mixed3b --images car.png --method integrated
        circuits attribute googlenet-bvlc/logits:817 --source mixed4c --images cars --limit 20
    """

    address: tyro.conf.Positional[str]
    """The unit: model/layer:unit, with @y,x to read it at one position."""
    source: str | None = None
    """Layer whose units are asked; `input` for the picture itself. By default the trunk layer before."""
    method: Literal["weight*act", "grad*act", "integrated", "ablation"] = "weight*act"
    """How contributions are measured."""
    top: int = 10
    """How many units to show."""

    def run(self, session: Session) -> CommandResult:
        """Contributions, and the sum."""
        from circuits.attribution.attribute import attribute
        from circuits.errors import GraphError

        if self.top < 1:
            raise UsageError(f"--top is at least 1, not {self.top}")
        elapsed = clock()
        model, unit = self.address_of(self.address)
        source = self.source or model.before(unit.layer)
        if source is None:
            raise GraphError(
                f"{unit.short} reads the picture itself: --source input, with --method grad*act or integrated"
            )
        images = self.pictures(model.name)
        with session.progress(f"attributing {unit.short} to {source}"):
            found = attribute(model, images, source=source, target=unit, method=self.method)
        seconds = elapsed()
        units = _units(found, self.top)
        total = float(found.units.sum(dim=1).mean())
        sums = {
            "shown": sum(u["contribution"] for u in units),
            "others": total - sum(u["contribution"] for u in units),
            "all": total,
            "bias": float(found.bias.mean()),
            "remainder": float(found.remainder.mean()),
            "response": float(found.response.mean()),
        }
        document: dict[str, Any] = {
            "target": found.target,
            "source": found.source,
            "start": found.start,
            "method": found.method,
            "units": units,
            "sum": sums,
            "pictures": _pictures(found, images),
            "provenance": found.provenance,
        }

        def show(console: Console) -> None:
            console.print(Text.assemble((found.target, "bold"), f"  from {found.source} by {found.method}"))
            rows = [[u["unit"], signed(u["contribution"]), u["share"], u["pictures"]] for u in units]
            console.print(
                table(["unit", "contributes", "share of |all|", "pictures on which it adds"], rows, right=" rrr")
            )
            console.print()
            columns = ["the sum (mean)", "shown", "+ others", "= all", "+ biases", "+ nonlinear", "= response"]
            names = ("shown", "others", "all", "bias", "remainder", "response")
            console.print(table(columns, [["", *(signed(sums[n]) for n in names)]], right=" rrrrrr"))
            console.print()
            _show_pictures(console, document["pictures"])
            console.print(Text(f"{len(images)} pictures of {images.name}, {seconds:.1f} s", style="dim"))

        def write(folder: Path) -> None:
            import numpy as np

            np.save(folder / "contributions.npy", found.units.cpu().numpy())

        return CommandResult(document, show, write)


def _units(found: Attribution, top: int) -> list[dict[str, Any]]:
    mean = found.units.mean(dim=0)
    size = float(mean.abs().sum()) or 1.0
    return [
        {
            "unit": f"{found.source}:{channel}",
            "contribution": value,
            "share": abs(value) / size,
            "pictures": int((found.units[:, channel] > 0).sum()),
        }
        for channel, value in found.top(top)
    ]


def _pictures(found: Attribution, images: Images) -> list[dict[str, Any]]:
    """One row a picture, strongest response first: where the unit was read, what it says, and who said most."""
    rows = []
    for i in found.response.argsort(descending=True, stable=True).tolist():
        best = int(found.units[i].abs().argmax())
        rows.append(
            {
                "id": images.ids[i],
                "position": found.positions[i],
                "response": float(found.response[i]),
                "strongest": {"unit": f"{found.source}:{best}", "contribution": float(found.units[i, best])},
            }
        )
    return rows


def _show_pictures(console: Console, rows: list[dict[str, Any]]) -> None:
    lines = [
        [
            r["id"],
            "{},{}".format(*r["position"]),
            signed(r["response"]),
            r["strongest"]["unit"],
            signed(r["strongest"]["contribution"]),
        ]
        for r in rows[:SHOWN_PICTURES]
    ]
    console.print(table(["picture", "at", "response", "most by", ""], lines, right="  r r"))
    if len(rows) > SHOWN_PICTURES:
        console.print(Text(f"and {len(rows) - SHOWN_PICTURES} more pictures; --json lists them all", style="dim"))
