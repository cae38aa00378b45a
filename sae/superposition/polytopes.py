"""The solids that features form: antipodal pairs, triangles, tetrahedra, pentagons, square antiprisms.

Features that share a space spread out in it like solutions of the Thomson problem (Elhage et al. 2022, "The Geometry of
Superposition"). A solid is recognized here by its Gram matrix, the cosines of all pairs, so that rotation, scale and
order of the features do not matter.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from sae.superposition.interference import directions_of, feature_dimensionality
from sae.superposition.toy.toy_models import ToyError
from zoo.common.results import Result

LARGEST = 12
"""Corners of the largest solid looked for."""
UNRECOGNIZED = "unrecognized"
_TRIES = 20_000


@dataclass(frozen=True)
class Polytope(Result):
    """Features that share a space, and the solid that they form.

    Attributes:
        name: of the solid ("dedicated" for a feature by itself), or "unrecognized".
        members: indices of the features.
        dimensions: of the space that the solid spans; for an unrecognized group its participation ratio, rounded.
        deviation: largest difference between a cosine and that of the solid; NaN for an unrecognized group.
        dimensionality: mean of the members' `D_i`, all features counted.
    """

    name: str
    members: tuple[int, ...]
    dimensions: int
    deviation: float
    dimensionality: float


def polygon(corners: int) -> Tensor:
    """Corners of a regular polygon, `(corners, 2)`.

    >>> polygon(4).round().tolist()[0]
    [1.0, 0.0]
    """
    turn = torch.arange(corners, dtype=torch.float64) * (2 * math.pi / corners)
    return torch.stack([turn.cos(), turn.sin()], dim=1)


def simplex(corners: int) -> Tensor:
    """Corners of a regular simplex (digon, triangle, tetrahedron, ...) at distance 1 from its center, `(k, k - 1)`."""
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

    It is the cube with one face rotated by 45 degrees. In a tight frame `sum_i W_i W_i^T` is a multiple of the
    identity; that fixes the height 1/sqrt(3), and gives the plateau at 3/8 of Elhage et al. 2022.
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
    """The named solids, with their corners `(k, dimensions)`.

    Solids with corners in mutually orthogonal parts (square, octahedron, bipyramids) are not among them: the parts do
    not interfere, and each is a solid of its own (they are tegum products, in the paper's words).
    """
    named = {"digon": simplex(2), "triangle": simplex(3), "tetrahedron": simplex(4)}
    for corners, name in ((5, "pentagon"), (6, "hexagon"), (7, "heptagon"), (8, "octagon")):
        named[name] = polygon(corners)
    named["square antiprism"] = antiprism()
    return named | {f"{k - 1}-simplex": simplex(k) for k in range(5, 9)}


def recognize(directions: Tensor, *, tolerance: float = 0.12) -> tuple[str, int, float]:
    """The solid with directions `(k, d)` as its corners: its name, its dimensions, the largest deviation.

    Every pair's cosine must lie within `tolerance` of the solid's, in some order of the corners; lengths do not matter.
    The solid with the smallest deviation is taken, or "unrecognized".

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
        raise ToyError("a direction of length 0 is no corner of a solid")
    cosines = (rows / lengths) @ (rows / lengths).T
    if len(rows) == 1:
        return "dedicated", 1, 0.0
    best: tuple[str, int, float] = (UNRECOGNIZED, _participation(cosines), math.nan)
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


def _fit(cosines: Tensor, target: Tensor, tolerance: float) -> float | None:
    """Largest difference of two Gram matrices in the best order of the corners; None if no order is within `tolerance`.

    Backtracking: corners are assigned one by one, and an assignment that already deviates by more than the tolerance,
    or than the best order so far, is cut off. `_TRIES` bounds the search for large groups.
    """
    # a lower bound that rules out most groups: sorting the entries minimizes their largest difference over all orders
    if float((cosines.flatten().sort().values - target.flatten().sort().values).abs().max()) > tolerance:
        return None
    a, b, count = cosines.tolist(), target.tolist(), len(cosines)
    best, tries = math.inf, 0

    def extend(order: list[int], worst: float) -> None:
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
                extend([*order, i], max(worst, off))

    extend([], 0.0)
    return best if best <= tolerance else None


def components(directions: Tensor, *, least: float = 0.15, least_norm: float = 0.0) -> list[list[int]]:
    """Groups of directions that interfere: connected by absolute cosines above `least`; largest first.

    Directions no longer than `least_norm` (or 0) are left out.
    """
    from scipy.sparse.csgraph import connected_components

    rows = directions_of(directions)
    lengths = rows.norm(dim=-1)
    indices = (lengths > max(least_norm, 0.0)).nonzero().flatten().tolist()
    unit = rows[indices] / lengths[indices, None]
    count, labels = connected_components((unit @ unit.T).abs().numpy(force=True) > least, directed=False)
    groups = [[i for i, own in zip(indices, labels, strict=True) if own == label] for label in range(count)]
    return sorted(groups, key=lambda g: (-len(g), g))


def polytopes(
    directions: Tensor, *, least: float = 0.15, tolerance: float = 0.12, least_norm: float = 0.0
) -> list[Polytope]:
    """The solids that directions `(n, d)` form: each group of interfering directions, recognized by its angles.

    Args:
        directions: one a row; for a toy model `solution.directions`.
        least: absolute cosine above which two directions interfere; those of the named solids are 0.14 and up, large
            simplices aside.
        tolerance: of each cosine; see `recognize`.
        least_norm: directions up to this length are left out.

    >>> [p.name for p in polytopes(torch.block_diag(polygon(5), simplex(2)))]
    ['pentagon', 'digon']
    """
    rows = directions_of(directions)
    dims = feature_dimensionality(rows)
    shapes = []
    for group in components(rows, least=least, least_norm=least_norm):
        name, size, deviation = recognize(rows[group], tolerance=tolerance)
        shapes.append(Polytope(name, tuple(group), size, deviation, float(dims[group].mean())))
    return shapes


def count_by_name(shapes: Sequence[Polytope]) -> dict[str, int]:
    """The number of each solid."""
    return dict(Counter(polytope.name for polytope in shapes))
