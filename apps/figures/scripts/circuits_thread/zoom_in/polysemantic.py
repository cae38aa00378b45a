"""Zoom In: a unit that answers to several unrelated things."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.context import NotApplicable
from apps.figures.figure import Claim, FigureResult, figure

if TYPE_CHECKING:
    from apps.figures.context import FigureContext


@figure(
    "Z5",
    "polysemantic-unit",
    "A unit that answers to unrelated things",
    paper="zoom-in",
    shows="Unit 55 of mixed4e answers to cat faces, fronts of cars, and cat legs.",
    cost=90,
)
def draw(context: FigureContext) -> FigureResult:
    """Rank units of a layer by how many things make them fire; draw the first with four diverse pictures."""
    from apps.figures.helpers.unit_images import renders
    from circuits.plot import polysemantic_unit
    from circuits.plot.drawing.unit_rows import UnitLook, unit_grid
    from circuits.units.polysemanticity import polysemantic

    layer = context.layer("mixed4e", "mixed4a", "fire9", "fire8")
    n = context.size(64, 32, 12)
    scan = context.scan.layer(layer)
    fires = [i for i in range(len(scan)) if scan.fires_on[i] >= n]
    if not fires:
        raise NotApplicable(f"needs more pictures: no unit of {layer} fires on {n} of {len(context.images)}")
    wanted = _candidates(context, layer, fires)
    examples = {unit: context.scan.unit(unit).top[:n] for unit in wanted}
    found = polysemantic(
        context.model,
        wanted,
        images=context.images,
        examples=examples,
        n=n,
        draws=context.size(30, 10, 3),
        seed=context.seed,
    )
    best = found.best
    made = renders(context, [best.unit], variants=context.size(4, 4, 2), whole=True)[best.unit]
    looks = [UnitLook(best.unit, [p], heading=f"variant {i + 1}") for i, p in enumerate(made)]
    pictures = {
        "visualizations": unit_grid(looks, columns=4, tile=190, title=best.unit.partition("/")[2],
                                    about="what it looks for: pictures made together and pushed apart"),
        "photographs": polysemantic_unit(best, context.images, context.model.input),
    }  # fmt: skip
    control = max(best.shuffled, best.single)
    claims = [
        Claim("what makes it fire falls into groups (mean silhouette)", best.quality, control,
              best.split and best.quality > control, "95 % of shuffled parents, or of one cloud, stay below"),
        Claim("units of the layer that are split, share", found.split / len(found.rows), 0.0, found.split > 0, "none"),
    ]  # fmt: skip
    numbers = {**best.describe(), "ranked": [[r.unit, r.score, r.split] for r in found.rows[:20]]}
    how = "the published one" if context.published else (
        f"the most polysemantic of {len(found.rows)} units of {layer} that were looked at (drawn by seed from the "
        f"{len(fires)} that fire on at least {n} pictures)"
    )  # fmt: skip
    caption = (
        f"{best.unit.partition('/')[2]}, {how}: {len(made)} pictures made by optimization and pushed apart, and its "
        f"{n} strongest photographs grouped by the parents that made it fire."
    )
    return FigureResult(pictures, numbers, caption, claims)


def _candidates(context: FigureContext, layer: str, fires: list[int]) -> list[str]:
    import numpy as np

    if context.published:
        return [str(context.model.unit("mixed4e:55"))]
    drawn = np.random.default_rng(context.seed).permutation(fires)[: context.size(96, 24, 4)]
    return [str(context.model.unit(f"{layer}:{i}")) for i in sorted(drawn.tolist())]
