"""Visualizing Weights: the weights of a branch, and of high-low frequency detectors, in a few factors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apps.cli.verify import families
from apps.figures.context import FigureContext, NotApplicable
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import high_low_detectors, layer_before
from apps.figures.helpers.unit_images import top_crops

if TYPE_CHECKING:
    from circuits.units.weight_factors import Factors


@figure(
    "V1",
    "branch-factors",
    "The weights of a branch in three factors",
    paper="visualizing-weights",
    shows="A few factors explain most of a branch's weights: groups of channels, each with a spatial pattern.",
    fits="inception",
    cost=30,
)
def branch(context: FigureContext) -> FigureResult:
    """One-sided NMF of the weights to ten units of a branch."""
    import circuits
    from circuits.plot import factor_figure

    name = _branch(context)
    base, first = context.model.layers[name].part or (name, 0)
    below = layer_before(context, base)
    weights = circuits.expanded_weights(context.model, source=below, target=name)
    order = weights.norms.detach().cpu().norm(dim=1).argsort(descending=True, stable=True)[:10].sort().values.tolist()
    chosen = order if not context.published else list(range(min(10, len(weights.targets))))
    units = [weights.targets[i] for i in chosen]
    selected = circuits.expanded_weights(context.model, source=below, target=units)
    result = circuits.one_sided_nmf(selected, 3, shuffles=context.size(3, 2, 1), iterations=context.size(400, 200, 50),
                                   seed=context.seed)  # fmt: skip
    tops = list(dict.fromkeys(unit for k in range(3) for unit, _ in result.top(k, 5)))
    drawing = factor_figure(
        result,
        top_crops(context, [str(context.model.unit(u)) for u in tops], 1),
        targets=range(min(8, len(units))),
        title=f"Weights from {below} to {len(units)} units of {name}, in three factors",
    )
    how = f"the {len(units)} with the largest weights" if not context.published else "the first ten"
    caption = f"{len(units)} units of {name}, from channel {first} on ({how}); eight are shown."
    return FigureResult({"": drawing}, result.describe(), caption, [_explained(result)])


@figure(
    "V7",
    "early-frequency-factors",
    "High-low frequency detectors in two factors of an early layer",
    paper="visualizing-weights",
    shows="The weights of high-low frequency detectors are two groups of channels, fine and coarse, on either side.",
    cost=40,
    published=lambda context: families.high_low_factors(context.model, context.seed),
)
def high_low(context: FigureContext) -> FigureResult:
    """One-sided NMF of the expanded weights from two layers below, and the preferred frequencies of the two groups."""
    import circuits
    from circuits.plot import factor_figure
    from circuits.tuning.detectors import frequency_factors

    detectors = high_low_detectors(context, 4)
    layer = detectors.layer
    below = layer_before(context, layer_before(context, layer))
    selected = detectors.spread(6)
    weights = circuits.expanded_weights(context.model, source=below, target=[u.unit for u in selected])
    factors = circuits.one_sided_nmf(weights, 2, shuffles=context.size(3, 2, 1), iterations=context.size(1000, 300, 50),
                                     seed=context.seed)  # fmt: skip
    selected_detectors = [d for d in detectors.detectors if d.unit in {u.unit for u in selected}]
    frequencies = frequency_factors(
        context.model, selected_detectors, source=below, shuffles=context.size(2000, 500, 100), seed=context.seed
    )
    high = {c for c, _, _ in frequencies.top(0, 5)}
    first = {int(unit.rpartition(":")[2]) for unit, _ in factors.top(0, 5)}
    factors = factors if len(high & first) >= len(high - first) else factors.ordered([1, 0])
    tops = [unit for k in range(2) for unit, _ in factors.top(k, 5)]
    drawing = factor_figure(
        factors,
        top_crops(context, [str(context.model.unit(u)) for u in tops], 1),
        title=f"Weights from {below} to {len(selected)} high-low frequency detectors of {layer}, in two factors",
    )
    bound = float(np.quantile(frequencies.shuffled, 0.95))
    claims = [
        _explained(factors),
        Claim.above(
            "the two groups prefer different frequencies: octaves apart",
            frequencies.octaves,
            bound,
            "95 % of shuffles of the channels' frequencies",
        ),
    ]
    mean_alignment = float(np.nanmean(frequencies.alignment)) if np.isfinite(frequencies.alignment).any() else 0.0
    claims.append(
        Claim.above("the high group lies on the fine side of the tuning: mean cosine", mean_alignment, 0.0, "no side")
    )
    numbers = {"factors": factors.describe(), "frequencies": {k: v for k, v in frequencies.describe().items()}}
    for part in numbers.values():
        part.pop("provenance")
    caption = f"Six units spread over orientations; {detectors.how}. Crops: the top activating image of each channel."
    return FigureResult({"": drawing}, numbers, caption, claims)


def _branch(context: FigureContext) -> str:
    for name in ("mixed4d_5x5", "mixed4a_5x5"):
        if name in context.model.layers:
            return name
    parts = [name for name, layer in context.model.layers.items() if layer.part is not None and layer.channels >= 4]
    if not parts:
        raise NotApplicable("needs a network with branches")
    return parts[len(parts) // 2]


def _explained(factors: Factors) -> Claim:
    level = max(factors.shuffled)
    return Claim.above(
        f"{len(factors)} factors explain the weights: share of their squares",
        factors.explained,
        level,
        "weights with their channels shuffled at every position",
    )
