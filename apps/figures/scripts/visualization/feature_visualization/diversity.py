"""Feature Visualization: several visualizations of one unit, with a diversity term, show more of its facets."""

from __future__ import annotations

import torch

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import example_units, layer_of

PUBLISHED = ("mixed4a:97", "mixed4a:143", "mixed5a:9", "mixed4e:55")


@figure(
    "F4",
    "diversity",
    "Diversity: four visualizations of a unit",
    paper="feature-visualization",
    shows="A diversity term shows facets of a unit that a single visualization omits.",
    cost=80,
)
def draw(context: FigureContext) -> FigureResult:
    """Make four visualizations of each unit with the diversity term, and four that differ by their seed only."""
    from circuits.plot.drawing.image_table import image_table, tile_of
    from circuits.plot.drawing.wording import amount
    from circuits.visualization import objectives, visualize
    from circuits.visualization.modes.alignment import gram_similarity

    layer = layer_of(context, "mixed4a")
    units, how = example_units(context, layer, PUBLISHED, context.size(4, 2, 1))
    steps = context.size(128, 64, 4)
    rows, names, numbers = [], [], []
    diverse: list[float] = []
    seeds: list[float] = []
    for unit in units:
        at = context.model.unit(unit)
        diverse_set = context.visualize([unit], variants=4, steps=steps)
        goal = objectives.channel(at.layer, at.index or 0)
        seeds_set = visualize(
            context.model, [goal] * 4, steps=steps, size=diverse_set[0].image.shape[-1], seed=context.seed
        )
        similarities = [
            gram_similarity(context.model, torch.stack([v.image for v in results]), at.layer)
            for results in (diverse_set, seeds_set)
        ]
        for way, results, value in zip(
            ("diversity", "seeds only"), (diverse_set, seeds_set), similarities, strict=True
        ):
            rows.append([tile_of(v, f"response {amount(v.response)}") for v in results])
            names.append((str(at).partition("/")[2], way, f"similarity {value:.2f}"))
        diverse, seeds = diverse + similarities[:1], seeds + similarities[1:]
        numbers.append(
            {
                "unit": str(at),
                "alike": dict(zip(("diversity", "seeds"), similarities, strict=True)),
                "response": [v.response for v in diverse_set],
                "response_seeds": [v.response for v in seeds_set],
            }
        )
    lower = sum(a < b for a, b in zip(diverse, seeds, strict=True))
    claims = [
        Claim(
            "the term makes visualizations of a unit less similar",
            sum(diverse) / len(diverse),
            sum(seeds) / len(seeds),
            lower == len(units),
            "visualizations that differ by their seed",
        )
    ]
    caption = (
        f"Four visualizations of each of {len(units)} unit(s), {how}: with the diversity term, and with other seeds. "
        "Similarity is the mean cosine of channel correlations at the unit's layer."
    )
    drawing = image_table(rows, title="Facets of a unit", names=names, side=124)
    return FigureResult({"": drawing}, {"units": numbers}, caption, claims)
