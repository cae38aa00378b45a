"""Activation Atlas and Lucid: one photograph as each layer exaggerates it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import subject
from apps.figures.helpers.unit_roles import dogs

if TYPE_CHECKING:
    from apps.figures.context import FigureContext

LAYERS = ("conv2d1", "conv2d2", "mixed3b", "mixed4a", "mixed4c", "mixed4e")


@figure(
    "A3",
    "caricatures",
    "A photograph as layers see it",
    paper="atlas",
    shows="Early layers keep a photograph almost as it is; later ones keep what it is of.",
    cost=120,
)
def draw(context: FigureContext) -> FigureResult:
    """Exaggerate what each of several layers says to a photograph, and compare the pictures with it."""
    from circuits.common.statistics import correlation
    from circuits.plot import strip
    from circuits.visualization import caricature_strip

    layers = [name for name in LAYERS if name in context.model.layers]
    layers = layers or list(context.model.trunk)[1::2]
    layers = layers[:: context.size(1, 1, 2)]
    about = subject(context, dogs(), "pictures of dogs")
    found = caricature_strip(context.model, about.image, layers, steps=context.size(96, 64, 4), seed=context.seed)
    original = found.image.mean(0).flatten()
    like = [correlation(original, one.image[:3].mean(0).flatten()) for one in found.visualizations]
    claims = [
        Claim(
            "each layer's caricature has more of what it says to the photograph: the least times as much",
            min(found.exaggeration),
            1.0,
            min(found.exaggeration) > 1,
            "the photograph itself",
        ),
        Claim(
            "pixels are kept by early layers and not by late ones: correlation with the photograph, first layer",
            like[0],
            like[-1],
            like[0] > like[-1],
            f"the last layer, {layers[-1]}",
        ),
    ]
    numbers = {
        "layers": layers,
        "index": about.index,
        "exaggeration": found.exaggeration,
        "likeness": found.similarity,
        "pixel_correlation": like,
    }
    caption = f"A photograph, and its caricature by {len(layers)} layers; {about.how}."
    return FigureResult({"": strip(found)}, numbers, caption, claims)
