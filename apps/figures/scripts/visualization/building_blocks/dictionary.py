"""Building Blocks: what a layer says at a place of a picture, in pictures of its units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import layer_of, subject
from apps.figures.helpers.unit_roles import dogs

if TYPE_CHECKING:
    from apps.figures.context import FigureContext

_TOP = 4


@figure(
    "G1",
    "semantic-dictionary",
    "A semantic dictionary of one picture",
    paper="building-blocks",
    shows="At each place of a picture a few units say most of what a layer says, and their pictures can be read.",
    cost=80,
)
def draw(context: FigureContext) -> FigureResult:
    """Take the strongest places of a picture, and show the units that say most there."""
    import torch

    from circuits.activations.salient_positions import chance_share, salient_positions, share_of_strongest
    from circuits.activations.semantic_dictionary import semantic_dictionary
    from circuits.network.hooks import capture
    from circuits.plot import dictionary_figure

    layer = layer_of(context, "mixed4d", "mixed4a")
    about = subject(context, dogs(), "pictures of dogs")
    acts = capture(context.model, about.image, [layer])[layer].float().cpu()[0]
    places = salient_positions(acts, context.size(4, 3, 2), separation=max(1, acts.shape[-1] // 5))
    size = context.size(None, None, 48)
    found = semantic_dictionary(
        context.model,
        layer,
        about.image,
        at=places,
        top=_TOP,
        steps=context.size(128, 64, 4),
        seed=context.seed,
        size=size,
    )
    vectors = torch.stack([acts[:, y, x] for y, x in places])
    shares = share_of_strongest(vectors, _TOP)
    chance = sum(chance_share(v, _TOP, seed=context.seed) for v in vectors) / len(vectors)
    claims = [
        Claim(
            f"{_TOP} units hold more of what is said at a place than of any direction: share of squares",
            float(shares.mean()),
            chance,
            float(shares.min()) > chance,
            "the same in a basis that is turned at random",
        )
    ]
    numbers = found.describe() | {"index": about.index}
    caption = (
        f"{len(places)} places of {layer}, the strongest that lie apart, by their {_TOP} strongest units; {about.how}."
    )
    return FigureResult({"": dictionary_figure(found)}, numbers, caption, claims)
