"""Visualizing Weights: the inputs of a black-and-white detector."""

from __future__ import annotations

import numpy as np

from apps.figures.analysis.gray_preference import gray_preference
from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.edges import edge
from apps.figures.helpers.tuned_units import layer_before
from apps.figures.helpers.unit_images import top_crops


@figure(
    "V9",
    "black-and-white-parents",
    "The inputs of a black-and-white detector",
    paper="visualizing-weights",
    shows="Black-and-white detectors are excited by colorless inputs and inhibited at all positions by color inputs.",
    cost=40,
)
def black_and_white(context: FigureContext) -> FigureResult:
    """The strongest inputs of the unit that most prefers images without color, and their preferences."""
    import circuits
    from circuits.common.statistics import correlation, shuffled_correlations
    from circuits.plot.drawing.image_wall import weights_page

    layer = "mixed3b" if context.published else context.layer("mixed3a", "fire4")
    below = layer_before(context, layer)

    def preferences() -> dict[str, list[float]]:
        images = context.images.spread(context.size(100, 60, 24))
        return {k: v.tolist() for k, v in gray_preference(context.model, images, [below, layer]).items()}

    gray = {name: np.array(v) for name, v in context.cached("gray", preferences, layers=[below, layer]).items()}
    best, how = int(np.argmax(gray[layer])), "the unit of its layer that most prefers images without color"
    if context.published:
        best, how = 208, "the published one"
    unit = str(context.model.unit(f"{layer}:{best}"))
    weights = circuits.expanded_weights(context.model, source=below, target=unit)
    count = context.size(15, 10, 5)
    edges = [edge(context, weights, 0, c) for c, _ in weights.top(n=count)]
    strengths = weights.summed[0].detach().cpu().double().numpy()
    preference = gray[below]
    r = correlation(preference, strengths)
    rng = np.random.default_rng(context.seed)
    bound = float(np.quantile(shuffled_correlations(strengths, preference, draws=1000, generator=rng), 0.95))
    drawing = weights_page(
        unit,
        edges,
        [],
        top_crops(context, [unit, *(e.source for e in edges)], 4),
        title=f"{layer}:{best}, a black-and-white detector",
        about=(f"the {count} strongest of {len(strengths)} channels of {below}", ""),
    )
    numbers = {
        "unit": unit,
        "preference": gray[layer][best],
        "parents": [{"unit": e.source, "weight": e.weight, "kernel": e.kernel,
                     "preference": preference[int(e.source.rpartition(":")[2])]} for e in edges],
    }  # fmt: skip
    claims = [
        Claim.above(
            "inputs that prefer gray excite, those that prefer color inhibit: correlation over all channels",
            r,
            bound,
            "95 % of shuffles",
        ),
    ]
    caption = f"{unit.rpartition('/')[2]} is {how}. Expanded weights by L2 norm, signed by their sum."
    return FigureResult({"": drawing}, numbers, caption, claims)
