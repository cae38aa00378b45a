"""Activation Atlas and Lucid: caricatures of one image by several layers."""

from __future__ import annotations

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import subject
from apps.figures.helpers.unit_roles import dogs

LAYERS = ("conv2d1", "conv2d2", "mixed3b", "mixed4a", "mixed4c", "mixed4e")


@figure(
    "A3",
    "caricatures",
    "Caricatures of an image by several layers",
    paper="atlas",
    shows="Early layers reproduce an image almost exactly; later layers reproduce its content.",
    cost=120,
)
def draw(context: FigureContext) -> FigureResult:
    """Exaggerate the activations of several layers on an image, and compare the caricatures with it."""
    from circuits.common.statistics import correlation
    from circuits.plot import strip
    from circuits.visualization import caricature_strip

    layers = [name for name in LAYERS if name in context.model.layers]
    layers = layers or list(context.model.trunk)[1::2]
    layers = layers[:: context.size(1, 1, 2)]
    chosen = subject(context, dogs(), "images of dogs")
    result = caricature_strip(context.model, chosen.image, layers, steps=context.size(96, 64, 4), seed=context.seed)
    original = result.image.mean(0).flatten()
    correlations = [correlation(original, v.image[:3].mean(0).flatten()) for v in result.visualizations]
    claims = [
        Claim.above(
            "each caricature has a larger activation in the image's direction: the smallest factor",
            min(result.exaggeration),
            1.0,
            "the image itself",
        ),
        Claim.above(
            "early layers preserve pixels, late layers do not: correlation with the image, first layer",
            correlations[0],
            correlations[-1],
            f"the last layer, {layers[-1]}",
        ),
    ]
    numbers = {
        "layers": layers,
        "index": chosen.index,
        "exaggeration": result.exaggeration,
        "likeness": result.similarity,
        "pixel_correlation": correlations,
    }
    caption = f"An image, and its caricature by {len(layers)} layers; {chosen.how}."
    return FigureResult({"": strip(result)}, numbers, caption, claims)
