"""Early Vision: the kernels of the first layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure


@figure(
    "E13",
    "first-kernels",
    "The kernels of the first layer",
    paper="early-vision",
    shows="First-layer kernels are Gabors and color contrasts: smooth, and either without color or all color.",
    cost=2,
)
def first(context: FigureContext) -> FigureResult:
    """All kernels, those without color first, by orientation; then those with."""
    from circuits.attribution.first_layer import color_shares, directions, first_kernels, smoothness
    from circuits.common.untrained import untrained
    from circuits.plot.drawing.image_wall import kernel_wall

    kernels = first_kernels(context.model)
    blank = first_kernels(untrained(context.model, seed=context.seed))
    color, turn, smooth = (f(kernels).numpy() for f in (color_shares, directions, smoothness))
    order = sorted(range(len(kernels)), key=lambda i: (color[i] > 0.5, turn[i] if color[i] <= 0.5 else color[i]))
    drawing = kernel_wall(
        kernels[order].numpy(),
        [f":{i}" for i in order],
        notes=[f"{100 * color[i]:.0f} % color" for i in order],
        columns=12 if len(order) > 24 else 8,
        title=f"The {len(order)} kernels of the first layer",
        about="gray is zero; those without color by orientation, then those with color",
    )
    value, level = float(smooth.mean()), float(smoothness(blank).mean())
    spread, chance = float(color.std()), float(color_shares(blank).std())
    claims = [
        Claim.above("neighboring weights are similar: their correlation", value, level, "untrained kernels"),
        Claim.above(
            "some kernels are without color, others are color: spread of the share of color",
            spread,
            chance,
            "untrained kernels",
        ),
    ]
    numbers: dict[str, Any] = {"order": order, "color_share": color, "orientation": turn, "smoothness": smooth}
    caption = f"Untrained kernels have a mean share of color of {float(np.mean(color_shares(blank).numpy())):.2f}."
    return FigureResult({"": drawing}, numbers, caption, claims)
