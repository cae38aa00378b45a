"""Polysemanticity: clusters among a unit's top activating images, by the parents that excite it on each.

A polysemantic channel is one channel with several circuits behind it. So its examples are grouped by which
*parents* made it fire (Dreyer et al., PURE, 2024, arXiv:2404.06453), not by how they look; how they look to
a deeper layer is a second, separate witness. Groups count only when they beat what the same procedure
finds in two kinds of data without groups: see `circuits.units.clustering`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuits.attribution.contributions import Upstream, upstream
from circuits.common.examples import Example
from circuits.common.provenance import provenance
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.units.clustering import Grouping, Rows, best_cut, group, unit_rows
from circuits.units.similarity import unit_names
from zoo.common.results import HIDDEN, Listed, Result, called, remembers
from zoo.images.sources import open_images
from zoo.progress import Progress

CARRIED = 0.8
MOST_PARENTS = 16
_ASSIGNMENTS = 200


@dataclass(frozen=True)
class Parent:
    """A parent that distinguishes one cluster from the others.

    Attributes:
        unit: address; channel: of the parents' layer.
        here: its share of what excites the unit on this cluster's examples.
        elsewhere: the largest such share on another cluster's examples; below 0 where it inhibits there.
    """

    unit: str
    channel: int
    here: float
    elsewhere: float


@dataclass(frozen=True)
class Cluster:
    """Examples on which the same parents make a unit fire.

    Attributes:
        examples: strongest first.
        share: of all examples looked at.
        cohesion: mean silhouette by parents: 1 is far from the others, 0 between two clusters.
        parents: those that distinguish it from the other clusters, the most distinctive first: enough to carry 80 % of
            all by which they differ, at most 16. For a unit in one cluster simply its strongest.
    """

    examples: tuple[Example, ...]
    share: float
    cohesion: float
    parents: tuple[Parent, ...]

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the parents."""
        return tuple(p.channel for p in self.parents)


@dataclass(frozen=True)
class Polysemanticity(Result):
    """Whether a unit is polysemantic.

    Attributes:
        unit: address; source, deeper: the layer of its parents, and that of the second witness.
        clusters: that survive both controls and are distinct, largest first; one for a unit that is not split.
        score: for ranking, in [0, 1]: the geometric mean of `separation` and `clear`, times `confirmed` if there is
            one.
        separation: 1 - cosine of the clusters' mean contributions, mean over pairs: 1 where they share no parents.
        clear: quality of the clusters above that of shuffled ones, as a share of the room above it.
        unlike: variance in the deeper layer that the clusters explain, less what chance would; confirmed: share of
            random assignments to clusters of these sizes that explain less. The second witness, None without one: a
            unit of one shape in two orientations has two sets of parents, but a deeper layer hardly distinguishes them.
        agreement: adjusted Rand index with clusters found in the deeper layer alone: 1 the same, 0 chance.
        quality: mean silhouette; shuffled, single: 95th percentiles of the two controls, which it has to exceed.
        n_examples: number of examples.
        provenance: on what.
    """

    unit: str
    source: str
    deeper: str | None
    clusters: tuple[Cluster, ...]
    score: float
    separation: float = field(metadata=called("apart"))
    clear: float
    unlike: float | None
    confirmed: float | None
    agreement: float | None
    quality: float
    shuffled: float
    single: float
    n_examples: int
    provenance: Mapping[str, Any] = field(default_factory=dict, metadata=HIDDEN)

    described = ("split",)

    @property
    def split(self) -> bool:
        """Whether at least two clusters survive."""
        return len(self.clusters) > 1


@dataclass(frozen=True)
class Polysemanticities(Listed[Polysemanticity]):
    """Units of a layer ranked by how polysemantic they are.

    Attributes:
        rows: the highest score first.
        silent: addresses with too few examples to group, which are not ranked.
        provenance: on what.
    """

    rows: tuple[Polysemanticity, ...]
    silent: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> Polysemanticity:
        """The most polysemantic unit.

        Raises:
            CircuitsError: none was active often enough.
        """
        if not self.rows:
            raise CircuitsError("no unit was active on enough images; give more images")
        return self[0]

    @property
    def split(self) -> int:
        """How many units are split."""
        return sum(row.split for row in self.rows)


@remembers("model", "images")
def polysemantic(
    model: Model,
    target: str | Unit | Sequence[str | Unit],
    *,
    images: Any,
    source: str | None = None,
    deeper: str | None = "auto",
    examples: Mapping[str, Sequence[Example]] | None = None,
    n: int = 64,
    most: int = 4,
    smallest: int = 5,
    distinct: float = 0.15,
    draws: int = 50,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> Polysemanticities:
    """Rank units by how polysemantic they are, and split those that are.

    Every unit's examples are described by the contributions of its parents (gradient x activation at the position,
    summed over positions, each by its signed square root so that one strong parent does not hide the others),
    compared by direction and grouped.

    Args:
        model: the model.
        target: a layer, for all of its units; a unit, or several of one layer.
        images: images in any form that `capture` takes.
        source: the layer of parents (default: the trunk's layer before).
        deeper: the layer that serves as the second witness: see `circuits.attribution.contributions`; None for none.
        examples: unit address -> where to look, instead of the `n` images on which it fires most.
        n: images looked at for each unit, at least `2 * smallest`.
        most: at most so many clusters.
        smallest: examples that a cluster must have.
        distinct: 1 - cosine of their mean contributions from which on two clusters are two.
        draws: of each control.
        seed: of the controls.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total).

    Raises:
        AddressError: an unknown unit or layer. CircuitsError: nonsense options, or a unit without parents.

    >>> polysemantic(load("scenes"), "mixed4a", images="scenes:300").best.unit  # doctest: +SKIP
    """
    if most < 2 or smallest < 2 or draws < 1 or n < 2 * smallest:
        raise CircuitsError(
            f"at least two clusters of two examples, one draw, and n for two clusters; got most={most}, "
            f"smallest={smallest}, draws={draws}, n={n}"
        )
    units = _units(model, target)
    dataset = open_images(images)
    unit_contributions = upstream(
        model, units, dataset, source=source, deeper=deeper, examples=examples, n=n, batch_size=batch_size,
        progress=progress,
    )  # fmt: skip
    origin = provenance(
        weights=model.digest, images=dataset.name, images_digest=dataset.digest, n_images=len(dataset), n=n,
        most=most, smallest=smallest, distinct=distinct, draws=draws, seed=seed,
    )  # fmt: skip
    rows, silent = [], []
    for entry in unit_contributions:
        if len(entry.examples) < 2 * smallest:
            silent.append(entry.unit)
        else:
            rows.append(
                split(entry, most=most, smallest=smallest, distinct=distinct, draws=draws, seed=seed, provenance=origin)
            )
    rows.sort(key=lambda row: -row.score)
    return Polysemanticities(tuple(rows), tuple(silent), origin)


def _units(model: Model, target: str | Unit | Sequence[str | Unit]) -> list[Unit]:
    targets = [target] if isinstance(target, (str, Unit)) else list(target)
    units: list[Unit] = []
    for address in targets:
        unit = model.resolve(address)
        units += [unit] if unit.index is not None else map(model.unit, unit_names(model, unit.short))
    return list(dict.fromkeys(units))


def split(
    contributions: Upstream,
    *,
    most: int = 4,
    smallest: int = 5,
    distinct: float = 0.15,
    draws: int = 50,
    seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
) -> Polysemanticity:
    """Group the examples of one unit; the arguments are those of `polysemantic`."""
    rows = signed_roots(contributions.parents)
    grouping = group(rows, most=most, smallest=smallest, distinct=distinct, draws=draws, seed=seed)
    counted = np.where(np.bincount(grouping.cut)[grouping.cut] >= smallest, grouping.cut, -1)
    shuffled, single = (float(np.quantile(c, 0.95)) for c in (grouping.shuffled, grouping.single))
    clear = max(0.0, (grouping.quality - shuffled) / max(1 - shuffled, 1e-9))
    witness = (
        _Witness()
        if contributions.deeper_acts is None
        else _witness(contributions.deeper_acts, counted, most, smallest, seed)
    )
    return Polysemanticity(
        unit=contributions.unit,
        source=contributions.source,
        deeper=contributions.deeper,
        clusters=_clusters(contributions, grouping),
        score=float(np.sqrt(np.clip(grouping.separation, 0, 1) * clear))
        * (1.0 if witness.confirmed is None else witness.confirmed),
        separation=grouping.separation,
        clear=clear,
        unlike=witness.unlike,
        confirmed=witness.confirmed,
        agreement=witness.agreement,
        quality=grouping.quality,
        shuffled=shuffled,
        single=single,
        n_examples=len(contributions.examples),
        provenance=dict(provenance or {}),
    )


def signed_roots(contributions: NDArray[np.float32]) -> Rows:
    """Contributions `(n, P)` by their signed square roots."""
    values = contributions.astype(np.float64)
    return np.asarray(np.sign(values) * np.sqrt(np.abs(values)))


def _means(rows: Rows, labels: NDArray[np.intp]) -> Rows:
    """Mean row of each label from 0 on that occurs."""
    return np.array([rows[labels == k].mean(axis=0) for k in np.unique(labels[labels >= 0])])


@dataclass(frozen=True)
class _Witness:
    unlike: float | None = None
    confirmed: float | None = None
    agreement: float | None = None


def _witness(
    deeper_acts: NDArray[np.float32], labels: NDArray[np.intp], most: int, smallest: int, seed: int
) -> _Witness:
    """Variance of the deeper layer explained by clusters, against random assignments and its own clusters."""
    from sklearn.metrics import adjusted_rand_score

    inside = labels >= 0
    mine = labels[inside]
    count = len(np.unique(mine))
    if count < 2:
        return _Witness(0.0, 0.0, 0.0)
    rows = unit_rows(deeper_acts.astype(np.float64))
    centered = rows[inside] - rows[inside].mean(axis=0)
    products = centered @ centered.T
    total = float(np.trace(products))
    if total <= 0:
        return _Witness(0.0, 0.0, 0.0)

    def explained(assigned: NDArray[np.intp]) -> float:
        member = np.eye(int(assigned.max()) + 1)[assigned]
        sizes = np.maximum(member.sum(axis=0), 1)
        return float(((member.T @ products @ member).diagonal() / sizes).sum()) / total

    generator = np.random.default_rng(seed)
    value = explained(mine)
    random = np.array([explained(generator.permutation(mine)) for _ in range(_ASSIGNMENTS)])
    # of n rows, c groups made at random explain (c - 1) / (n - 1)
    chance = (count - 1) / max(1, len(mine) - 1)
    own, quality, _ = best_cut(rows, most, smallest)
    agreement = float(adjusted_rand_score(own[inside], mine)) if quality > 0 else 0.0
    return _Witness(max(0.0, (value - chance) / (1 - chance)), float((random < value).mean()), agreement)


def _clusters(contributions: Upstream, grouping: Grouping) -> tuple[Cluster, ...]:
    excited = np.maximum(contributions.parents, 0).sum(axis=1, keepdims=True)
    shares = contributions.parents.astype(np.float64) / np.maximum(excited, 1e-12)
    means = _means(shares, grouping.labels)
    cohesion = grouping.cohesion or (0.0,)
    clusters = []
    for k, own in enumerate(means):
        others = np.delete(means, k, axis=0)
        elsewhere = others.max(axis=0) if len(others) else np.zeros_like(own)
        # what merely inhibits elsewhere is no parent of this cluster
        chosen = _distinctive(np.maximum(own, 0) - np.maximum(elsewhere, 0))
        members = [e for e, label in zip(contributions.examples, grouping.labels, strict=True) if label == k]
        parents = tuple(_parent(contributions, c, own[c], elsewhere[c]) for c in chosen)
        clusters.append(Cluster(tuple(members), len(members) / len(contributions.examples), cohesion[k], parents))
    return tuple(clusters)


def _distinctive(more: NDArray[np.float64]) -> list[int]:
    """The fewest channels that carry most of all by which a cluster has more, the largest first."""
    order = np.argsort(-more, kind="stable")
    gains = np.maximum(more[order], 0)
    enough = int(np.searchsorted(np.cumsum(gains), CARRIED * gains.sum())) + 1
    return [int(c) for c in order[: min(enough, MOST_PARENTS)] if more[c] > 0]


def _parent(contributions: Upstream, channel: int, here: float, elsewhere: float) -> Parent:
    model = Unit.parse(contributions.unit).model
    return Parent(str(Unit(contributions.source, channel, model)), channel, float(here), float(elsewhere))
