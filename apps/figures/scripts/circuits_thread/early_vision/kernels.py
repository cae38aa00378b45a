"""Early Vision: the kernels that read the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apps.figures.figure import Claim, Drawn, figure

if TYPE_CHECKING:
    from apps.figures.context import Bench


@figure(
    "E13",
    "first-kernels",
    "The kernels of the first layer",
    paper="early-vision",
    shows="First-layer kernels are Gabors and colour contrasts: smooth, and either without colour or all colour.",
    cost=2,
)
def first(bench: Bench) -> Drawn:
    """All kernels, those without colour first, by orientation; then those with."""
    import numpy as np

    from circuits.attribution.first_layer import colour_shares, directions, first_kernels, smoothness
    from circuits.network.untrained import untrained
    from circuits.plot.drawing.image_wall import kernel_wall

    kernels = first_kernels(bench.model)
    blank = first_kernels(untrained(bench.model, seed=bench.seed))
    colour, turn, smooth = (f(kernels).numpy() for f in (colour_shares, directions, smoothness))
    order = sorted(range(len(kernels)), key=lambda i: (colour[i] > 0.5, turn[i] if colour[i] <= 0.5 else colour[i]))
    drawing = kernel_wall(
        kernels[order].numpy(),
        [f":{i}" for i in order],
        notes=[f"{100 * colour[i]:.0f} % colour" for i in order],
        columns=12 if len(order) > 24 else 8,
        title=f"The {len(order)} kernels that read the picture",
        about="grey is zero; those without colour by orientation, then those with colour",
    )
    value, level = float(smooth.mean()), float(smoothness(blank).mean())
    spread, chance = float(colour.std()), float(colour_shares(blank).std())
    claims = [
        Claim("neighbouring weights are alike: their correlation", value, level, value > level, "untrained kernels"),
        Claim("some kernels are without colour, others are colour: spread of the share of colour",
              spread, chance, spread > chance, "untrained kernels"),
    ]  # fmt: skip
    numbers: dict[str, Any] = {"order": order, "colour_share": colour, "orientation": turn, "smoothness": smooth}
    caption = f"Untrained kernels have a mean share of colour of {float(np.mean(colour_shares(blank).numpy())):.2f}."
    return Drawn({"": drawing}, numbers, caption, claims)
