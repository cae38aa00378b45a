"""Toy Models: features in a plane, from two orthogonal ones to a pentagon."""

from __future__ import annotations

import math

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.trained_toys import trained


@figure(
    "T3",
    "toy-planes",
    "Five features in a plane",
    paper="toy-models",
    shows="Two orthogonal features while they are dense, then antipodal pairs, then all five as a pentagon.",
    fits="toy",
    cost=30,
)
def draw(context: FigureContext) -> FigureResult:
    """Train five features in two dimensions at several densities, and draw their directions."""
    from circuits.plot.superposition.models import planes_figure

    runs = trained(context, "planes", seeds=(2, 2), steps=(3000, 1500), every=(1, 3))
    best = list(runs.best())
    dense, sparse = best[0], best[-1]
    turns = _gaps(sparse.directions.tolist())
    numbers = {
        "models": [
            {"density": s.model.densities[0], "directions": s.directions, **s.describe()} for s in best
        ],
        "angles_between_neighbors": turns,
    }  # fmt: skip
    claims = [
        Claim(
            "dense: the two most important features have a dimension each",
            dense.roles().count("dedicated"),
            dense.model.hidden,
            dense.roles().count("dedicated") == dense.model.hidden == dense.represented,
            "dimensions",
        ),
        Claim(
            "sparse: the five form a regular pentagon",
            max(abs(t - 72.0) for t in turns),
            20.0,
            sparse.represented == 5 and max(abs(t - 72.0) for t in turns) < 20.0,
            "allowed deviation from 72°",
        ),
    ]
    caption = (
        f"Directions of five features of falling importance in two dimensions, at {len(best)} densities; best of "
        f"{len(runs) // len(best)} run(s) of each."
    )
    return FigureResult({"": planes_figure(best)}, numbers, caption, claims)


def _gaps(directions: list[list[float]]) -> list[float]:
    """Degrees from each direction in a plane to the next one around."""
    angles = sorted(math.degrees(math.atan2(y, x)) for x, y in directions)
    return [(b - a) % 360 for a, b in zip(angles, angles[1:] + angles[:1], strict=True)]
