"""Building Blocks: the activations of a layer on an image, position by position."""

from __future__ import annotations

import torch

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import layer_of, subject
from apps.figures.helpers.unit_roles import dogs


@figure(
    "G2",
    "activation-grid",
    "The activation grid",
    paper="building-blocks",
    shows="One icon for the activation vector of each position, scaled by its length.",
    cost=90,
)
def draw(context: FigureContext) -> FigureResult:
    """Make an icon of each position's activation vector, and test whether the layer distinguishes the icons."""
    from circuits.activations.semantic_dictionary import activation_grid
    from circuits.network.hooks import capture
    from circuits.plot import grid_figure
    from circuits.visualization.modes.alignment import direction_agreement

    layer = layer_of(context, "mixed4d", "mixed4a")
    chosen = subject(context, dogs(), "images of dogs")
    acts = capture(context.model, chosen.image, [layer])[layer].float().cpu()
    pooled = max(1, acts.shape[-1] // context.size(7, 5, 2))
    grid = activation_grid(
        context.model, layer, chosen.image, pooled=pooled, steps=context.size(96, 48, 4), size=context.size(64, 48, 32),
        seed=context.seed,
    )  # fmt: skip
    pool = torch.nn.functional.avg_pool2d(acts, pooled, ceil_mode=True)[0]
    positions = [(y, x) for y, row in enumerate(grid.icons) for x, icon in enumerate(row) if icon is not None]
    icons = [icon.image for row in grid.icons for icon in row if icon is not None]
    agreement = direction_agreement(context.model, layer, icons, torch.stack([pool[:, y, x] for y, x in positions]))
    claims = [
        Claim(
            "an icon reproduces the activation vector of its position: mean cosine",
            float(agreement.own.mean()),
            float(agreement.others.mean()),
            float((agreement.own > agreement.others).float().mean()) > 0.9,
            "with the vectors of the other positions",
        )
    ]
    numbers = {
        "layer": grid.layer,
        "index": chosen.index,
        "norms": grid.norms,
        "pooled": pooled,
        "cosines": agreement.own,
        "cosines_others": agreement.others,
    }
    caption = (
        f"{layer} at {grid.norms.shape[0]} × {grid.norms.shape[1]} cells, each {pooled} × {pooled} positions of its "
        f"map: icons of the mean activation vectors, with areas in proportion to their lengths; {chosen.how}."
    )
    return FigureResult({"": grid_figure(grid)}, numbers, caption, claims)
