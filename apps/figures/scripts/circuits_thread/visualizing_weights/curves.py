"""Visualizing Weights: the kernels between two layers of curve detectors."""

from __future__ import annotations

import numpy as np

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.edges import edge
from apps.figures.helpers.tuned_units import curve_detectors, early_curve_detectors
from apps.figures.helpers.unit_images import top_crops, visualizations


@figure(
    "V4",
    "curve-parents",
    "One unit's kernels from three inputs",
    paper="visualizing-weights",
    shows="A curve detector's kernels from three earlier curves follow the curve, or inhibit its opposite.",
    cost=30,
)
def parents(context: FigureContext) -> FigureResult:
    """The best curve detector, and the earlier curves with the largest weights to it."""
    import circuits
    from circuits.common.statistics import correlation, shuffled_correlations
    from circuits.plot import kernel_strip

    early, later = early_curve_detectors(context, 8), curve_detectors(context, 8)
    unit = later.units[0]
    if context.published:
        unit = next((u for u in later.units if u.index == 342), unit)
    weights = circuits.expanded_weights(context.model, source=early.layer, target=unit.unit)
    strengths, norms = (v.detach().cpu().double().numpy()[0] for v in (weights.summed, weights.norms))
    order = sorted(early.units, key=lambda u: -norms[u.index])
    chosen = order[:3]
    if context.published:
        chosen = [u for u in early.units if u.index in (145, 147, 81)]
    edges = [edge(context, weights, 0, u.index) for u in chosen]
    angles = np.radians([u.orientation - unit.orientation for u in early.units])
    early_strengths = np.array([strengths[u.index] for u in early.units])
    r = correlation(np.cos(angles), early_strengths)
    rng = np.random.default_rng(context.seed)
    bound = float(np.quantile(shuffled_correlations(early_strengths, np.cos(angles), draws=1000, generator=rng), 0.95))
    units = [unit.unit, *(u.unit for u in chosen)]
    optimized, examples = visualizations(context, units), top_crops(context, units, 2)
    drawing = kernel_strip(edges, {u: [*optimized[u], *examples[u]] for u in units})
    numbers = {
        "unit": unit.unit,
        "orientation": unit.orientation,
        "parents": [{"unit": u.unit, "orientation": u.orientation, "weight": strengths[u.index], "kernel": e.kernel}
                    for u, e in zip(chosen, edges, strict=True)],
        "all": {u.unit: [u.orientation, strengths[u.index]] for u in early.units},
    }  # fmt: skip
    claim = Claim.above(
        "inputs of similar orientation excite: correlation of weight and cosine of the angle, all early curves",
        r,
        bound,
        "95 % of shuffles",
    )
    labels = ", ".join(f":{u.index} at {u.orientation:.0f}°" for u in chosen)
    caption = (
        f"{unit.unit.rpartition('/')[2]} has orientation {unit.orientation:.0f}°; inputs {labels}. Detectors: "
        f"{later.how}. Earlier: {early.how}; those with the largest weights are shown."
    )
    return FigureResult({"": drawing}, numbers, caption, [claim])


@figure(
    "V5",
    "curve-grid",
    "The kernels between eight earlier and eight later curves",
    paper="visualizing-weights",
    shows="The grid of kernels between two layers of curve detectors turns with the orientations.",
    cost=50,
)
def grid(context: FigureContext) -> FigureResult:
    """Eight by eight kernels, both sides in the order of their orientation."""
    import circuits
    from circuits.plot import kernel_grid
    from circuits.tuning.detectors import sign_rule

    count = context.size(8, 8, 4)
    early, later = early_curve_detectors(context, 8), curve_detectors(context, 8)
    sources, targets = early.spread(count), later.spread(count, best=24)
    names = [[u.unit for u in side] for side in (sources, targets)]
    weights = circuits.expanded_weights(context.model, source=early.layer, target=names[1])
    lookup = {d.unit: d for d in (*early.detectors, *later.detectors)}
    rule = sign_rule(context.model, [lookup[u] for u in names[0]], [lookup[u] for u in names[1]],
                     shuffles=context.size(2000, 1000, 200), seed=context.seed)  # fmt: skip
    drawing = kernel_grid(
        weights,
        visualizations(context, [*names[0], *names[1]]),
        sources=[u.index for u in sources],
        model=context.model.name,
    )
    bound = float(np.quantile(rule.shuffled, 0.95))
    claim = Claim.above(
        "similar orientations excite, opposite ones inhibit: correlation of weight and cosine of the angle",
        rule.correlation,
        bound,
        "95 % of shuffles",
    )
    chosen = [u.index for u in sources]
    numbers = {
        "sources": {u.unit: u.orientation for u in sources},
        "targets": {u.unit: u.orientation for u in targets},
        "kernels": weights.kernels.detach()[:, chosen],
        "correlation": rule.correlation,
    }
    columns, rows = (", ".join(f":{u.index} at {u.orientation:.0f}°" for u in side) for side in (sources, targets))
    caption = f"Columns: {columns} of {early.layer} ({early.how}). Rows: {rows} of {later.layer} ({later.how})."
    return FigureResult({"": drawing}, numbers, caption, [claim])
