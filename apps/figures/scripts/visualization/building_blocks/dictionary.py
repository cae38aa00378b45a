"""Building Blocks: the activations of a layer at a position of an image, as visualizations of its units."""

from __future__ import annotations

import torch

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import layer_of, subject
from apps.figures.helpers.unit_roles import dogs

_TOP = 4


@figure(
    "G1",
    "semantic-dictionary",
    "A semantic dictionary of one image",
    paper="building-blocks",
    shows="At each position of an image a few units, which visualizations explain, hold most of a layer's activation.",
    cost=80,
)
def draw(context: FigureContext) -> FigureResult:
    """Take the strongest positions of an image, and show the units with the highest activations there."""
    from circuits.activations.salient_positions import chance_share, salient_positions, share_of_strongest
    from circuits.activations.semantic_dictionary import semantic_dictionary
    from circuits.network.hooks import capture
    from circuits.plot import dictionary_figure

    layer = layer_of(context, "mixed4d", "mixed4a")
    chosen = subject(context, dogs(), "images of dogs")
    acts = capture(context.model, chosen.image, [layer])[layer].float().cpu()[0]
    positions = salient_positions(acts, context.size(4, 3, 2), separation=max(1, acts.shape[-1] // 5))
    size = context.size(None, None, 48)
    result = semantic_dictionary(
        context.model,
        layer,
        chosen.image,
        at=positions,
        top=_TOP,
        steps=context.size(128, 64, 4),
        seed=context.seed,
        size=size,
    )
    vectors = torch.stack([acts[:, y, x] for y, x in positions])
    shares = share_of_strongest(vectors, _TOP)
    chance = sum(chance_share(v, _TOP, seed=context.seed) for v in vectors) / len(vectors)
    claims = [
        Claim(
            f"{_TOP} units hold most of the activation vector at a position: share of its squares",
            float(shares.mean()),
            chance,
            float(shares.min()) > chance,
            "the same in a randomly rotated basis",
        )
    ]
    numbers = result.describe() | {"index": chosen.index}
    caption = f"The {len(positions)} strongest positions of {layer} and their {_TOP} most active units; {chosen.how}."
    return FigureResult({"": dictionary_figure(result)}, numbers, caption, claims)
