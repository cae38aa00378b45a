"""The solids that features form: antipodal pairs, triangles, tetrahedra, pentagons, square antiprisms.

Features that share a space spread out in it, and few of them do so in regular ways, which are recognized here by the
angles between all pairs. What is recognized does not depend on how the whole is turned, on its scale, or on order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sae.superposition.interference import directions_of, feature_dimensionality
from sae.superposition.toy.toy_models import ToyError

LARGEST = 12
"""Corners of the largest solid looked for."""
UNRECOGNISED = "unrecognized"
_TRIES = 20_000


@dataclass(frozen=True)
class Polytope:
    """Features that share a space of their own, and the solid they form.

    Attributes:
        name: of the solid ("dedicated" for a feature by itself), or "unrecognized".
        members: indices of the features.
        dimensions: of the space that the solid spans; for an unrecognized group its participation ratio, rounded.
        deviation: largest difference between a cosine found and the solid's; NaN where there is none to compare with.
        dimensionality: mean of the members' `D_i`, all features counted.
    """

    name: str
    members: tuple[int, ...]
    dimensions: int
    deviation: float
    dimensionality: float

    def describe(self) -> dict[str, Any]:
        """The polytope, ready for JSON."""
        return {
            "name": self.name,
            "members": list(self.members),
            "dimensions": self.dimensions,
            "deviation": self.deviation,
            "dimensionality": self.dimensionality,
        }


def polygon(corners: int) -> Tensor:
    """Corners of a regular polygon, `(corners, 2)`.

    >>> polygon(4).round().tolist()[0]
    [1.0, 0.0]
    """
    turn = torch.arange(corners, dtype=torch.float64) * (2 * math.pi / corners)
    return torch.stack([turn.cos(), turn.sin()], dim=1)


def simplex(corners: int) -> Tensor:
    """Corners of a regular simplex (digon, triangle, tetrahedron, ...) at distance 1 from its middle, `(k, k - 1)`."""
    if corners < 2:
        raise ToyError(f"a simplex has at least 2 corners, not {corners}")
    around = torch.eye(corners, dtype=torch.float64) - 1 / corners
    # an orthonormal basis of the plane in which the corners of the standard simplex lie
    basis = torch.linalg.eigh(around).eigenvectors[:, 1:]
    rows: Tensor = around @ basis
    lengths: Tensor = rows.norm(dim=1, keepdim=True)
    corner: Tensor = rows / lengths
    return corner


def antiprism() -> Tensor:
    """Corners of the square antiprism whose corners are a tight frame: each has 3/8 of a dimension. `(8, 3)`.

    It is the cube with one face turned by 45 degrees.
    """
    square = polygon(4) * math.sqrt(2 / 3)
    turn = math.pi / 4
    turned = square @ torch.tensor(
        [[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]], dtype=torch.float64
    )
    high = torch.full((4, 1), 1 / math.sqrt(3), dtype=torch.float64)
    return torch.cat([torch.cat([square, high], dim=1), torch.cat([turned, -high], dim=1)])


@cache
def solids() -> dict[str, Tensor]:
    """The solids known by name, with their corners `(k, dimensions)`.

    Those whose corners fall into parts at right angles to each other (square, octahedron, the bipyramids) are not
    among them: features of such parts do not interfere, and each part is a solid of its own.
    """
    found = {"digon": simplex(2), "triangle": simplex(3), "tetrahedron": simplex(4)}
    for corners, name in ((5, "pentagon"), (6, "hexagon"), (7, "heptagon"), (8, "octagon")):
        found[name] = polygon(corners)
    found["square antiprism"] = antiprism()
    return found | {f"{k - 1}-simplex": simplex(k) for k in range(5, 9)}


def recognize(directions: Tensor, *, tolerance: float = 0.12) -> tuple[str, int, float]:
    """The solid that directions `(k, d)` are the corners of: its name, its dimensions, the largest deviation.

    Every pair's cosine must lie within `tolerance` of the solid's, in some order of the corners; lengths do not matter.
    The nearest solid is taken, or "unrecognized".

    Raises:
        ToyError: not directions, one of them without length, or a tolerance out of (0, 0.5).

    >>> recognize(polygon(5))[:2]
    ('pentagon', 2)
    """
    rows = directions_of(directions)
    if rows.ndim != 2:
        raise ToyError(f"one set of directions (k, d) at a time; got {tuple(rows.shape)}")
    if not 0 < tolerance < 0.5:
        raise ToyError(f"tolerance={tolerance}: between 0 and 0.5")
    lengths = rows.norm(dim=1, keepdim=True)
    if not bool((lengths > 0).all()):
        raise ToyError("a direction without length is the corner of nothing")
    cosines = (rows / lengths) @ (rows / lengths).T
    if len(rows) == 1:
        return "dedicated", 1, 0.0
    best: tuple[str, int, float] = (UNRECOGNISED, _participation(cosines), math.nan)
    for name, corners in solids().items():
        if len(corners) != len(rows):
            continue
        deviation = _fit(cosines, corners @ corners.T, tolerance)
        if deviation is not None and not deviation >= best[2]:
            best = (name, corners.shape[1], deviation)
    return best


def _participation(cosines: Tensor) -> int:
    values = torch.linalg.eigvalsh(cosines).clamp_min(0)
    return max(1, round(float(values.sum() ** 2 / values.square().sum())))


def _fit(found: Tensor, wanted: Tensor, tolerance: float) -> float | None:
    """Largest difference of two Gram matrices in the best order found; None if no order is within `tolerance`."""
    # sorted entries differ by no more than entries in the best order: a bound that rules out most at once
    if float((found.flatten().sort().values - wanted.flatten().sort().values).abs().max()) > tolerance:
        return None
    a, b, count = found.tolist(), wanted.tolist(), len(found)
    best, tries = math.inf, 0

    def place(order: list[int], worst: float) -> None:
        nonlocal best, tries
        if len(order) == count:
            best = min(best, worst)
            return
        for i in range(count):
            tries += 1
            if i in order or tries > _TRIES:
                continue
            off = max((abs(a[i][j] - b[len(order)][k]) for k, j in enumerate(order)), default=0.0)
            if max(worst, off) <= min(tolerance, best - 1e-12):
                place([*order, i], max(worst, off))

    place([], 0.0)
    return best if best <= tolerance else None


def components(directions: Tensor, *, least: float = 0.15, least_norm: float = 0.0) -> list[list[int]]:
    """Groups of directions that interfere: connected where the cosine's size is above `least`; largest first.

    Directions no longer than `least_norm` (or 0) are left out.
    """
    rows = directions_of(directions)
    lengths = rows.norm(dim=-1)
    kept = (lengths > max(least_norm, 0.0)).nonzero().flatten().tolist()
    unit = rows[kept] / lengths[kept, None]
    near = ((unit @ unit.T).abs() > least).tolist()
    left, found = set(range(len(kept))), []
    while left:
        group, edge = [], [min(left)]
        left.discard(edge[0])
        while edge:
            i = edge.pop()
            group.append(i)
            reached = [j for j in left if near[i][j]]
            left.difference_update(reached)
            edge.extend(reached)
        found.append(sorted(kept[i] for i in group))
    return sorted(found, key=lambda g: (-len(g), g))


def polytopes(
    directions: Tensor, *, least: float = 0.15, tolerance: float = 0.12, least_norm: float = 0.0
) -> list[Polytope]:
    """The solids that directions `(n, d)` form: each group of those that interfere, recognized by its angles.

    Args:
        directions: one a row; for a toy model `solution.directions`.
        least: cosine (its size) above which two interfere; solids' own cosines are 0.14 and up but for large simplices.
        tolerance: of each cosine; see `recognize`.
        least_norm: length up to which a direction counts as none.

    >>> [p.name for p in polytopes(torch.block_diag(polygon(5), simplex(2)))]
    ['pentagon', 'digon']
    """
    rows = directions_of(directions)
    dims = feature_dimensionality(rows)
    found = []
    for group in components(rows, least=least, least_norm=least_norm):
        name, size, deviation = recognize(rows[group], tolerance=tolerance)
        found.append(Polytope(name, tuple(group), size, deviation, float(dims[group].mean())))
    return found


def names_of(found: Sequence[Polytope]) -> dict[str, int]:
    """How many of each solid."""
    counts: dict[str, int] = {}
    for polytope in found:
        counts[polytope.name] = counts.get(polytope.name, 0) + 1
    return counts
