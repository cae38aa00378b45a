"""Visualizing Weights: the weights of a branch, and of high-low frequency detectors, in a few factors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.context import NotApplicable
from apps.figures.figure import Claim, FigureResult, figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apps.cli.verify.checks import Check
    from apps.figures.context import FigureContext
    from circuits.units.weight_factors import Factors


def _published(context: FigureContext) -> Iterator[Check]:
    from apps.cli.verify import families

    return families.high_low_factors(context.model, context.seed)


@figure(
    "V1",
    "branch-factors",
    "The weights of a branch in three factors",
    paper="visualizing-weights",
    shows="A few factors tell most of a branch's weights: groups of channels, each with its place.",
    fits="inception",
    cost=30,
)
def branch(context: FigureContext) -> FigureResult:
    """One-sided NMF of the weights to ten units of a branch."""
    import circuits
    from apps.figures.helpers.tuned_units import layer_before
    from apps.figures.helpers.unit_images import photographs
    from circuits.plot import factor_figure

    name = _branch(context)
    base, first = context.model.layers[name].part or (name, 0)
    below = layer_before(context, base)
    weights = circuits.expanded_weights(context.model, source=below, target=name)
    order = weights.norms.detach().cpu().norm(dim=1).argsort(descending=True, stable=True)[:10].sort().values.tolist()
    chosen = order if not context.published else list(range(min(10, len(weights.targets))))
    units = [weights.targets[i] for i in chosen]
    some = circuits.expanded_weights(context.model, source=below, target=units)
    found = circuits.one_sided_nmf(some, 3, shuffles=context.size(3, 2, 1), iterations=context.size(400, 200, 50),
                                   seed=context.seed)  # fmt: skip
    tops = list(dict.fromkeys(unit for k in range(3) for unit, _ in found.top(k, 5)))
    drawing = factor_figure(
        found,
        photographs(context, [str(context.model.unit(u)) for u in tops], 1),
        targets=range(min(8, len(units))),
        title=f"Weights from {below} to {len(units)} units of {name}, in three factors",
    )
    how = f"the {len(units)} with the largest weights" if not context.published else "the first ten"
    caption = f"{len(units)} units of {name}, channels {first} on ({how}); eight are shown."
    return FigureResult({"": drawing}, found.describe(), caption, [_explained(found)])


@figure(
    "V7",
    "early-frequency-factors",
    "High-low frequency detectors in two factors of an early layer",
    paper="visualizing-weights",
    shows="The weights of high-low frequency detectors are two groups of channels, fine and coarse, on either side.",
    cost=40,
    published=_published,
)
def high_low(context: FigureContext) -> FigureResult:
    """One-sided NMF of the expanded weights from two layers below, and what frequencies the two groups like."""
    import numpy as np

    import circuits
    from apps.figures.helpers.tuned_units import layer_before, search
    from apps.figures.helpers.unit_images import photographs
    from circuits.plot import factor_figure
    from circuits.tuning.detectors import frequency_factors

    layer = context.layer("mixed3a", "fire4")
    found = search(context, "high-low", layer, at_least=4)
    below = layer_before(context, layer_before(context, layer))
    shown = found.spread(6)
    weights = circuits.expanded_weights(context.model, source=below, target=[u.unit for u in shown])
    factors = circuits.one_sided_nmf(weights, 2, shuffles=context.size(3, 2, 1), iterations=context.size(1000, 300, 50),
                                     seed=context.seed)  # fmt: skip
    detectors = [d for d in found.detectors if d.unit in {u.unit for u in shown}]
    told = frequency_factors(
        context.model, detectors, source=below, shuffles=context.size(2000, 500, 100), seed=context.seed
    )
    high = {c for c, _, _ in told.top(0, 5)}
    first = {int(unit.rpartition(":")[2]) for unit, _ in factors.top(0, 5)}
    factors = factors if len(high & first) >= len(high - first) else factors.ordered([1, 0])
    tops = [unit for k in range(2) for unit, _ in factors.top(k, 5)]
    drawing = factor_figure(
        factors,
        photographs(context, [str(context.model.unit(u)) for u in tops], 1),
        title=f"Weights from {below} to {len(shown)} high-low frequency detectors of {layer}, in two factors",
    )
    bound = float(np.quantile(told.shuffled, 0.95))
    claims = [
        _explained(factors),
        Claim("the two groups like different frequencies: octaves apart", told.octaves, bound, told.octaves > bound,
              "95 % of shuffles of the channels' frequencies"),
    ]  # fmt: skip
    mean_alignment = float(np.nanmean(told.alignment)) if np.isfinite(told.alignment).any() else 0.0
    claims.append(
        Claim("the high group lies on the side that tuning calls fine: mean cosine", mean_alignment, 0.0,
              mean_alignment > 0, "no side")
    )  # fmt: skip
    numbers = {"factors": factors.describe(), "frequencies": {k: v for k, v in told.describe().items()}}
    for part in numbers.values():
        part.pop("provenance")
    caption = f"Six units spread over orientations; {found.how}. Pictures: the place that arouses each channel most."
    return FigureResult({"": drawing}, numbers, caption, claims)


def _branch(context: FigureContext) -> str:
    for name in ("mixed4d_5x5", "mixed4a_5x5"):
        if name in context.model.layers:
            return name
    parts = [name for name, layer in context.model.layers.items() if layer.part is not None and layer.channels >= 4]
    if not parts:
        raise NotApplicable("needs a network with branches")
    return parts[len(parts) // 2]


def _explained(found: Factors) -> Claim:
    level = max(found.shuffled)
    return Claim(
        f"{len(found)} factors tell much of the weights: share of their squares",
        found.explained, level, found.explained > level, "weights with their channels shuffled at every position",
    )  # fmt: skip
