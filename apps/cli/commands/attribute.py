"""`circuits attribute`: what each unit of a layer contributes to a unit, on images, and their sum."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, ImageOptions, Session
from apps.cli.output.console import clock, signed, table
from apps.cli.registry import command

if TYPE_CHECKING:
    from circuits.attribution.attribute import Attribution
    from zoo.images.sources import Images

SHOWN_IMAGES = 8


@command(group="Analysis", order=50, summary="what each unit of a layer contributes to a unit, on images")
@dataclass(frozen=True, kw_only=True)
class Attribute(ImageOptions):
    """Compute what each unit of a layer contributes to a unit's response, image by image and on average.

    The response is taken at the unit's peak on each image, or at the position of the address (@y,x), before its own
    ReLU. weight*act multiplies expanded weights with activations; with the biases it sums up to the response
    where nothing nonlinear lies between. grad*act uses the gradient on the image, integrated averages it on the way
    from zero, ablation measures what is lost without the unit. All units + biases + the nonlinear rest = the response.

    Example:
        circuits attribute scenes/mixed4a:11 --source mixed3b --images scenes:100
        circuits attribute scenes/mixed4a:11@3,5 --source mixed3b --images car.png --method integrated
        circuits attribute googlenet-bvlc/logits:817 --source mixed4c --images cars --limit 20
    """

    address: tyro.conf.Positional[str]
    """The unit: model/layer:unit, with @y,x to read it at one position."""
    source: str | None = None
    """Layer of the contributing units; `input` for the image itself. By default the trunk layer before."""
    method: Literal["weight*act", "grad*act", "integrated", "ablation"] = "weight*act"
    """How contributions are measured."""
    top: int = 10
    """How many units to show."""

    files: ClassVar[tuple[str, ...]] = ("contributions.npy",)

    def run(self, session: Session) -> CommandResult:
        """Contributions, and the sum."""
        from circuits.attribution.attribute import attribute
        from circuits.errors import GraphError

        self.check_least("top")
        elapsed = clock()
        model, unit = self.address_of(self.address)
        source = self.source or model.before(unit.layer)
        if source is None:
            raise GraphError(
                f"{unit.short} has only the image before it: --source input, with --method grad*act or integrated"
            )
        images = self.open_images(model.name)
        with session.progress(f"attributing {unit.short} to {source}"):
            attribution = attribute(model, images, source=source, target=unit, method=self.method)
        seconds = elapsed()
        units = _units(attribution, self.top)
        total = float(attribution.units.sum(dim=1).mean())
        contributions = {
            "shown": sum(u["contribution"] for u in units),
            "others": total - sum(u["contribution"] for u in units),
            "all": total,
            "bias": float(attribution.bias.mean()),
            "remainder": float(attribution.remainder.mean()),
            "response": float(attribution.response.mean()),
        }
        document: dict[str, Any] = {
            "target": attribution.target,
            "source": attribution.source,
            "start": attribution.start,
            "method": attribution.method,
            "units": units,
            "sum": contributions,
            "pictures": _rows_of_images(attribution, images),
            "provenance": attribution.provenance,
        }

        def show(console: Console) -> None:
            console.print(
                Text.assemble((attribution.target, "bold"), f"  from {attribution.source} by {attribution.method}")
            )
            rows = [[u["unit"], signed(u["contribution"]), u["share"], u["pictures"]] for u in units]
            console.print(table(["unit", "contributes", "share of |all|", "images where positive"], rows, right=" rrr"))
            console.print()
            columns = ["contributions (mean)", "listed", "+ others", "= all", "+ biases", "+ nonlinear", "= response"]
            names = ("shown", "others", "all", "bias", "remainder", "response")
            console.print(table(columns, [["", *(signed(contributions[n]) for n in names)]], right=" rrrrrr"))
            console.print()
            _show_images(console, document["pictures"])
            console.print(Text(f"{len(images)} images of {images.name}, {seconds:.1f} s", style="dim"))

        def write(folder: Path) -> None:
            import numpy as np

            np.save(folder / "contributions.npy", attribution.units.cpu().numpy())

        return CommandResult(document, show, write)


def _units(attribution: Attribution, top: int) -> list[dict[str, Any]]:
    mean = attribution.units.mean(dim=0)
    size = float(mean.abs().sum()) or 1.0
    return [
        {
            "unit": f"{attribution.source}:{channel}",
            "contribution": value,
            "share": abs(value) / size,
            "pictures": int((attribution.units[:, channel] > 0).sum()),
        }
        for channel, value in attribution.top(top)
    ]


def _rows_of_images(attribution: Attribution, images: Images) -> list[dict[str, Any]]:
    """One row an image, strongest response first: the unit's position, its response, and the strongest contribution."""
    rows = []
    for i in attribution.response.argsort(descending=True, stable=True).tolist():
        best = int(attribution.units[i].abs().argmax())
        rows.append(
            {
                "id": images.ids[i],
                "position": attribution.positions[i],
                "response": float(attribution.response[i]),
                "strongest": {
                    "unit": f"{attribution.source}:{best}",
                    "contribution": float(attribution.units[i, best]),
                },
            }
        )
    return rows


def _show_images(console: Console, rows: list[dict[str, Any]]) -> None:
    lines = [
        [
            r["id"],
            "{},{}".format(*r["position"]),
            signed(r["response"]),
            r["strongest"]["unit"],
            signed(r["strongest"]["contribution"]),
        ]
        for r in rows[:SHOWN_IMAGES]
    ]
    console.print(table(["image", "at", "response", "most by", ""], lines, right="  r r"))
    if len(rows) > SHOWN_IMAGES:
        console.print(Text(f"and {len(rows) - SHOWN_IMAGES} more images; --json lists them all", style="dim"))
