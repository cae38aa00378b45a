"""Feature Visualization: several pictures of one unit, pushed apart, show more of what it answers to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import drawn_units, layer_of

if TYPE_CHECKING:
    from apps.figures.context import FigureContext

PUBLISHED = ("mixed4a:97", "mixed4a:143", "mixed5a:9", "mixed4e:55")


@figure(
    "F4",
    "diversity",
    "Diversity: four pictures of a unit",
    paper="feature-visualization",
    shows="A term that pushes the pictures of one unit apart shows facets that a single one leaves out.",
    cost=80,
)
def draw(context: FigureContext) -> FigureResult:
    """Make four pictures of each unit with the diversity term, and four that differ by their seed only."""
    import torch

    from circuits.plot.drawing.image_table import image_table, tile_of
    from circuits.plot.drawing.wording import amount
    from circuits.visualization import objectives, visualize
    from circuits.visualization.modes.alignment import gram_similarity

    layer = layer_of(context, "mixed4a")
    units = list(PUBLISHED) if context.published else drawn_units(context, layer, context.size(4, 2, 1))
    steps = context.size(128, 64, 4)
    rows, names, numbers = [], [], []
    diverse: list[float] = []
    seeds: list[float] = []
    for unit in units:
        at = context.model.unit(unit)
        apart = context.visualize([unit], variants=4, steps=steps)
        goal = objectives.channel(at.layer, at.index or 0)
        alone = visualize(context.model, [goal] * 4, steps=steps, size=apart[0].image.shape[-1], seed=context.seed)
        likeness = [
            gram_similarity(context.model, torch.stack([v.image for v in some]), at.layer) for some in (apart, alone)
        ]
        for what, some, alike in zip(("diversity", "seeds only"), (apart, alone), likeness, strict=True):
            rows.append([tile_of(v, f"response {amount(v.response)}") for v in some])
            names.append((str(at).partition("/")[2], what, f"alike {alike:.2f}"))
        diverse, seeds = diverse + likeness[:1], seeds + likeness[1:]
        numbers.append(
            {
                "unit": str(at),
                "alike": dict(zip(("diversity", "seeds"), likeness, strict=True)),
                "response": [v.response for v in apart],
                "response_seeds": [v.response for v in alone],
            }
        )
    lower = sum(a < b for a, b in zip(diverse, seeds, strict=True))
    claims = [
        Claim(
            "the term makes pictures of a unit less alike",
            sum(diverse) / len(diverse),
            sum(seeds) / len(seeds),
            lower == len(units),
            "pictures that differ by their seed",
        )
    ]
    how = "the published ones" if context.published else f"drawn by lot from the half of {layer} that fires most often"
    caption = (
        f"Four pictures for each of {len(units)} unit(s), {how}: with the diversity term, and with other seeds. Alike "
        "is the mean cosine of channel correlations at the unit's layer."
    )
    drawing = image_table(rows, title="Facets of a unit", names=names, side=124)
    return FigureResult({"": drawing}, {"units": numbers}, caption, claims)
