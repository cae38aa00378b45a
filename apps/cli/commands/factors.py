"""`circuits factors`: the weights into a unit or family as a few groups of channels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, Many, ModelOptions, Session, reporting
from apps.cli.output.console import table
from apps.cli.output.kernel_text import reading, sketch
from apps.cli.registry import command

if TYPE_CHECKING:
    from circuits.units.weight_factors import Factors


@command(
    group="Analysis",
    order=120,
    summary="weights into a unit or family, factored into channel groups and their positions",
)
@dataclass(frozen=True, kw_only=True)
class ShowFactors(ModelOptions):
    """Factor the weights into a unit, a family or a branch into a few channel groups and their spatial weights.

    One-sided NMF (Voss et al., Visualizing Weights, 2021): the channel side of each factor is not negative, its
    spatial weight is signed. The same share for weights with shuffled channels stands beside as the control.

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

    files: ClassVar[tuple[str, ...]] = ("factors.png", "factors.npz")

    def run(self, session: Session) -> CommandResult:
        """The factors of the weights."""
        from circuits.attribution.expanded_weights import expanded_weights
        from circuits.attribution.first_layer import reads_pixels
        from circuits.errors import GraphError
        from circuits.units.weight_factors import one_sided_nmf

        self.check_least("top")
        model, unit = self.address_of(self.address)
        source = self.source or model.before(unit.layer)
        if source is None:
            raise GraphError(reads_pixels(model.name, unit))
        with session.progress(f"factors of {source} -> {unit.short}") as report:
            weights = expanded_weights(model, source=source, target=[unit, *self.also])
            result = one_sided_nmf(weights, self.factors, seed=self.seed, **reporting(report))
        document = {"model": model.name, "source": weights.source, **result.describe(self.top)}
        document["provenance"] = {**document["provenance"], "weights": model.digest}

        def write(folder: Path) -> None:
            import numpy as np

            from circuits.plot.drawing.canvas import save_figure
            from circuits.plot.units.weight_factors import factor_figure

            save_figure(factor_figure(result, n=self.top), folder / "factors.png")
            np.savez(folder / "factors.npz", channels=result.channels, spatial=result.spatial)

        return CommandResult(document, lambda console: _show_factors(console, result, self.top), write)


def _show_factors(console: Console, result: Factors, top: int) -> None:
    from statistics import mean

    for k in range(len(result)):
        lost = f"  {result.each[k]:.1%} of the weights is lost without it"
        console.print(Text.assemble((f"factor {k + 1}", "bold"), lost))
        channels = "  ".join(f"{unit} {value:.2f}" for unit, value in result.top(k, top))
        console.print(Text(f"  {channels}"))
        rows = [
            [Text(f"  {target}"), reading(result.spatial[k, i]), sketch(result.spatial[k, i])]
            for i, target in enumerate(result.targets[:6])
        ]
        console.print(table(["  target", "what it does", "kernel, row by row"], rows))
    more = f"; {len(result.targets) - 6} more targets, --json lists them all" if len(result.targets) > 6 else ""
    chance = f"{mean(result.shuffled):.1%} with channels shuffled"
    text = f"{result.explained:.1%} of the weights' sum of squares; {chance}{more}"
    console.print(Text(text, style="dim"))
