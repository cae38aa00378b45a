"""Toy Models: dimensions per feature have plateaus, at which features form uniform polytopes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.trained_toys import trained

if TYPE_CHECKING:
    from sae.superposition import Solution

_NEAR = 0.03
_MANY = 15
"""Fewest densities that distinguish a plateau from a slope."""


@figure(
    "T2",
    "toy-dimensions",
    "Dimensions per feature, and the solids that features form",
    paper="toy-models",
    shows="As features get sparser, dimensions per feature fall by plateaus; the longest, at 1/2, is of antipodal "
    "pairs.",
    fits="toy",
    cost=60,
)
def draw(context: FigureContext) -> FigureResult:
    """Train equal features at many densities; count those on a plateau, beside random directions of equal lengths."""
    from circuits.plot.superposition.charts import dimensions_figure
    from circuits.plot.superposition.models import graph_figure
    from sae.superposition import PLATEAUS, geometry

    best = list(trained(context, "geometry", seeds=(1, 1), steps=(1500, 600), every=(2, 4)).best())
    half = PLATEAUS["digon"]
    captions = [f"density {100 * s.model.densities[0]:.3g} %" for s in _selection(best)]
    groups = [(c, s.directions, s.polytopes) for c, s in zip(captions, _selection(best), strict=True)]
    pairs = max(best, key=lambda s: sum(p.name == "digon" for p in s.polytopes))
    measured = geometry(pairs.directions, least=0.15, seed=context.seed)
    on = _share(pairs.dimensionality.tolist(), half)
    by_chance = _share(measured.control.dimensionality.tolist(), half)
    claims = [
        Claim(
            "features gather at half a dimension, in antipodal pairs",
            on,
            by_chance,
            on > 2 * by_chance and sum(p.name == "digon" for p in pairs.polytopes) > 0,
            "random directions of the same lengths, share within 0.03 of 1/2",
        ),
    ]
    if len(best) >= _MANY:
        elsewhere = max(_within(best, half + 2 * _NEAR * i) for i in (-3, -2, -1, 1, 2, 3))
        on_plateau = _within(best, half)
        claims.append(
            Claim.above(
                "dimensions per feature stay at 1/2 over several densities",
                on_plateau,
                elsewhere,
                "most models at another value as wide, from 0.32 to 0.68",
            )
        )
    numbers = {
        "models": [{"density": s.model.densities[0], **s.describe()} for s in best],
        "plateaus": dict(PLATEAUS),
        "solids": [
            {"density": s.model.densities[0], "directions": s.directions, "polytopes": [p.describe() for p in solids]}
            for s, (_, _, solids) in zip(_selection(best), groups, strict=True)
        ],
        "pairs": {"density": pairs.model.densities[0], "control": measured.control.dimensionality.tolist()},
    }
    model = best[0].model
    caption = (
        f"{model.features} equal features in {model.hidden} dimensions, trained at {len(best)} densities. First each "
        "feature's share of a dimension, then features of some models, joined where they share a direction and "
        "colored by the solid they form."
    )
    return FigureResult(
        {"": dimensions_figure(best, PLATEAUS), "solids": graph_figure(groups)}, numbers, caption, claims
    )


def _share(dimensionality: list[float], at: float) -> float:
    return sum(abs(d - at) < _NEAR for d in dimensionality) / max(1, len(dimensionality))


def _within(solutions: list[Solution], at: float) -> int:
    return sum(abs(s.dimensions_per_feature - at) < _NEAR for s in solutions)


def _selection(solutions: list[Solution]) -> list[Solution]:
    """Six models, evenly from dense to sparse."""
    step = max(1, (len(solutions) - 1) // 5)
    return solutions[::step][:6]
