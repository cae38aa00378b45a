"""What weights are made of: one-sided NMF of kernels, and families of units with like weights.

Source: Voss et al., Visualizing Weights, Distill 2021 (one-sided NMF); Petrov et al., Weight Banding, Distill
2021 (colors kept across units). A unit's kernels from some hundred channels become a few groups of
channels, each with its position in space: "windows above, wheels below".
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from circuits.attribution.expanded_weights import ExpandedWeights
from circuits.common.provenance import provenance
from circuits.common.statistics import permutation_p
from circuits.errors import CircuitsError
from circuits.units.similarity import UnitSimilarity, similarity
from zoo.common.results import HIDDEN, Result, plain
from zoo.progress import Progress, reporter

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Factors(Result):
    """Kernels as a sum of factors: a group of source channels, times where and how it acts.

    `einsum("ktij,ks->tsij", spatial, channels)` approximates the kernels `(targets, sources, kh, kw)`.

    Attributes:
        targets, sources: addresses.
        channels: `(k, sources)`, at or above zero, each of length 1: which channels act together.
        spatial: `(k, targets, kh, kw)`, signed: where they excite and where they inhibit.
        explained: share of the kernels' sum of squares; each: the share lost when one factor is left out.
        shuffled: `explained` for weights whose channels were shuffled at every position of every target,
            which leaves the same numbers and no groups: the control.
        settled: whether the factorization came to rest within its iterations.
    """

    targets: tuple[str, ...]
    sources: tuple[str, ...] = field(metadata=HIDDEN)
    channels: Array = field(metadata=HIDDEN)
    spatial: Array = field(metadata=HIDDEN)
    explained: float
    each: tuple[float, ...] = field(metadata=HIDDEN)
    shuffled: tuple[float, ...]
    settled: bool = True
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.channels)

    def top(self, factor: int, n: int = 5) -> list[tuple[str, float]]:
        """The `n` sources with the largest share in a factor: `[(address, value)]`, zeros left out."""
        values = self.channels[factor]
        order = np.argsort(-values, kind="stable")[:n]
        return [(self.sources[i], float(values[i])) for i in order if values[i] > 0]

    @property
    def related_units(self) -> list[str]:
        """Addresses of the strongest sources of all factors."""
        return [unit for factor in range(len(self)) for unit, _ in self.top(factor)]

    def ordered(self, order: Sequence[int]) -> Factors:
        """The same factors in another order.

        Raises:
            CircuitsError: `order` does not name each factor once.
        """
        if sorted(order) != list(range(len(self))):
            raise CircuitsError(f"an order of {len(self)} factors names each of 0 to {len(self) - 1} once; got {order}")
        chosen = list(order)
        each = tuple(self.each[i] for i in chosen)
        return replace(self, channels=self.channels[chosen], spatial=self.spatial[chosen], each=each)

    def describe(self, n: int = 5) -> dict[str, Any]:
        """Factors with their `n` strongest sources and their kernels, ready for JSON."""
        rows = [
            {
                "factor": k,
                "share": self.each[k],
                "sources": [{"unit": unit, "value": value} for unit, value in self.top(k, n)],
                "spatial": self.spatial[k].tolist(),
            }
            for k in range(len(self))
        ]
        return super().describe() | {"factors": rows}


def one_sided_nmf(
    weights: ExpandedWeights | torch.Tensor | NDArray[Any],
    factors: int = 3,
    *,
    shuffles: int = 3,
    iterations: int = 200,
    seed: int = 0,
    progress: Progress = None,
) -> Factors:
    """Factor kernels over their source channels; only the channel side is kept from being negative.

    Positive and negative parts are stacked along the targets and positions, so that a non-negative
    factorization (scikit-learn, started from the singular vectors) gives each factor one spatial part that
    excites and one that inhibits; their difference is the signed spatial factor.

    Factors come in the order of what is lost without each (largest first). To keep a factor's rank, and with
    it its color, the same across units, layers of like sources and runs, see `align`.

    Args:
        weights: kernels `(targets, sources, kh, kw)`, or what `expanded_weights` gives, one unit or a family.
        factors: how many, from 1 to the number of sources.
        shuffles: how often the control is drawn.
        iterations: at most so many.
        seed: of the start and of the control.
        progress: True for a bar, or a function of (done, total).

    Raises:
        CircuitsError: not such kernels, all zero, or more factors than sources or positions.

    >>> kernels = expanded_weights(load("scenes"), source="mixed3b", target="mixed4a:11")
    >>> one_sided_nmf(kernels, 2).spatial.shape
    (2, 1, 5, 5)
    """
    values, targets, sources = _read(weights)
    rows = 2 * values.shape[0] * values.shape[2] * values.shape[3]
    if not 1 <= factors <= min(values.shape[1], rows):
        raise CircuitsError(
            f"{factors} factors of {values.shape[1]} sources at {rows // 2} positions: "
            f"ask for 1 to {min(values.shape[1], rows)}"
        )
    if shuffles < 0 or iterations < 1:
        raise CircuitsError(f"shuffles={shuffles}, iterations={iterations}: at least 0 and 1")
    generator = np.random.default_rng(seed)
    with reporter(progress, "NMF") as report:
        channels, spatial, settled = _factorize(values, factors, iterations, seed)
        report(1, shuffles + 1)
        control = []
        for i in range(shuffles):
            mixed = _shuffled(values, generator)
            control.append(_explained(mixed, *_factorize(mixed, factors, iterations, seed)[:2]))
            report(i + 2, shuffles + 1)
    explained = _explained(values, channels, spatial)
    # factors overlap, so their shares do not add up: what counts is what is lost without one, the others left as they
    # are
    others = [[i for i in range(factors) if i != k] for k in range(factors)]
    each = tuple(explained - _explained(values, channels[rest], spatial[rest]) for rest in others)
    origin = {"start": weights.start, "method": weights.method} if isinstance(weights, ExpandedWeights) else {}
    result = Factors(
        targets,
        sources,
        channels,
        spatial,
        explained,
        each,
        tuple(control),
        settled,
        provenance(seed=seed, factors=factors, iterations=iterations, **origin),
    )
    return result.ordered(sorted(range(factors), key=lambda k: -each[k]))


def align(results: Sequence[Factors], reference: Factors | None = None) -> list[Factors]:
    """Factors of several units (or runs) in one order, so that a rank and its color mean the same in each.

    The rule: every result is permuted so that its channel factors have the largest summed cosine with those
    of the reference (the assignment problem). Where a result has more factors than the reference, what is
    left over follows in its own order.

    Args:
        results: from `one_sided_nmf`, over the same sources.
        reference: whose order to take; default the first result.

    Raises:
        CircuitsError: no results, or other sources than the reference's.
    """
    from scipy.optimize import linear_sum_assignment

    if not results:
        raise CircuitsError("there are no factors to align")
    first = results[0] if reference is None else reference
    aligned = []
    for result in results:
        if result.sources != first.sources:
            raise CircuitsError(
                f"factors over {result.sources[0]}, ... ({len(result.sources)}) cannot be laid beside factors over "
                f"{first.sources[0]}, ... ({len(first.sources)}): align needs the same sources"
            )
        cosine = result.channels @ first.channels.T
        mine, theirs = linear_sum_assignment(-cosine)
        position = dict(zip(mine.tolist(), theirs.tolist(), strict=True))
        aligned.append(result.ordered(sorted(range(len(result)), key=lambda k: (position.get(k, len(first)), k))))
    return aligned


def _read(weights: ExpandedWeights | torch.Tensor | NDArray[Any]) -> tuple[Array, tuple[str, ...], tuple[str, ...]]:
    kernels = weights.kernels if isinstance(weights, ExpandedWeights) else weights
    values = np.asarray(kernels.detach().cpu() if isinstance(kernels, torch.Tensor) else kernels, dtype=np.float64)
    if values.ndim != 4 or 0 in values.shape:
        raise CircuitsError(f"kernels are (targets, sources, kh, kw); got shape {values.shape}")
    if not np.isfinite(values).all():
        raise CircuitsError("the kernels hold numbers that are not finite")
    if not values.any():
        raise CircuitsError("all kernels are zero: there is nothing to factor")
    if isinstance(weights, ExpandedWeights):
        return values, tuple(weights.targets), tuple(f"{weights.source}:{i}" for i in range(values.shape[1]))
    return values, tuple(map(str, range(values.shape[0]))), tuple(map(str, range(values.shape[1])))


def _factorize(values: Array, factors: int, iterations: int, seed: int) -> tuple[Array, Array, bool]:
    """Channel factors `(k, S)` of length 1, spatial factors `(k, T, kh, kw)`, and whether it settled."""
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    count, sources, *window = values.shape
    # W (targets and positions, sources) = S C with C >= 0 and S of either sign. With W+ = max(W, 0) and W- = max(-W, 0)
    # [W+; W-] ~ [S+; S-] C is an ordinary NMF, and S = S+ - S- the signed side (Voss et al. 2021).
    rows = values.transpose(0, 2, 3, 1).reshape(-1, sources)
    # weights may be tiny: the solver's stopping rule and its clip at zero are not free of scale
    scale = float(np.abs(rows).max())
    stacked = np.concatenate([rows.clip(min=0), (-rows).clip(min=0)]) / scale
    solver = NMF(factors, init="nndsvda", max_iter=iterations, tol=1e-5, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        spatial_factors = solver.fit_transform(stacked) * scale
    channels = np.asarray(solver.components_, dtype=np.float64)
    # S C is the same for (S l)(C / l): with C of length one, strengths of factors can be compared in S
    lengths = np.linalg.norm(channels, axis=1)
    spatial_factors = spatial_factors * lengths
    channels = channels / np.where(lengths > 0, lengths, 1.0)[:, None]
    signed = spatial_factors[: len(rows)] - spatial_factors[len(rows) :]
    spatial = signed.reshape(count, *window, factors).transpose(3, 0, 1, 2)
    return channels, spatial, solver.n_iter_ < iterations


def _explained(values: Array, channels: Array, spatial: Array) -> float:
    """Share of the sum of squares that the factors explain."""
    if len(channels) == 0:
        return 0.0
    reconstruction = np.einsum("ktij,ks->tsij", spatial, channels)
    return float(1.0 - np.square(values - reconstruction).sum() / np.square(values).sum())


def _shuffled(values: Array, generator: np.random.Generator) -> Array:
    rows = values.transpose(0, 2, 3, 1).copy()
    generator.permuted(rows, axis=-1, out=rows)
    return rows.transpose(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class Families(Result):
    """Units of a layer in groups of similar units.

    Attributes:
        members: addresses of each family, the largest family first.
        measure: how similarity is measured; see `UnitSimilarity`.
        within: mean similarity inside of each family (NaN for a family of one).
        silhouette: mean over units of (similarity to its own family - to the nearest other) on the scale of
            distances `1 - similarity`, in [-1, 1].
        shuffled: `silhouette` of as many families when the same similarities are assigned to pairs at random: the
            control.
    """

    members: tuple[tuple[str, ...], ...] = field(metadata=HIDDEN)
    measure: str
    within: tuple[float, ...] = field(metadata=HIDDEN)
    silhouette: float
    shuffled: tuple[float, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: one for each unit, with the number of its family, from 0."""
        pairs = enumerate(zip(self.members, self.within, strict=True))
        return [{"unit": unit, "family": i, "within": own} for i, (units, own) in pairs for unit in units]

    def of(self, unit: str) -> tuple[str, ...]:
        """The family of a unit, by address.

        Raises:
            CircuitsError: no family holds it.
        """
        for members in self.members:
            if any(unit == name or name.endswith(f"/{unit}") for name in members):
                return members
        raise CircuitsError(f"no family holds {unit}")

    def describe(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        pairs = zip(self.members, self.within, strict=True)
        return super().describe() | {"families": [{"units": [*units], "within": plain(own)} for units, own in pairs]}


def families(
    similarity: UnitSimilarity,
    *,
    count: int | None = None,
    threshold: float | None = None,
    shuffles: int = 5,
    seed: int = 0,
) -> Families:
    """Groups of similar units, by agglomerative clustering with average linkage (scikit-learn).

    Args:
        similarity: from `by_weights`, `by_activations` or `by_tuning`.
        count: how many families; or
        threshold: join as long as two families' mean similarity is above this, in (-1, 1).
        shuffles: how often the control is drawn.
        seed: of the control.

    Raises:
        CircuitsError: not just one of `count` and `threshold`, or out of range.

    >>> len(families(by_weights(load("scenes"), "mixed4a"), count=6).members)
    6
    """
    if (count is None) == (threshold is None):
        raise CircuitsError("families takes either count= (how many) or threshold= (how similar)")
    if count is not None and not 1 <= count <= len(similarity.units):
        raise CircuitsError(f"count={count}: between 1 and the number of units, {len(similarity.units)}")
    if threshold is not None and not -1 < threshold < 1:
        raise CircuitsError(f"threshold={threshold}: a similarity between -1 and 1")
    matrix = np.asarray(similarity.matrix, dtype=np.float64)
    labels = _clusters(matrix, count, threshold)
    count_found = len(np.unique(labels))
    generator = np.random.default_rng(seed)
    control = []
    for _ in range(shuffles):
        redistributed = _redistributed(matrix, generator)
        control.append(_silhouette(redistributed, _clusters(redistributed, count_found, None)))
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    groups.sort(key=lambda g: (-len(g), g[0]))
    within = [float(matrix[np.ix_(g, g)][np.triu_indices(len(g), 1)].mean()) if len(g) > 1 else np.nan for g in groups]
    return Families(
        tuple(tuple(similarity.units[i] for i in g) for g in groups),
        similarity.measure,
        tuple(within),
        _silhouette(matrix, labels),
        tuple(control),
        {**similarity.provenance, "families": provenance(count=count, threshold=threshold, seed=seed)},
    )


def _clusters(matrix: Array, count: int | None, threshold: float | None) -> NDArray[np.int64]:
    from sklearn.cluster import AgglomerativeClustering

    if len(matrix) == count:
        return np.arange(count)
    limit = None if threshold is None else 1.0 - threshold
    distance = 1.0 - matrix
    np.fill_diagonal(distance, 0.0)
    clustering = AgglomerativeClustering(count, metric="precomputed", linkage="average", distance_threshold=limit)
    labels: NDArray[np.int64] = clustering.fit_predict(distance)
    return labels


def _silhouette(matrix: Array, labels: NDArray[np.int64]) -> float:
    from sklearn.metrics import silhouette_score

    if not 2 <= len(np.unique(labels)) < len(labels):
        return 0.0
    distance = np.clip(1.0 - matrix, 0.0, None)
    np.fill_diagonal(distance, 0.0)
    return float(silhouette_score(distance, labels, metric="precomputed"))


def _redistributed(matrix: Array, generator: np.random.Generator) -> Array:
    """The same similarities, given to pairs at random."""
    above = np.triu_indices(len(matrix), 1)
    result = np.zeros_like(matrix)
    result[above] = generator.permutation(matrix[above])
    return np.asarray(result + result.T + np.eye(len(matrix)))


@dataclass(frozen=True)
class Equivariance:
    """How far a family is one unit turned round and round.

    Attributes:
        share: share of the variance among the similarities of its units that the step between two units round
            the circle explains (1: each unit sees its neighbors as every other does; the matrix is circulant).
        shuffled: the same with the units in random orders: the control.
        p: share of random orders (this one counted in) that do as well.
    """

    share: float
    shuffled: tuple[float, ...]
    p: float


def equivariance(rows: Any, *, shuffles: int = 200, seed: int = 0) -> Equivariance:
    """Whether units, in the order of their angle, have the similarities of one unit that is turned.

    In a rotation-equivariant family the similarity of two units depends on the angle between them alone, so its
    matrix is circulant (Olah et al., Naturally Occurring Equivariance in Neural Networks, Distill 2020).

    Args:
        rows: `(units, ...)` weights or responses, evenly spaced round the circle, in order; at least four.
        shuffles: random orders for the control.
        seed: of those.

    Raises:
        CircuitsError: fewer than four units.
    """
    matrix = np.asarray(similarity(rows), dtype=np.float64)
    if len(matrix) < 4:
        raise CircuitsError(f"equivariance needs at least four units round the circle; got {len(matrix)}")
    share = _circulant(matrix)
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(matrix)) for _ in range(shuffles)]
    control = [_circulant(matrix[np.ix_(order, order)]) for order in orders]
    return Equivariance(share, tuple(control), permutation_p(share, control, tolerance=1e-12))


def _circulant(matrix: Array) -> float:
    count = len(matrix)
    steps = np.arange(1, count)
    ringed = np.stack([matrix[i, (i + steps) % count] for i in range(count)])
    total = float(np.square(ringed - ringed.mean()).sum())
    if total <= 1e-12:
        return 1.0  # all the same: there is no variance to explain
    return 1.0 - float(np.square(ringed - ringed.mean(axis=0)).sum()) / total
