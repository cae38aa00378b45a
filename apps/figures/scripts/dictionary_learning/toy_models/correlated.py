"""Toy Models: correlated features are orthogonal, mutually exclusive features are antipodal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.trained_toys import trained

if TYPE_CHECKING:
    from sae.superposition import Solution


@figure(
    "T5",
    "toy-correlated",
    "Correlated and exclusive features",
    paper="toy-models",
    shows="Correlated features get orthogonal directions; mutually exclusive features get antipodal ones.",
    fits="toy",
    cost=15,
)
def draw(context: FigureContext) -> FigureResult:
    """Train correlated and mutually exclusive sets of features in two dimensions."""
    from circuits.plot.superposition.models import planes_figure

    runs = trained(context, "correlated", seeds=(3, 3), steps=(1500, 1000))
    best = list(runs.best())
    together = next(s for s in best if s.model.correlated and s.model.features == 4)
    exclusive = next(s for s in best if s.model.exclusive)
    free = next(s for s in best if not s.model.correlated and not s.model.exclusive)
    chance = _cosines(free, None)
    correlated, unrelated = _cosines(together, True), _cosines(together, False)
    excluding, rest = _cosines(exclusive, True), _cosines(exclusive, False)
    numbers = {
        "models": [
            {
                "density": s.model.densities[0],
                "correlated": s.model.correlated,
                "exclusive": s.model.exclusive,
                "directions": s.directions,
                **s.describe(),
            }
            for s in best
        ],
        "mean_cosine_of_independent_pairs": sum(chance) / len(chance),
    }
    claims = [
        Claim(
            "correlated features are orthogonal: mean absolute cosine",
            _size(correlated),
            _size(unrelated),
            _size(correlated) < 0.3 < _size(unrelated),
            "uncorrelated pairs of the same model",
        ),
        Claim(
            "mutually exclusive features are antipodal: mean cosine",
            sum(excluding) / len(excluding),
            sum(rest) / len(rest),
            sum(excluding) / len(excluding) < -0.7 < sum(rest) / len(rest),
            "other pairs of the same model",
        ),
    ]
    caption = (
        "Directions of features in two dimensions. Features of a set have a color: in the first and last panel they "
        f"are correlated, in the second mutually exclusive, in the third all are independent. Best of "
        f"{len(runs) // len(best)} runs of each."
    )
    return FigureResult({"": planes_figure(best)}, numbers, caption, claims)


def _cosines(solution: Solution, of_a_set: bool | None) -> list[float]:
    """Cosines of pairs of features: of one set, not of one set, or (None) all."""
    unit = torch.nn.functional.normalize(solution.directions, dim=1)
    sets = [*solution.model.correlated, *solution.model.exclusive]
    n = len(unit)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    same = [any(i in s and j in s for s in sets) for i, j in pairs]
    return [
        float(unit[i] @ unit[j]) for (i, j), s in zip(pairs, same, strict=True) if of_a_set is None or s is of_a_set
    ]


def _size(cosines: list[float]) -> float:
    return sum(abs(c) for c in cosines) / max(1, len(cosines))
