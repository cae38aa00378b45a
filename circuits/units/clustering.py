"""Do rows fall into groups? Clusters that count only against two controls.

Rows are compared by direction (cosine), so that the strength of the response to an example does not matter; they are
joined by Ward's method and cut where the mean silhouette is largest. Any cloud can be cut in two, so the
same procedure is run on two kinds of clouds without groups: columns shuffled over rows (no column knows
of another), and a single normal cloud with the covariance of the rows (one group of the same shape, the
null of Liu et al. 2008, Statistical significance of clustering). Groups have to beat both; and two groups
whose mean directions are nearly the same are one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
QUANTILE = 0.95


@dataclass(frozen=True, eq=False)
class Grouping:
    """Groups of rows, and what the same procedure finds where there are none.

    Attributes:
        labels: `(n,)` the group of each row, 0 the largest; -1 for rows in no group that survived.
        cut: `(n,)` groups before any were dropped, by size.
        cohesion: mean silhouette of each surviving group.
        quality: of the cut: mean silhouette, rows of groups too small to count as zero.
        shuffled, single: quality for each draw of the two controls.
        threshold: the larger of their 95th percentiles.
        separation: 1 - cosine of the groups' mean directions, mean over pairs of the cut's groups of sufficient size.
    """

    labels: NDArray[np.intp]
    cut: NDArray[np.intp]
    cohesion: tuple[float, ...]
    quality: float
    shuffled: NDArray[np.float64]
    single: NDArray[np.float64]
    threshold: float
    separation: float

    @property
    def count(self) -> int:
        """Number of groups that survive; 1 where the rows are one cloud."""
        return max(1, len(self.cohesion))


def group(
    rows: Rows, *, most: int = 4, smallest: int = 5, distinct: float = 0.15, draws: int = 50, seed: int = 0
) -> Grouping:
    """Groups of rows that survive both controls.

    Args:
        rows: `(n, d)`; a row of zeros belongs to nothing.
        most: at most so many groups.
        smallest: rows that a group must have.
        distinct: 1 - cosine of the mean directions from which on two groups are two.
        draws: of each control.
        seed: of the controls.
    """
    generator = np.random.default_rng(seed)
    directions = unit_rows(rows)
    labels, quality, silhouettes = best_cut(directions, most, smallest)
    shuffled = np.array([best_cut(shuffle(rows, generator), most, smallest)[1] for _ in range(draws)])
    cloud = single_cloud(directions, generator)
    single = np.array([best_cut(cloud(), most, smallest)[1] for _ in range(draws)])
    threshold = max(_upper(shuffled), _upper(single))
    surviving = np.full(len(rows), -1, dtype=np.intp)
    if quality > threshold:
        for label in range(labels.max() + 1):
            mine = labels == label
            if mine.sum() >= smallest and silhouettes[mine].mean() > threshold:
                surviving[mine] = label
        surviving = _merged(directions, surviving, distinct)
    count = int(surviving.max()) + 1
    if count < 2:
        surviving[:] = 0
    cohesion = _cohesion(directions, surviving, count)
    large = np.where(np.bincount(labels)[labels] >= smallest, labels, -1)
    return Grouping(
        surviving, labels, cohesion, quality, shuffled, single, threshold, mean_separation(directions, large)
    )


def _merged(directions: Rows, labels: NDArray[np.intp], distinct: float) -> NDArray[np.intp]:
    """Groups with nearly the same mean direction joined, the nearest first; labels by size, -1 stays."""
    labels = labels.copy()
    while True:
        names = np.unique(labels[labels >= 0])
        if len(names) < 2:
            break
        distances = _separation(directions, labels)
        np.fill_diagonal(distances, np.inf)
        a, b = np.unravel_index(int(distances.argmin()), distances.shape)
        if distances[a, b] >= distinct:
            break
        labels[labels == names[b]] = names[a]
    inside = labels >= 0
    if inside.any():
        labels[inside] = _by_size(labels[inside])
    return labels


def _cohesion(directions: Rows, labels: NDArray[np.intp], count: int) -> tuple[float, ...]:
    if count < 2:
        return ()
    squared = np.clip(2 - 2 * directions @ directions.T, 0, None)
    values = silhouette(squared, np.where(labels < 0, count, labels), count)
    return tuple(float(values[labels == k].mean()) for k in range(count))


def _separation(directions: Rows, labels: NDArray[np.intp]) -> Rows:
    """1 - cosine of the mean directions of all pairs of groups, `(groups, groups)`."""
    means = unit_rows(np.array([directions[labels == k].mean(axis=0) for k in np.unique(labels[labels >= 0])]))
    return np.asarray(1 - means @ means.T)


def mean_separation(directions: Rows, labels: NDArray[np.intp]) -> float:
    """1 - cosine of the mean directions, mean over pairs of groups; 0 for one group. Labels below 0 do not count."""
    distances = _separation(directions, labels) if (labels >= 0).any() else np.zeros((0, 0))
    count = len(distances)
    return float(distances[~np.eye(count, dtype=bool)].mean()) if count > 1 else 0.0


def unit_rows(rows: Rows) -> Rows:
    """Rows of length one; rows of zeros stay."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def shuffle(rows: Rows, generator: np.random.Generator) -> Rows:
    """Each column permuted over the rows on its own, then rows of length one."""
    return unit_rows(generator.permuted(rows, axis=0))


def single_cloud(rows: Rows, generator: np.random.Generator) -> Callable[[], Rows]:
    """Draws of one normal cloud with the mean and covariance of `rows`, as rows of length one."""
    middle = rows.mean(axis=0)
    spread = (rows - middle) / np.sqrt(max(1, len(rows) - 1))

    def draw() -> Rows:
        # normal weights on the rows themselves have their covariance, whatever the number of columns
        return unit_rows(middle + generator.standard_normal((len(rows), len(rows))) @ spread)

    return draw


def best_cut(directions: Rows, most: int, smallest: int) -> tuple[NDArray[np.intp], float, NDArray[np.float64]]:
    """Ward's tree cut into 2 to `most` groups that count: `(labels by size, quality, silhouette of each row)`."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    n = len(directions)
    best = (np.zeros(n, dtype=np.intp), 0.0, np.zeros(n))
    if n < 2 * smallest:
        return best
    distances = np.clip(2 - 2 * directions @ directions.T, 0, None)  # squared distances of unit rows
    np.fill_diagonal(distances, 0)
    tree = linkage(np.sqrt(squareform(distances, checks=False)), "ward")
    # a few outliers split off first: more cuts are tried than groups are allowed
    for k in range(2, 2 * most + 1):
        labels = _by_size(fcluster(tree, k, "maxclust"))
        sizes = np.bincount(labels)
        large = int((sizes >= smallest).sum())
        if large < 2 or large > most:
            continue
        silhouettes = silhouette(distances, labels, large)
        quality = float(silhouettes.mean())
        if quality > best[1]:
            best = (labels, quality, silhouettes)
    return best


def _by_size(labels: NDArray[np.int32] | NDArray[np.intp]) -> NDArray[np.intp]:
    """Labels from 0, the largest group first."""
    names, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    rank = np.empty(len(names), dtype=np.intp)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(names))
    return rank[inverse]


def silhouette(distances: Rows, labels: NDArray[np.intp], large: int) -> NDArray[np.float64]:
    """Silhouette of each row among the first `large` groups (Rousseeuw 1987); 0 for rows of other groups."""
    member = np.eye(labels.max() + 1)[labels][:, :large]
    sizes = member.sum(axis=0)
    totals = distances @ member
    rows = np.flatnonzero(labels < large)
    own = labels[rows]
    within = totals[rows, own] / np.maximum(sizes[own] - 1, 1)
    others = totals[rows] / sizes
    others[np.arange(len(rows)), own] = np.inf
    between = others.min(axis=1)
    values = np.zeros(len(labels))
    values[rows] = (between - within) / np.maximum(np.maximum(between, within), 1e-12)
    return values


def _upper(draws: NDArray[np.float64]) -> float:
    return float(np.quantile(draws, QUANTILE)) if len(draws) else 0.0
