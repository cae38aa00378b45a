"""Feature Visualization: photographs that a unit answers to, beside what is optimized for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import drawn_units, layer_of

if TYPE_CHECKING:
    from apps.figures.context import FigureContext

PUBLISHED = ("mixed4a:6", "mixed4a:240", "mixed4a:453", "mixed4a:492")
_SHOWN = 5


@figure(
    "F5",
    "examples-and-optimization",
    "Photographs and optimization",
    paper="feature-visualization",
    shows="Photographs show what a unit meets; optimization shows what drives it, without what merely comes along.",
    cost=20,
)
def draw(context: FigureContext) -> FigureResult:
    """Put the optimized picture of some units beside the photographs they answer to most."""
    from apps.figures.helpers.unit_images import photographs
    from circuits.plot.drawing.image_table import Tile, image_table, tile_of
    from circuits.plot.drawing.wording import amount

    layer = layer_of(context, "mixed4a")
    units = [str(context.model.unit(u)) for u in PUBLISHED] if context.published else drawn_units(context, layer, 4)
    made = context.visualize(units, steps=context.size(128, 64, 4))
    crops = photographs(context, units, _SHOWN)
    seen = {u: context.scan.unit(u) for u in units}
    rows, numbers = [], []
    for unit, one in zip(units, made, strict=True):
        top = seen[unit].top[:_SHOWN]
        photos = [Tile(c, (amount(e.value),), heading="") for c, e in zip(crops[unit], top, strict=True)]
        rows.append([tile_of(one, f"peak {amount(one.peak)}"), *photos])
        numbers.append({"unit": unit, "peak": one.peak, "status": one.status, "top": [vars(e) for e in top]})
    beyond = [one.peak > seen[u].maximum for u, one in zip(units, made, strict=True)]
    factors = sorted(one.peak / max(seen[u].maximum, 1e-9) for u, one in zip(units, made, strict=True))
    claims = [
        Claim(
            "optimized pictures drive units further than photographs: median factor",
            factors[len(factors) // 2],
            1.0,
            sum(beyond) > len(beyond) / 2,
            "the strongest photograph",
        )
    ]
    how = "the published ones" if context.published else f"drawn by lot from the half of {layer} that fires most often"
    drawing = image_table(
        rows,
        title="What drives a unit, and what it meets",
        about="responses below; photographs are cut to the receptive field",
        names=[(u.partition("/")[2],) for u in units],
        columns=("optimized", "photographs"),
    )
    caption = f"{len(units)} units, {how}: the picture made by optimization, and the {_SHOWN} strongest photographs."
    return FigureResult({"": drawing}, {"units": numbers}, caption, claims)
