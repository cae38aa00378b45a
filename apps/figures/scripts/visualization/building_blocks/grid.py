"""Building Blocks: a picture as a layer sees it, place by place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import layer_of, subject
from apps.figures.helpers.unit_roles import dogs

if TYPE_CHECKING:
    from apps.figures.context import FigureContext


@figure(
    "G2",
    "activation-grid",
    "The activation grid",
    paper="building-blocks",
    shows="One icon for what all units together say at each place, larger the more is said.",
    cost=90,
)
def draw(context: FigureContext) -> FigureResult:
    """Make an icon of each place's activation vector, and see whether the layer tells the icons apart."""
    import torch

    from circuits.activations.semantic_dictionary import activation_grid
    from circuits.network.hooks import capture
    from circuits.plot import grid_figure
    from circuits.visualization.modes.alignment import direction_agreement

    layer = layer_of(context, "mixed4d", "mixed4a")
    about = subject(context, dogs(), "pictures of dogs")
    acts = capture(context.model, about.image, [layer])[layer].float().cpu()
    pooled = max(1, acts.shape[-1] // context.size(7, 5, 2))
    found = activation_grid(
        context.model, layer, about.image, pooled=pooled, steps=context.size(96, 48, 4), size=context.size(64, 48, 32),
        seed=context.seed,
    )  # fmt: skip
    pool = torch.nn.functional.avg_pool2d(acts, pooled, ceil_mode=True)[0]
    places = [(y, x) for y, row in enumerate(found.icons) for x, icon in enumerate(row) if icon is not None]
    icons = [icon.image for row in found.icons for icon in row if icon is not None]
    told = direction_agreement(context.model, layer, icons, torch.stack([pool[:, y, x] for y, x in places]))
    claims = [
        Claim(
            "shown an icon the layer says what it said at that place: mean cosine",
            float(told.own.mean()),
            float(told.others.mean()),
            float((told.own > told.others).float().mean()) > 0.9,
            "with what it said at the other places",
        )
    ]
    numbers = {
        "layer": found.layer,
        "index": about.index,
        "norms": found.norms,
        "pooled": pooled,
        "cosines": told.own,
        "cosines_others": told.others,
    }
    caption = (
        f"{layer} at {found.norms.shape[0]} × {found.norms.shape[1]} places, each {pooled} × {pooled} positions of its "
        f"map: icons of the mean activation vectors, their areas in proportion to its length; {about.how}."
    )
    return FigureResult({"": grid_figure(found)}, numbers, caption, claims)
