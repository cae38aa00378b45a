"""Expanded weights between two units as an edge that figures draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.context import FigureContext

if TYPE_CHECKING:
    from circuits.attribution.expanded_weights import ExpandedWeights
    from circuits.tracing.circuit import Edge


def edge(context: FigureContext, weights: ExpandedWeights, target: int, source: int) -> Edge:
    """The weights from one channel to one target; the strength is their sum.

    Args:
        context: of the figure.
        weights: of `circuits.expanded_weights`.
        target, source: indices into `weights.kernels`.
    """
    from circuits.tracing.circuit import Edge

    total = float(weights.summed[target, source])
    sign = 1 if total > 0 else -1
    return Edge(
        source=str(context.model.unit(f"{weights.source}:{source}")),
        target=str(context.model.unit(weights.targets[target])),
        sign=sign,
        weight=sign * float(weights.norms[target, source]),
        strength=total,
        kernel=weights.kernels[target, source].detach().cpu().numpy(),
        offset=weights.offset,
        stride=weights.stride,
    )
