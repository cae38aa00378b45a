"""Visualizing Weights: what a unit for pictures without color reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.edges import edge
from apps.figures.helpers.tuned_units import layer_before

if TYPE_CHECKING:
    from apps.figures.context import FigureContext


@figure(
    "V9",
    "black-and-white-parents",
    "What a unit for pictures without color reads",
    paper="visualizing-weights",
    shows="Black-and-white detectors are excited by colorless parents and inhibited, all over, by color ones.",
    cost=40,
)
def black_and_white(context: FigureContext) -> FigureResult:
    """The strongest parents of the unit that most prefers pictures without color, and what these prefer."""
    import numpy as np

    import circuits
    from apps.figures.analysis.gray_preference import gray_preference
    from apps.figures.helpers.unit_images import photographs
    from circuits.common.statistics import correlation, shuffled_correlations
    from circuits.plot.drawing.image_wall import weights_page

    layer = "mixed3b" if context.published else context.layer("mixed3a", "fire4")
    below = layer_before(context, layer)

    def prefer() -> dict[str, list[float]]:
        shown = context.images.spread(context.size(100, 60, 24))
        return {k: v.tolist() for k, v in gray_preference(context.model, shown, [below, layer]).items()}

    gray = {name: np.array(v) for name, v in context.cached("gray", prefer, layers=[below, layer]).items()}
    best, how = int(np.argmax(gray[layer])), "the unit of its layer that most prefers pictures without their color"
    if context.published:
        best, how = 208, "the published one"
    unit = str(context.model.unit(f"{layer}:{best}"))
    weights = circuits.expanded_weights(context.model, source=below, target=unit)
    count = context.size(15, 10, 5)
    edges = [edge(context, weights, 0, c) for c, _ in weights.top(n=count)]
    sums = weights.sums[0].detach().cpu().double().numpy()
    preference = gray[below]
    found = correlation(preference, sums)
    rng = np.random.default_rng(context.seed)
    bound = float(np.quantile(shuffled_correlations(sums, preference, draws=1000, generator=rng), 0.95))
    drawing = weights_page(
        unit,
        edges,
        [],
        photographs(context, [unit, *(e.source for e in edges)], 4),
        title=f"{layer}:{best}, a unit for pictures without color",
        about=(f"the {count} strongest of {len(sums)} channels of {below}", ""),
    )
    numbers = {
        "unit": unit,
        "preference": gray[layer][best],
        "parents": [{"unit": e.source, "weight": e.weight, "kernel": e.kernel,
                     "preference": preference[int(e.source.rpartition(":")[2])]} for e in edges],
    }  # fmt: skip
    claims = [
        Claim("parents that prefer gray excite, those for color inhibit: correlation of weight and preference, all "
              "channels", found, bound, found > bound, "95 % of shuffles"),
    ]  # fmt: skip
    caption = f"{unit.rpartition('/')[2]} is {how}. Expanded weights by L2 norm, signed by their sum."
    return FigureResult({"": drawing}, numbers, caption, claims)
