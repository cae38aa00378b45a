"""Feature Visualization: the course of an optimization, from noise."""

from __future__ import annotations

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import example_units, layer_of


@figure(
    "F1",
    "trajectory",
    "Optimization, step by step",
    paper="feature-visualization",
    shows="Gradient steps that increase a unit's response turn random noise into its feature visualization.",
    cost=30,
)
def draw(context: FigureContext) -> FigureResult:
    """Optimize an image for one unit, and record it after increasing numbers of steps."""
    from circuits.plot import trajectory_strip
    from circuits.visualization import trajectory

    layer = layer_of(context, "mixed4a")
    (unit,), how = example_units(context, layer, ["mixed4a:11"])
    steps = context.size(512, 128, 12)
    size = context.size(None, None, 48)
    result = trajectory(context.model, unit, steps=steps, frames=8, seed=context.seed, size=size)
    strongest = context.scan.unit(unit).maximum
    claims = [
        Claim(
            "the visualization activates the unit more than any dataset image does",
            result.peak,
            strongest,
            result.status == "ok" and result.peak > strongest,
            "its strongest response to dataset images",
        ),
    ]
    numbers = {
        "unit": result.unit,
        "history": list(result.history),
        "frames": sorted(result.frames),
        "peak": result.peak,
    }
    caption = (
        f"The visualization of {result.unit.partition('/')[2]} ({how}) after up to {steps} steps, and below the "
        "objective at each step (the mean of the channel over the randomly transformed image)."
    )
    return FigureResult({"": trajectory_strip(result, columns=8)}, numbers, caption, claims)
