"""Visualizing Weights: one kernel between the visualizations of its two units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from apps.cli.verify import inceptionv1
from apps.figures.context import FigureContext, NotApplicable
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.edges import edge
from apps.figures.helpers.tuned_units import layer_before
from apps.figures.helpers.unit_images import visualizations

if TYPE_CHECKING:
    from circuits.attribution.expanded_weights import ExpandedWeights


_STRONGEST = 50


@figure(
    "V3",
    "one-kernel",
    "One kernel between two visualizations",
    paper="visualizing-weights",
    shows="Between the visualizations of two units a kernel is interpretable: it shows where one excites the other.",
    cost=30,
    published=lambda context: inceptionv1.dogs(context.model),
)
def draw(context: FigureContext) -> FigureResult:
    """The strongest edge between two layers, of those with a spatial kernel."""
    import circuits
    from circuits.common.untrained import untrained
    from circuits.plot.drawing.image_wall import kernel_between

    for target in _later(context):
        source = layer_before(context, target)
        weights = circuits.expanded_weights(context.model, source=source, target=target)
        if max(weights.kernels.shape[2:]) > 1:
            break
    else:
        raise NotApplicable("needs kernels of more than one position between two layers in the middle of the network")
    blank = circuits.expanded_weights(untrained(context.model, seed=context.seed), source=source, target=target)
    pairs = _strongest(weights, _STRONGEST)
    t, s, how = *pairs[0], "the largest share of a unit's incoming weights, of spatial kernels"
    if context.published:
        t, s, how = 443, 308, "the published one"
    strongest = edge(context, weights, t, s)
    drawing = kernel_between(
        strongest,
        visualizations(context, [strongest.source, strongest.target]),
        about=f"expanded weights, {how}",
    )
    smooth, chance = (_smoothness(w, _strongest(w, _STRONGEST)) for w in (weights, blank))
    claim = Claim.above(
        f"kernels are smooth: correlation of neighboring weights in the {_STRONGEST} strongest",
        smooth,
        chance,
        f"the {_STRONGEST} strongest of the untrained network",
    )
    numbers = {name: getattr(strongest, name) for name in ("source", "target", "kernel", "weight")}
    return FigureResult({"": drawing}, numbers, f"The edge is {how}.", [claim])


def _later(context: FigureContext) -> list[str]:
    """mixed4b, else the second half of the spatial trunk layers."""
    if "mixed4b" in context.model.layers:
        return ["mixed4b"]
    spatial = [name for name in context.model.trunk if context.model.layers[name].size is not None]
    return spatial[max(1, len(spatial) // 2) :]


def _strongest(weights: ExpandedWeights, count: int) -> list[tuple[int, int]]:
    """Pairs (target, source) with the largest share of a target's incoming weights, of spatial kernels."""
    norms = weights.norms.detach().cpu()
    flat = weights.kernels.detach().cpu().flatten(2)
    spread = flat.abs().sum(dim=2) / flat.abs().amax(dim=2).clamp_min(1e-30) > 2  # more than a point or two
    # after a pool all positions have equal weights: such a kernel has no learned shape
    covered = (flat != 0).sum(dim=2).clamp_min(1)
    mean = flat.sum(dim=2) / covered
    varied = (flat.square().sum(dim=2) / covered - mean.square()).clamp_min(0).sqrt() > 1e-3 * flat.abs().amax(dim=2)
    spread &= varied
    shares = norms / norms.norm(dim=1, keepdim=True).clamp_min(1e-30) * spread
    order = shares.flatten().argsort(descending=True, stable=True)[:count].tolist()
    return [divmod(i, norms.shape[1]) for i in order]


def _smoothness(weights: ExpandedWeights, pairs: Sequence[tuple[int, int]]) -> float:
    """Mean correlation of neighboring weights, within what each kernel covers: a 3x3 one may lie in a 5x5 frame."""
    from circuits.attribution.first_layer import smoothness

    values = []
    for t, s in pairs:
        kernel = weights.kernels[t, s].detach().cpu()
        rows, columns = (kernel != 0).any(dim=1).nonzero().flatten(), (kernel != 0).any(dim=0).nonzero().flatten()
        inner = kernel[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
        values.append(float(smoothness(inner[None])[0]))
    return sum(values) / len(values)
