"""Feature Visualization: everything from what a unit answers to least to what it answers to most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import drawn_units, layer_of

if TYPE_CHECKING:
    from apps.figures.context import FigureContext

_MOST = 200


@figure(
    "F5b",
    "activation-spectrum",
    "The spectrum of a unit",
    paper="feature-visualization",
    shows="Negative optimum, photographs from the least to the strongest response, positive optimum.",
    cost=40,
)
def draw(context: FigureContext) -> FigureResult:
    """Optimize a unit both ways, and gather photographs in between."""
    from circuits.plot import spectrum_strip
    from circuits.visualization import spectrum

    layer = layer_of(context, "mixed4a")
    unit = "mixed4a:492" if context.published else drawn_units(context, layer, 1)[0]
    pictures = context.images.spread(_MOST)
    size = context.size(None, None, 48)
    found = spectrum(context.model, unit, pictures, steps=context.size(128, 64, 4), seed=context.seed, size=size)
    values = [e.value for shown in found.examples.values() for e in shown]
    claims = [
        Claim(
            "the optima lie beyond all photographs, below and above: both sides of",
            found.positive.peak - found.negative.peak,
            max(values) - min(values),
            found.positive.peak > max(values) and found.negative.peak < min(values),
            "the range of the photographs",
        )
    ]
    numbers = {
        "unit": found.unit,
        "spread": found.spread,
        "positive": found.positive.peak,
        "negative": found.negative.peak,
        "examples": {name: [vars(e) for e in shown] for name, shown in found.examples.items()},
    }
    how = "the published one" if context.published else f"drawn by lot from the half of {layer} that fires most often"
    caption = f"{found.unit.partition('/')[2]} ({how}) over {len(pictures)} photographs, and its optima either way."
    return FigureResult({"": spectrum_strip(found, pictures, context.model.input)}, numbers, caption, claims)
