"""`circuits weights`: the kernels between two layers, as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, ModelOptions, Session
from apps.cli.errors import UsageError
from apps.cli.output.console import signed, table
from apps.cli.output.kernel_text import halves, reading, sketch
from apps.cli.registry import command

if TYPE_CHECKING:
    from circuits.attribution.expanded_weights import ExpandedWeights


@command(group="Analysis", order=40, summary="expanded weights from one layer to a unit of a later one")
@dataclass(frozen=True, kw_only=True)
class Weights(ModelOptions):
    """Show the kernels from the channels of one layer to a unit of a later one, the strongest first.

    Where several layers lie between the two, these are expanded weights: the kernels composed as if the ReLUs
    in between were not there and max pools averaged (Voss et al., Visualizing Weights, 2021). A kernel is read as a
    image: the unit is excited by the source where it is positive, inhibited where it is negative. The option
    --weights, as everywhere, names the file of the model's own weights.

    Example:
        circuits weights scenes --source mixed3b --target mixed4a:11
        circuits weights scenes/mixed4a:11 --source mixed3b --top 5 --json
    """

    model: tyro.conf.Positional[str]
    """Name of a model; or the address of the target, model included."""
    source: str | None = None
    """Layer that the kernels start from; by default the trunk layer before the target's."""
    target: str | None = None
    """Unit (or layer: its first units) that they end in, for example mixed4a:11."""
    top: int = 10
    """How many sources to show for a target."""
    method: Literal["auto", "exact", "vjp"] = "auto"
    """Compose the kernels exactly, or differentiate the linearized network; they agree to rounding."""

    files: ClassVar[tuple[str, ...]] = ("kernels.npy",)

    def run(self, session: Session) -> CommandResult:
        """The strongest kernels of each target."""
        from circuits.attribution.expanded_weights import expanded_weights
        from circuits.attribution.first_layer import reads_pixels
        from circuits.errors import GraphError

        self.check_least("top")
        if self.target is None:
            if "/" not in self.model or (":" not in self.model):
                raise UsageError("weights needs a target: --target mixed4a:11")
            model, unit = self.address_of(self.model)
        else:
            model = self.load(self.model)
            unit = model.resolve(self.target)
        source = self.source or model.before(unit.layer)
        if source is None:
            raise GraphError(reads_pixels(model.name, unit))
        with session.progress(f"weights {source} -> {unit.short}"):
            result = expanded_weights(model, source=source, target=unit, method=self.method)
        targets = [_target(result, i, self.top) for i in range(len(result.targets))]
        document = {
            "model": model.name,
            "source": result.source,
            "start": result.start,
            "method": result.method,
            "offset": result.offset,
            "stride": result.stride,
            "targets": targets,
            "provenance": {"weights": model.digest, "source": model.source},
        }

        def show(console: Console) -> None:
            for target in targets[:4]:
                heading = f"{target['unit']}  from {result.source}"
                if result.start != result.source:
                    heading += f" (activations read at {result.start})"
                console.print(Text(heading, style="bold"))
                rows = [
                    [
                        s["unit"],
                        signed(s["weight"]),
                        s["share"],
                        signed(s["sum"]),
                        reading(s["kernel"]),
                        sketch(s["kernel"]),
                    ]
                    for s in target["sources"]
                ]
                columns = ["source", "weight", "share", "sum", "effect", "kernel, row by row"]
                console.print(table(columns, rows, right=" rrr"))
                console.print(
                    Text(f"rest: {target['rest']['count']} sources, sum {target['rest']['sum']:+.3g}\n", style="dim")
                )
            if len(targets) > 4:
                console.print(Text(f"and {len(targets) - 4} more targets; --json lists them all", style="dim"))

        def write(folder: Path) -> None:
            import numpy as np

            np.save(folder / "kernels.npy", result.kernels.cpu().numpy())

        return CommandResult(document, show, write)


def _target(result: ExpandedWeights, index: int, top: int) -> dict:
    norms = result.norms[index]
    total = float(norms.square().sum()) or 1.0
    sources = []
    for channel, weight in result.top(index, top):
        kernel = result.kernels[index, channel].tolist()
        sources.append(
            {
                "unit": f"{result.source}:{channel}",
                "weight": weight,
                "share": weight**2 / total,
                "sum": float(result.summed[index, channel]),
                "halves": halves(kernel),
                "kernel": kernel,
            }
        )
    channels = [channel for channel, _ in result.top(index, top)]
    rest = float(result.rest(channels, index).sum())
    return {
        "unit": result.targets[index],
        "sources": sources,
        "rest": {"count": len(norms) - len(channels), "sum": rest},
    }
