"""Zoom In: a unit that activates on several unrelated things."""

from __future__ import annotations

import numpy as np

from apps.figures.context import FigureContext, NotApplicable
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.unit_images import visualizations


@figure(
    "Z5",
    "polysemantic-unit",
    "A unit that activates on unrelated things",
    paper="zoom-in",
    shows="Unit 55 of mixed4e activates on cat faces, fronts of cars, and cat legs.",
    cost=90,
)
def draw(context: FigureContext) -> FigureResult:
    """Rank units of a layer by the number of their clusters; draw the first with four diverse visualizations."""
    from circuits.plot import polysemantic_unit
    from circuits.plot.drawing.unit_rows import UnitLook, unit_grid
    from circuits.units.polysemanticity import polysemantic

    layer = context.layer("mixed4e", "mixed4a", "fire9", "fire8")
    n = context.size(64, 32, 12)
    scan = context.scan.layer(layer)
    active = [i for i in range(len(scan)) if scan.active_images[i] >= n]
    if not active:
        raise NotApplicable(f"needs more images: no unit of {layer} is active on {n} of {len(context.images)}")
    candidates = _candidates(context, layer, active)
    examples = {unit: context.scan.unit(unit).top[:n] for unit in candidates}
    result = polysemantic(
        context.model,
        candidates,
        images=context.images,
        examples=examples,
        n=n,
        draws=context.size(30, 10, 3),
        seed=context.seed,
    )
    best = result.best
    optimized = visualizations(context, [best.unit], variants=context.size(4, 4, 2), whole_map=True)[best.unit]
    looks = [UnitLook(best.unit, [p], heading=f"variant {i + 1}") for i, p in enumerate(optimized)]
    drawings = {
        "visualizations": unit_grid(looks, columns=4, tile=190, title=best.unit.partition("/")[2],
                                    about="feature visualizations with a diversity term"),
        "photographs": polysemantic_unit(best, context.images, context.model.input),
    }  # fmt: skip
    control = max(best.shuffled, best.single)
    claims = [
        Claim(
            "its causes form clusters (mean silhouette)",
            best.quality,
            control,
            best.split and best.quality > control,
            "95 % of shuffled inputs, or of a single cluster, are below",
        ),
        Claim.above(
            "share of the units of the layer that are polysemantic", result.split / len(result.rows), 0.0, "none"
        ),
    ]
    numbers = {**best.describe(), "ranked": [[r.unit, r.score, r.split] for r in result.rows[:20]]}
    how = "the published one" if context.published else (
        f"the most polysemantic of {len(result.rows)} units of {layer}, sampled at random from the {len(active)} "
        f"that are active on at least {n} images"
    )  # fmt: skip
    caption = (
        f"{best.unit.partition('/')[2]}, {how}: {len(optimized)} feature visualizations with a diversity term, and its "
        f"{n} top activating images clustered by the inputs that excite it."
    )
    return FigureResult(drawings, numbers, caption, claims)


def _candidates(context: FigureContext, layer: str, active: list[int]) -> list[str]:
    if context.published:
        return [str(context.model.unit("mixed4e:55"))]
    sample = np.random.default_rng(context.seed).permutation(active)[: context.size(96, 24, 4)]
    return [str(context.model.unit(f"{layer}:{i}")) for i in sorted(sample.tolist())]
