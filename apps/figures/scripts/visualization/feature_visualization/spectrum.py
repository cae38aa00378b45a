"""Feature Visualization: the full range of a unit's responses, from the most negative to the strongest."""

from __future__ import annotations

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import example_units, layer_of

_MOST = 200


@figure(
    "F5b",
    "activation-spectrum",
    "The spectrum of a unit",
    paper="feature-visualization",
    shows="Negative optimum, dataset images from the lowest to the highest response, positive optimum.",
    cost=40,
)
def draw(context: FigureContext) -> FigureResult:
    """Optimize a unit in both directions, and collect dataset images in between."""
    from circuits.plot import spectrum_strip
    from circuits.visualization import spectrum

    layer = layer_of(context, "mixed4a")
    (unit,), how = example_units(context, layer, ["mixed4a:492"])
    images = context.images.spread(_MOST)
    size = context.size(None, None, 48)
    result = spectrum(context.model, unit, images, steps=context.size(128, 64, 4), seed=context.seed, size=size)
    values = [e.value for examples in result.examples.values() for e in examples]
    claims = [
        Claim(
            "the optima lie outside the range of dataset images: difference of their responses",
            result.positive.peak - result.negative.peak,
            max(values) - min(values),
            result.positive.peak > max(values) and result.negative.peak < min(values),
            "the range of the dataset images",
        )
    ]
    numbers = {
        "unit": result.unit,
        "spread": result.spread,
        "positive": result.positive.peak,
        "negative": result.negative.peak,
        "examples": {name: [vars(e) for e in examples] for name, examples in result.examples.items()},
    }
    caption = f"{result.unit.partition('/')[2]} ({how}) over {len(images)} images, and its optima in both directions."
    return FigureResult({"": spectrum_strip(result, images, context.model.input)}, numbers, caption, claims)
