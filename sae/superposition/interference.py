"""How directions share a space: interference, dimensions per feature, and the dimensionality of each feature.

Directions are rows `(..., n, d)`: for a toy model `weights.mT`, for a dictionary its decoder. The definitions are
those of Elhage et al. 2022, Toy Models of Superposition ("The Geometry of Superposition": feature dimensionality and
dimensions per feature).
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuits.errors import shorten
from sae.superposition.toy.toy_models import ToyError

PLATEAUS: dict[str, float] = {
    "dedicated": 1.0,
    "tetrahedron": 3 / 4,
    "triangle": 2 / 3,
    "digon": 1 / 2,
    "pentagon": 2 / 5,
    "square antiprism": 3 / 8,
    "not represented": 0.0,
}
"""Dimensionalities at which features of trained models cluster: d / k for the k corners of a solid in d dimensions."""


def directions_of(directions: Tensor) -> Tensor:
    """Directions `(..., n, d)` in float64, the precision of all measures.

    Raises:
        ToyError: not a float tensor of that shape, or with entries that are not numbers.
    """
    if not isinstance(directions, Tensor) or directions.ndim < 2 or not directions.is_floating_point():
        got = tuple(directions.shape) if isinstance(directions, Tensor) else type(directions).__name__
        raise ToyError(f"directions are a float tensor (..., n, d), one a row; got {shorten(got)}")
    if directions.shape[-1] == 0 or directions.shape[-2] == 0:
        raise ToyError(f"no directions: {tuple(directions.shape)}")
    if not bool(torch.isfinite(directions).all()):
        raise ToyError("directions hold entries that are not numbers")
    return directions.detach().double()


def _moment(rows: Tensor) -> Tensor:
    """`sum_j (W_i . W_j)^2` of each row, without the n times n products: `W_i^T (sum_j W_j W_j^T) W_i`."""
    return ((rows @ (rows.mT @ rows)) * rows).sum(dim=-1)


def interference(directions: Tensor) -> Tensor:
    """Interference of the other features in each feature's direction: `sum_{j != i} (unit W_i . W_j)^2`, `(..., n)`.

    0 for a feature that is orthogonal to all others (and for directions of length 0).

    >>> interference(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
    tensor([1., 1., 0.], dtype=torch.float64)
    """
    rows = directions_of(directions)
    square = rows.square().sum(dim=-1)
    return ((_moment(rows) - square.square()).clamp_min(0) / square.clamp_min(1e-300)).where(square > 0, 0.0)


def feature_dimensionality(directions: Tensor) -> Tensor:
    """The share of a dimension that each feature has: `D_i = |W_i|^2 / sum_j (unit W_i . W_j)^2`, `(..., n)`.

    1 for a dimension of its own, 1/2 for one of two antipodal directions, 0 for directions of length 0. The sum over
    features is at most the rank of the directions.

    >>> feature_dimensionality(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
    tensor([0.5000, 0.5000, 1.0000], dtype=torch.float64)
    """
    rows = directions_of(directions)
    # a common scale cancels, but fourth powers of very long or short directions would leave the range of floats
    rows = rows / rows.abs().amax(dim=(-2, -1), keepdim=True).clamp_min(1e-300)
    square = rows.square().sum(dim=-1)
    return (square.square() / _moment(rows).clamp_min(1e-300)).where(square > 0, 0.0)


def dimensions_per_feature(directions: Tensor) -> Tensor:
    """`D* = d / |W|_F^2`: hidden dimensions for each feature represented, one number for each set of directions.

    1 without superposition, 1/2 where all share in antipodal pairs. It counts a feature by its squared length, so
    it applies to toy models, whose represented features have lengths near 1.
    """
    rows = directions_of(directions)
    return rows.shape[-1] / rows.square().sum(dim=(-2, -1))


def plateau_of(dimensionality: Tensor, tolerance: float = 0.02) -> list[str | None]:
    """The plateau that each dimensionality lies on, within `tolerance`, or None; a flat list.

    >>> plateau_of(torch.tensor([0.5, 0.45, 1.0]))
    ['digon', None, 'dedicated']
    """
    if not 0 < tolerance < 0.5:
        raise ToyError(f"tolerance={tolerance}: between 0 and 0.5")
    names: list[str | None] = []
    for value in dimensionality.flatten().tolist():
        nearest, at = min(PLATEAUS.items(), key=lambda item: abs(item[1] - value))
        names.append(nearest if abs(at - value) <= tolerance else None)
    return names


def stickiness(dimensionality: Tensor, tolerance: float = 0.02) -> tuple[float, float]:
    """Share of dimensionalities within `tolerance` of a plateau, and the same share of uniform numbers in 0..1."""
    names = plateau_of(dimensionality, tolerance)
    spans = sorted((max(0.0, at - tolerance), min(1.0, at + tolerance)) for at in PLATEAUS.values())
    covered, end = 0.0, 0.0
    for low, high in spans:
        covered += max(0.0, high - max(low, end))
        end = max(end, high)
    return sum(name is not None for name in names) / max(1, len(names)), covered
