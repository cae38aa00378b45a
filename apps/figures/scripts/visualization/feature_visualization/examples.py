"""Feature Visualization: top activating images of a unit, beside its feature visualization."""

from __future__ import annotations

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import example_units, layer_of
from apps.figures.helpers.unit_images import top_crops

PUBLISHED = ("mixed4a:6", "mixed4a:240", "mixed4a:453", "mixed4a:492")
_EXAMPLES = 5


@figure(
    "F5",
    "examples-and-optimization",
    "Dataset examples and optimization",
    paper="feature-visualization",
    shows="Dataset examples show what activates a unit in practice; optimization separates causes from correlates.",
    cost=20,
)
def draw(context: FigureContext) -> FigureResult:
    """Put the feature visualization of some units beside their top activating images."""
    from circuits.plot.drawing.image_table import Tile, image_table, tile_of
    from circuits.plot.drawing.wording import amount

    layer = layer_of(context, "mixed4a")
    units, how = example_units(context, layer, PUBLISHED, 4)
    optimized = context.visualize(units, steps=context.size(128, 64, 4))
    crops = top_crops(context, units, _EXAMPLES)
    scans = {u: context.scan.unit(u) for u in units}
    rows, numbers = [], []
    for unit, result in zip(units, optimized, strict=True):
        top = scans[unit].top[:_EXAMPLES]
        examples = [Tile(c, (amount(e.value),), heading="") for c, e in zip(crops[unit], top, strict=True)]
        rows.append([tile_of(result, f"peak {amount(result.peak)}"), *examples])
        numbers.append({"unit": unit, "peak": result.peak, "status": result.status, "top": [vars(e) for e in top]})
    above = [v.peak > scans[u].maximum for u, v in zip(units, optimized, strict=True)]
    factors = sorted(v.peak / max(scans[u].maximum, 1e-9) for u, v in zip(units, optimized, strict=True))
    claims = [
        Claim(
            "visualizations activate units more than dataset images: median factor",
            factors[len(factors) // 2],
            1.0,
            sum(above) > len(above) / 2,
            "the top activating image",
        )
    ]
    drawing = image_table(
        rows,
        title="Feature visualizations and top activating images",
        about="responses below; dataset images are cropped to the receptive field",
        names=[(u.partition("/")[2],) for u in units],
        columns=("optimized", "dataset images"),
    )
    caption = f"{len(units)} units, {how}: the feature visualization, and the {_EXAMPLES} top activating images."
    return FigureResult({"": drawing}, {"units": numbers}, caption, claims)
