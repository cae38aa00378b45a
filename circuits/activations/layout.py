"""Vectors laid out in the unit square by t-SNE, a grid over it, and how similar neighbors on it are."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from circuits.errors import CircuitsError
from zoo.common.checks import whole_number
from zoo.common.results import Result, called

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

FEWEST = 8
"""Points that a layout needs at least."""
_COMPONENTS = 50
_MARGIN, _PERCENT = 0.1, 1.0


@dataclass(frozen=True)
class NeighborSimilarity(Result):
    """How much more similar neighbors on a layout are than random pairs.

    Attributes:
        quantity: what is compared; see `circuits.activations.atlas`.
        neighbors: mean over pairs of neighbors.
        random: mean over pairs sampled at random: the control for what any two have in common.
        shuffled: as `neighbors`, of data whose channels were shuffled independently and laid out anew: the control
            for what a layout makes of noise. None without `controls`.
        pairs: how many pairs of neighbors.
    """

    quantity: str = field(metadata=called("what"))
    neighbors: float
    random: float
    shuffled: float | None
    pairs: int


def square_layout(vectors: Floats, *, perplexity: float = 30.0, seed: int = 0) -> Floats:
    """Vectors laid out in the unit square by t-SNE of their directions, `(n, 2)`: x to the right, y down.

    Vectors are normalized (so that distances are those of angles), reduced to at most 50 principal components, and laid
    out by scikit-learn's t-SNE, which starts from the first two. The few outermost points are clipped to the border,
    else they would compress all others.

    Args:
        vectors: `(n, C)`, none of them zero.
        perplexity: how many neighbors count; less where there are few points.
        seed: of the layout.

    Raises:
        CircuitsError: fewer than eight points, zero vectors, or no two that differ.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(vectors) < FEWEST:
        raise CircuitsError(f"a layout needs at least {FEWEST} points; there are {len(vectors)}: give more images")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.min() > 0):
        raise CircuitsError("a vector that is zero, or not finite, has no direction to lay out")
    units = vectors / lengths
    if float(units.std(axis=0).max()) < 1e-9:
        raise CircuitsError("all vectors point the same way: there is nothing to lay out")
    components = min(_COMPONENTS, len(units) - 1, units.shape[1])
    # full: the same bits each time, where the randomized solver's depend on its draw
    reduced = PCA(n_components=components, svd_solver="full").fit_transform(units).astype(np.float32)
    if components == 1:  # nothing to embed: a line
        reduced = np.concatenate([reduced, np.zeros_like(reduced)], axis=1)
    spread = min(perplexity, (len(units) - 1) / 3)
    return squared(TSNE(perplexity=spread, init=_start(reduced), random_state=seed).fit_transform(reduced))


def _start(reduced: Floats) -> Floats:
    """The first two components at the scale that t-SNE starts from (that of its init="pca")."""
    start = reduced[:, :2] / max(float(reduced[:, 0].std()), 1e-12) * 1e-4
    return np.asarray(start, dtype=np.float32)


def squared(points: Floats) -> Floats:
    """Points `(n, 2)` in the unit square: points far outside of the middle 98 % are clipped to its border."""
    low, high = np.percentile(points, _PERCENT, axis=0), np.percentile(points, 100 - _PERCENT, axis=0)
    room = (high - low) * _MARGIN
    low, high = low - room, high + room
    inside = np.clip(points, low, high)
    low, high = inside.min(axis=0), inside.max(axis=0)
    return np.asarray((inside - low) / np.maximum(high - low, 1e-12), dtype=np.float32)


def cell_numbers(xy: Floats, grid: int) -> Integers:
    """The cell of an n x n grid that each point of the unit square lies in, `(n,)`: `row * grid + column`."""
    whole_number("grid", grid, most=1000)
    if xy.size and not (xy.min() >= 0 and xy.max() <= 1):
        raise CircuitsError("points of a layout lie in the unit square")
    column, row = np.minimum((xy * grid).astype(np.int64), grid - 1).T
    return np.asarray(row * grid + column)


def means_by(numbers: Integers, values: Floats, cells: Integers) -> Floats:
    """Means of the rows `(n, C)` whose number is each of `cells`, `(len(cells), C)`; zero where there is none."""
    index = np.full(int(max(numbers.max(initial=0), cells.max(initial=0))) + 1, -1)
    index[cells] = np.arange(len(cells))
    rows = index[numbers]
    inside = rows >= 0
    totals = np.zeros((len(cells), values.shape[1]))
    np.add.at(totals, rows[inside], values[inside].astype(np.float64))
    counts = np.bincount(rows[inside], minlength=len(cells))
    return np.asarray(totals / np.maximum(counts, 1)[:, None], dtype=np.float32)


def side_by_side(numbers: Integers, grid: int) -> Integers:
    """Pairs of indices into `numbers` whose cells share an edge, `(pairs, 2)`."""
    index = {int(cell): i for i, cell in enumerate(numbers)}
    pairs = []
    for cell, i in index.items():
        if (cell + 1) % grid and cell + 1 in index:
            pairs.append((i, index[cell + 1]))
        if cell + grid in index:
            pairs.append((i, index[cell + grid]))
    return np.asarray(pairs, dtype=np.int64).reshape(-1, 2)


def nearest_from_another(xy: Floats, owners: Integers) -> Integers:
    """Pairs of each point and the nearest one of another owner, `(pairs, 2)`; none where all have one owner."""
    from sklearn.neighbors import NearestNeighbors

    most = int(np.bincount(owners).max()) + 1
    nearest = NearestNeighbors(n_neighbors=min(most, len(xy))).fit(xy).kneighbors(return_distance=False, X=xy)
    foreign = owners[nearest] != owners[:, None]
    first = foreign.argmax(axis=1)
    rows = np.flatnonzero(foreign.any(axis=1))
    return np.stack([rows, nearest[rows, first[rows]]], axis=1)


def random_pairs(owners: Integers, count: int, generator: np.random.Generator) -> Integers:
    """At most `count` pairs of points of different owners."""
    pairs = generator.integers(0, len(owners), (count, 2))
    return np.asarray(pairs[owners[pairs[:, 0]] != owners[pairs[:, 1]]])


def mean_cosine(vectors: Floats, pairs: Integers) -> float:
    """Mean cosine over pairs of rows, about the mean of all rows: 0 where rows have nothing in common but that mean."""
    if len(pairs) == 0:
        return float("nan")
    centered = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    units = centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-12)
    return float((units[pairs[:, 0]] * units[pairs[:, 1]]).sum(axis=1).mean())


def shuffled_channels(vectors: Floats, generator: np.random.Generator) -> Floats:
    """The values of each channel in an order of its own: every channel's distribution stays, correlations are gone."""
    return np.stack([column[generator.permutation(len(vectors))] for column in vectors.T], axis=1)
