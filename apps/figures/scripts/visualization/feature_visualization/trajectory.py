"""Feature Visualization: a picture as it comes about, from noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import drawn_units, layer_of

if TYPE_CHECKING:
    from apps.figures.context import FigureContext


@figure(
    "F1",
    "trajectory",
    "Optimization, step by step",
    paper="feature-visualization",
    shows="From random noise, gradient steps that raise a unit's response make what it looks for appear.",
    cost=30,
)
def draw(context: FigureContext) -> FigureResult:
    """Optimize a picture for one unit, and keep it after steps that lie ever further apart."""
    from circuits.plot import trajectory_strip
    from circuits.visualization import trajectory

    layer = layer_of(context, "mixed4a")
    unit = f"{layer}:11" if context.published else drawn_units(context, layer, 1)[0]
    steps = context.size(512, 128, 12)
    size = context.size(None, None, 48)
    made = trajectory(context.model, unit, steps=steps, frames=8, seed=context.seed, size=size)
    strongest = context.scan.unit(unit).maximum
    chosen = (
        "the published one" if context.published else f"drawn by lot from the half of {layer} that fires most often"
    )
    claims = [
        Claim(
            "the picture drives the unit further than any photograph does",
            made.peak,
            strongest,
            made.status == "ok" and made.peak > strongest,
            "its strongest response to the photographs",
        ),
    ]
    numbers = {"unit": made.unit, "history": list(made.history), "frames": sorted(made.frames), "peak": made.peak}
    caption = (
        f"A picture for {made.unit.partition('/')[2]} ({chosen}) after up to {steps} steps, and below what is raised "
        "at each step (the mean of the channel over the picture as it is transformed at random)."
    )
    return FigureResult({"": trajectory_strip(made, columns=8)}, numbers, caption, claims)
