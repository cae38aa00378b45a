"""Branch specialization: which families live in which branch, and whether the weights alone show the branches.

Source: Voss et al., Branch Specialization, Distill 2021.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from circuits.attribution.expanded_weights import expanded_weights
from circuits.common.provenance import provenance
from circuits.common.statistics import holm
from circuits.common.untrained import untrained
from circuits.errors import AddressError, CircuitsError, shorten
from circuits.network.address import Unit
from circuits.network.model import Model
from zoo.common.results import HIDDEN, Listed, Result

Array: TypeAlias = NDArray[np.float64]
Groups: TypeAlias = Mapping[str, Sequence[int]]

_ALPHA = 0.05  # family-wise error rate of `Enrichment.significant`


@dataclass(frozen=True)
class Enrichment(Result):
    """How many units of a family live in a branch, against chance.

    Attributes:
        family, branch: names.
        inside, members: units of the family in the branch, and in all.
        size, total: channels of the branch, and of the layer.
        p: chance that as many or more of the family's units fall into the branch when they are drawn from the
            layer without replacement (hypergeometric).
        adjusted: `p` corrected for all rows of the table (Holm).
    """

    family: str
    branch: str
    inside: int
    members: int
    size: int
    total: int
    p: float
    adjusted: float

    described = ("expected", "significant")

    @property
    def expected(self) -> float:
        """Units that chance would put there."""
        return self.members * self.size / self.total

    @property
    def significant(self) -> bool:
        """Whether the corrected p is below 0.05."""
        return self.adjusted < _ALPHA


@dataclass(frozen=True)
class Enrichments(Listed[Enrichment]):
    """Families against branches, the least likely by chance first.

    Attributes:
        rows: one for each family and branch; branches: name -> channels `(start, stop)`; total: of the layer.
    """

    rows: tuple[Enrichment, ...]
    branches: Mapping[str, tuple[int, int]]
    total: int

    @property
    def best(self) -> Enrichment:
        """The family and branch least likely by chance."""
        return self.rows[0]

    def row(self, branch: str, family: str | None = None) -> Enrichment:
        """One row; `family` may be left out where there is only one.

        Raises:
            CircuitsError: no such row, or several.
        """
        matches = [r for r in self.rows if r.branch == branch and family in (None, r.family)]
        if len(matches) != 1:
            families = ", ".join(dict.fromkeys(r.family for r in self.rows))
            raise CircuitsError(
                f"{len(matches)} rows for branch {shorten(branch)!r}, family {shorten(family)!r}; "
                f"there are branches {', '.join(self.branches)} and families {shorten(families, 200)}"
            )
        return matches[0]


def branches_of(model: Model, layer: str) -> dict[str, tuple[int, int]]:
    """Channels `(start, stop)` of each branch of a layer, by the branch's name; empty where there are none.

    >>> branches_of(load("scenes"), "mixed4a")["mixed4a_5x5"]
    (20, 40)
    """
    base = model.layer(layer).name
    return {
        name: (branch.part[1], branch.part[1] + branch.channels)
        for name, branch in model.layers.items()
        if branch.part is not None and branch.part[0] == base
    }


def branch_enrichment(
    families: Iterable[int | str | Unit] | Mapping[str, Iterable[int | str | Unit]],
    branches: Mapping[str, tuple[int, int]],
    *,
    total: int | None = None,
) -> Enrichments:
    """Whether families of units live in one branch more than chance would have it.

    For every family and branch the exact hypergeometric test, corrected for the number of tests by Holm's rule.

    Args:
        families: channels or addresses of one family; or family name -> channels or addresses.
        branches: branch name -> channels `(start, stop)`, half-open, as `branches_of` gives them.
        total: channels of the layer; default the end of the last branch.

    Raises:
        CircuitsError: no family, an empty or repeated one, branches that overlap, or a channel outside the layer.

    >>> found = branch_enrichment(range(192, 201), {"1x1": (0, 64), "3x3": (64, 192), "5x5": (192, 224)}, total=256)
    >>> found.best.branch, found.best.inside, found.best.p < 1e-8
    ('5x5', 9, True)
    """
    from scipy.stats import hypergeom

    by_family = families if isinstance(families, Mapping) else {"family": families}
    if not by_family or not branches:
        raise CircuitsError("branch_enrichment needs at least one family and one branch")
    spans = sorted(branches.values())
    count = max(stop for _, stop in spans) if total is None else total
    if any(start >= stop for start, stop in spans) or any(a[1] > b[0] for a, b in zip(spans, spans[1:], strict=False)):
        raise CircuitsError(
            f"branches are ranges (start, stop) that do not overlap; got {shorten(dict(branches), 200)}"
        )
    if spans[0][0] < 0 or spans[-1][1] > count:
        raise CircuitsError(f"branches up to channel {spans[-1][1]} do not fit a layer of {count}")
    tests = []
    for name, units in by_family.items():
        channels = _channels(name, units, count)
        for branch, (start, stop) in branches.items():
            inside = sum(start <= c < stop for c in channels)
            p = float(hypergeom.sf(inside - 1, count, stop - start, len(channels)))
            tests.append((name, branch, inside, len(channels), stop - start, count, min(1.0, p)))
    adjusted = holm([t[-1] for t in tests])
    rows = [Enrichment(*test, q) for test, q in zip(tests, adjusted, strict=True)]
    return Enrichments(tuple(sorted(rows, key=lambda r: r.p)), dict(branches), count)


def _channels(family: str, units: Iterable[int | str | Unit], total: int) -> list[int]:
    channels = []
    for unit in units:
        if isinstance(unit, (int, np.integer)):
            index: int | None = int(unit)
        else:
            at = unit if isinstance(unit, Unit) else Unit.parse(unit)
            if at.basis is not None:
                raise AddressError(f"{shorten(at)} is a latent: only channels lie in a branch")
            index = at.index
        if index is None or not 0 <= index < total:
            raise CircuitsError(
                f"{shorten(unit)} of the family {shorten(family)!r} is no channel of a layer of {total}"
            )
        channels.append(index)
    if not channels or len(set(channels)) < len(channels):
        raise CircuitsError(f"the family {shorten(family)!r} is empty, or names a unit twice")
    return channels


# -- do the weights show the branches? --------------------------------------------------------------------


@dataclass(frozen=True)
class Separation(Result):
    """How well the leading singular vectors separate the groups of one side.

    Attributes:
        layer: whose channels; side: "sources" or "targets" of the weights.
        groups: name -> channels.
        auc: chance that two channels of a group lie closer to each other than to one of another group, the
            mean over groups (0.5: groups do not show).
        each: that of each group.
        shuffled: `auc` for weights whose sources were shuffled for every target: the control.
        untrained: `auc` of the same network with random weights: what the wiring alone shows. Targets read
            through the bottleneck of their branch, so they lie together before anything is learned; None where
            it was not computed.
    """

    layer: str
    side: str
    groups: Mapping[str, tuple[int, ...]]
    auc: float
    each: Mapping[str, float]
    shuffled: tuple[float, ...]
    untrained: float | None = None

    def describe(self) -> dict[str, Any]:
        """Ready for JSON, with the size of each group."""
        return {**super().describe(), "groups": {name: len(channels) for name, channels in self.groups.items()}}


@dataclass(frozen=True, eq=False)
class BranchStructure(Result):
    """The singular vectors of `|W|` between two layers, and whether they show the branches.

    Attributes:
        source, target: layers.
        values: `(k,)` singular values, the first (trivial: how strongly a channel is connected) being 1.
        sources: `(channels, k)` right singular vectors; targets: `(channels, k)` left ones.
        separations: for each side that has groups.
    """

    source: str
    target: str
    values: Array
    sources: Array = field(metadata=HIDDEN)
    targets: Array = field(metadata=HIDDEN)
    separations: tuple[Separation, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def side(self, name: str | None = None) -> Separation:
        """The separation of "sources" or "targets"; default the first there is.

        Raises:
            CircuitsError: that side has no groups.
        """
        for separation in self.separations:
            if name in (None, separation.side):
                return separation
        raise CircuitsError(f"no groups on the side {shorten(name)!r}; there are {[s.side for s in self.separations]}")


def branch_structure(
    model: Model,
    layer: str,
    *,
    source: str | None = None,
    source_groups: Groups | None = None,
    target_groups: Groups | None = None,
    vectors: int = 4,
    shuffles: int = 20,
    compare_untrained: bool = True,
    seed: int = 0,
) -> BranchStructure:
    """Whether the weights between two layers alone show which channels belong together.

    `|W|` is the L2 norm of each kernel, divided by the square roots of its row's and its column's sum, so that
    the first singular vector gives only how strongly a channel is connected (Dhillon 2001); the next ones
    show which channels are connected to the same ones.

    Args:
        model: the model.
        layer: the layer that reads.
        source: the layer read from; default the trunk layer before.
        source_groups, target_groups: group name -> channels, where branches are not meant (the two halves of
            a grouped convolution; published families).
        vectors: singular vectors that are looked at after the trivial first.
        shuffles: how often the first control is drawn.
        compare_untrained: measure the second control, a copy of the network with random weights.
        seed: of both.

    Raises:
        AddressError, GraphError: unknown layers, or no weights between them.
        CircuitsError: neither side has branches or groups, or more vectors than there are.

    >>> branch_structure(load("scenes"), "mixed4b").side("sources").layer
    'mixed4a'
    """
    target = model.layer(layer).name
    before = model.before(target) if source is None else model.layer(source).name
    if before is None:
        raise CircuitsError(f"{target} reads the image itself: name a deeper layer")
    groups = {
        "sources": _groups(model, before, source_groups),
        "targets": _groups(model, target, target_groups),
    }
    if not any(groups.values()):
        raise CircuitsError(f"neither {before} nor {target} has branches: give source_groups= or target_groups=")
    strength = _strength(model, before, target)
    for side, count in (("sources", strength.shape[1]), ("targets", strength.shape[0])):
        for name, channels in groups[side].items():
            if min(channels) < 0 or max(channels) >= count:
                raise CircuitsError(f"the group {shorten(name)!r} names a channel outside of 0 to {count - 1}")
    if not 1 <= vectors < min(strength.shape):
        raise CircuitsError(f"vectors={vectors}: between 1 and {min(strength.shape) - 1} for weights {strength.shape}")
    svd = _svd(strength, vectors)
    generator = np.random.default_rng(seed)
    shuffled = [_svd(generator.permuted(strength, axis=1), vectors) for _ in range(shuffles)]
    blank = _svd(_strength(untrained(model, seed=seed), before, target), vectors) if compare_untrained else None
    separations = []
    for side, index in (("sources", 2), ("targets", 0)):
        chosen = groups[side]
        if not chosen:
            continue
        each = _separation(_embedding(svd, index), chosen)
        chance = [_mean(_separation(_embedding(s, index), chosen)) for s in shuffled]
        wiring = None if blank is None else _mean(_separation(_embedding(blank, index), chosen))
        side_layer = before if side == "sources" else target
        separations.append(Separation(side_layer, side, chosen, _mean(each), each, tuple(chance), wiring))
    left, values, right = svd
    origin = provenance(weights=model.digest, vectors=vectors, shuffles=shuffles, seed=seed)
    return BranchStructure(before, target, values, right, left, tuple(separations), origin)


def _strength(model: Model, source: str, target: str) -> Array:
    norms = expanded_weights(model, source=source, target=target).norms
    return np.asarray(norms.detach().cpu().numpy(), dtype=np.float64)


def _mean(each: Mapping[str, float]) -> float:
    return float(np.mean(list(each.values())))


def _groups(model: Model, layer: str, groups: Groups | None) -> dict[str, tuple[int, ...]]:
    if groups is None:
        return {name: tuple(range(*span)) for name, span in branches_of(model, layer).items()}
    result = {name: tuple(int(c) for c in channels) for name, channels in groups.items()}
    if len(result) < 2 or any(len(set(channels)) < 2 for channels in result.values()):
        raise CircuitsError("groups need at least two names with at least two channels each")
    return result


def _svd(strength: Array, vectors: int) -> tuple[Array, Array, Array]:
    rows, columns = (np.sqrt(strength.sum(axis=axis, keepdims=True)) for axis in (1, 0))
    # a channel without any weight has no position; it stays at the origin
    even = strength / np.where(rows > 0, rows, 1.0) / np.where(columns > 0, columns, 1.0)
    left, values, right = np.linalg.svd(even, full_matrices=False)
    left, values, right = left[:, : vectors + 1], values[: vectors + 1], right[: vectors + 1].T
    # the sign of a singular vector is free: its largest entry is made positive, the same on every machine
    signs = np.sign(right[np.abs(right).argmax(axis=0), np.arange(vectors + 1)])
    return left * signs, values, right * signs


def _embedding(svd: tuple[Array, Array, Array], index: int) -> Array:
    embedded: Array = svd[index][:, 1:] * svd[1][1:]
    return embedded


def _separation(points: Array, groups: Mapping[str, tuple[int, ...]]) -> dict[str, float]:
    grouped = np.array(sorted({c for channels in groups.values() for c in channels}))
    squares = np.square(points).sum(axis=1)
    distances = squares[:, None] + squares - 2 * points @ points.T
    areas = {}
    for name, channels in groups.items():
        inside, outside = np.array(channels), grouped[~np.isin(grouped, channels)]
        near = distances[np.ix_(inside, inside)][np.triu_indices(len(inside), 1)]
        far = np.sort(distances[np.ix_(inside, outside)], axis=None)
        if len(near) and len(far):
            # some hundred thousand pairs, a few hundred times: sorting one side does, ranks of both are not needed
            below = np.searchsorted(far, near, "left") + np.searchsorted(far, near, "right")
            areas[name] = float(1.0 - below.mean() / (2 * len(far)))
    return areas
