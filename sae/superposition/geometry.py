"""The geometry of a set of directions: which of them share space, how much, and in what shapes; against chance.

The same measures for a toy model's features, a layer's weights, and the decoder of a sparse autoencoder. Directions
that share space are what an edit of one of them touches too: `effects` is how much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.errors import did_you_mean, shorten
from circuits.network.basis import Basis
from sae.superposition.interference import directions_of, feature_dimensionality, interference
from sae.superposition.polytopes import UNRECOGNISED, Polytope, names_of, recognize, solids
from sae.superposition.toy.toy_models import ToyError
from zoo.progress import Progress, reporter

TWINS = 0.9
"""Cosine from which two directions count as the same feature twice."""
_ROWS = 1024  # of the table of cosines that are held at a time
_EDGES = 256  # the same, where all large ones are listed


@dataclass(frozen=True)
class Sharing:
    """A direction that shares space with another.

    Attributes:
        index, unit: which.
        cosine: between the two.
        effect: what a step of one along its direction is to this one, in shares of this one's own step.
        percentile: percentage of the control's directions whose nearest neighbor is less near than this.
        beyond_chance: whether fewer than one in a hundred nearest neighbors of the control are as near.
    """

    index: int
    unit: str
    cosine: float
    effect: float
    percentile: float
    beyond_chance: bool

    def describe(self) -> dict[str, Any]:
        """The neighbor, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Chance:
    """The same numbers for directions of the same lengths that mean nothing.

    Attributes:
        kind: "random" or "shuffled".
        dimensionality: (n,) `D_i`; nearest: (n,) cosine (its size) of each with the one nearest to it.
        groups: sizes of groups at the threshold of what is compared; polytopes: how many of each solid.
        twins: pairs with a cosine above 0.9.
    """

    kind: str
    dimensionality: NDArray[np.float64]
    nearest: NDArray[np.float64]
    groups: tuple[int, ...]
    polytopes: Mapping[str, int]
    twins: int


@dataclass(frozen=True, eq=False)
class Geometry:
    """How directions share the space they are in.

    Attributes:
        units: (n,) their names.
        dimensions: d; rank: of all directions, at most d and at least the sum of `dimensionality`.
        lengths: (n,); dimensionality: (n,) `D_i`, the share of a dimension that each has; interference: (n,).
        neighbors: (n, k) indices of those with the largest cosines (in size), nearest first.
        cosines, effects: (n, k) of the neighbors, see `Sharing`.
        least: cosine (its size) from which two directions are grouped.
        groups: directions connected by such cosines, largest first; those by themselves left out.
        polytopes: groups, at that threshold or a higher one, that form a solid.
        twins: pairs with a cosine above 0.9: one feature twice.
        chance: the cosine that one nearest neighbor in a hundred of the control reaches.
        control: the same for directions that mean nothing.
        provenance: seed, versions.
    """

    units: tuple[str, ...]
    dimensions: int
    rank: int
    lengths: NDArray[np.float64]
    dimensionality: NDArray[np.float64]
    interference: NDArray[np.float64]
    neighbors: NDArray[np.int64]
    cosines: NDArray[np.float64]
    effects: NDArray[np.float64]
    least: float
    groups: tuple[tuple[int, ...], ...]
    polytopes: tuple[Polytope, ...]
    twins: int
    chance: float
    control: Chance
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.units)

    def shares_with(self, unit: int | str) -> tuple[Sharing, ...]:
        """The directions nearest to one, by its index or name, nearest first.

        Raises:
            ToyError: there is no such direction.
        """
        row = self._row(unit)
        below = 100 * np.searchsorted(np.sort(self.control.nearest), np.abs(self.cosines[row])) / len(self)
        found = zip(self.neighbors[row], self.cosines[row], self.effects[row], below, strict=True)
        return tuple(
            Sharing(int(j), self.units[j], float(c), float(e), float(p), bool(abs(c) > self.chance))
            for j, c, e, p in found
        )

    def about(self, unit: int | str) -> dict[str, Any]:
        """What there is to say of one direction, ready for JSON: its share of a dimension, and with whom it shares.

        `shares_with` are its neighbors as `Sharing.describe` gives them; `group` the other members of its group, at
        most 50 of them; `polytope` the solid it is a corner of, or None.

        Raises:
            ToyError: there is no such direction.

        >>> geometry(torch.eye(4)[:3]).about(0)["dimensionality"]
        1.0
        """
        row = self._row(unit)
        group = next((g for g in self.groups if row in g), (row,))
        solid = next((p for p in self.polytopes if row in p.members), None)
        others = self.control.dimensionality
        return {
            "unit": self.units[row],
            "index": row,
            "directions": len(self),
            "dimensions": self.dimensions,
            "dimensionality": float(self.dimensionality[row]),
            "dimensionality_percentile": float(100 * (others < self.dimensionality[row]).mean()),
            "interference": float(self.interference[row]),
            "shares_with": [other.describe() for other in self.shares_with(row)],
            "group_size": len(group),
            "group": [self.units[i] for i in group if i != row][:50],
            "polytope": None if solid is None else solid.describe() | {"units": [self.units[i] for i in solid.members]},
            "chance": self.chance,
            "control": self.control.kind,
        }

    def _row(self, unit: int | str) -> int:
        if isinstance(unit, str) and unit not in self.units:
            raise ToyError(f"no direction {shorten(unit)!r}.{did_you_mean(unit, self.units)}")
        row = self.units.index(unit) if isinstance(unit, str) else int(unit)
        if not 0 <= row < len(self):
            raise ToyError(f"directions are numbered 0 to {len(self) - 1}; asked for {row}")
        return row

    def describe(self) -> dict[str, Any]:
        """The summary, ready for JSON: all directions together, beside the control."""
        near = np.abs(self.cosines[:, 0]) if self.cosines.shape[1] else np.zeros(len(self))
        return {
            "directions": len(self),
            "dimensions": self.dimensions,
            "rank": self.rank,
            "dimensionality": _spread(self.dimensionality),
            "nearest_cosine": _spread(near),
            "beyond_chance": float((near > self.chance).mean()),
            "chance": self.chance,
            "least": self.least,
            "groups": [len(g) for g in self.groups],
            "polytopes": names_of(self.polytopes),
            "twins": self.twins,
            "control": {
                "kind": self.control.kind,
                "dimensionality": _spread(self.control.dimensionality),
                "nearest_cosine": _spread(self.control.nearest),
                "groups": list(self.control.groups),
                "polytopes": dict(self.control.polytopes),
                "twins": self.control.twins,
            },
            "provenance": dict(self.provenance),
        }


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95]).tolist()
    return {"mean": float(values.mean()), "5%": low, "50%": middle, "95%": high, "sum": float(values.sum())}


def geometry(
    directions: Tensor | Basis,
    *,
    units: Sequence[str] | None = None,
    neighbors: int = 8,
    least: float | None = None,
    tolerance: float = 0.12,
    control: Literal["random", "shuffled"] = "random",
    seed: int = 0,
    progress: Progress = None,
) -> Geometry:
    """How directions share their space: dimensionalities, neighbors, groups and solids, beside a control.

    Args:
        directions: `(n, d)`, one a row, n at least 2: a toy model's `directions`, a layer's `weight.flatten(1)`; or a
            basis (an SAE), whose written directions are taken.
        units: names of the directions, as `layer~name:7`; by default their numbers.
        neighbors: how many of each are kept.
        least: cosine (its size) from which two directions are grouped; by default what one nearest neighbor in a
            hundred of the control reaches. In few dimensions random directions are near each other too: say it there
            (0.15 for toy models).
        tolerance: of each cosine, for solids: see `recognize`.
        control: "random" directions of the same lengths; or the entries of each dimension "shuffled" over directions,
            which keeps what all directions have in common.
        seed: of the control.
        progress: True for a bar, or a function of (done, total).

    Raises:
        ToyError: no such directions, too few of them, or one of length 0; options out of range.

    >>> geometry(torch.eye(4)[:3]).dimensionality
    array([1., 1., 1.])
    """
    written = directions if isinstance(directions, Tensor) else getattr(directions, "write", None)
    if not isinstance(written, Tensor):
        raise ToyError(f"geometry takes directions (n, d) or a basis, not {type(directions).__name__}")
    rows = directions_of(written).cpu()
    if rows.ndim != 2 or len(rows) < 2:
        raise ToyError(f"geometry takes at least two directions, one a row (n, d); got {tuple(rows.shape)}")
    if not bool((rows.norm(dim=1) > 0).all()):
        where = int((rows.norm(dim=1) == 0).nonzero()[0])
        raise ToyError(f"direction {where} has length 0 and lies nowhere: leave such directions out")
    names = tuple(str(i) for i in range(len(rows))) if units is None else tuple(units)
    if len(names) != len(rows):
        raise ToyError(f"{len(names)} names for {len(rows)} directions")
    if neighbors < 1 or (least is not None and not 0 < least < 1) or not 0 < tolerance < 0.5:
        raise ToyError(f"neighbors={neighbors} >= 1, least={least} in (0, 1), tolerance={tolerance} in (0, 0.5)")
    if control not in ("random", "shuffled"):
        raise ToyError(f"control={shorten(control)!r}: use 'random' or 'shuffled'")
    read = rows if isinstance(directions, Tensor) else directions_of(directions.read).cpu()
    count = min(neighbors, len(rows) - 1)
    with reporter(progress, "row") as report:
        idle = _idle(rows, control, seed)
        near = _nearest(idle, 1, report, (0, 2))[1].abs().flatten()
        chance = float(near.quantile(0.99))
        level = min(chance, 1 - 1e-9) if least is None else least
        places, cosines = _nearest(rows, count, report, (1, 2))
        groups, found, twins = _grouped(rows, cosines[:, 0].abs(), level, tolerance)
        idle_groups, idle_found, idle_twins = _grouped(idle, near, level, tolerance)
    step = (read * rows).sum(dim=1)
    met = torch.einsum("nd,nkd->nk", rows, read[places]) / step[places]
    return Geometry(
        units=names,
        dimensions=rows.shape[1],
        # R of a QR decomposition has the singular values of the whole in few rows
        rank=int(torch.linalg.matrix_rank(torch.linalg.qr(rows, mode="r").R if len(rows) > rows.shape[1] else rows)),
        lengths=rows.norm(dim=1).numpy(),
        dimensionality=feature_dimensionality(rows).numpy(),
        interference=interference(rows).numpy(),
        neighbors=places.numpy(),
        cosines=cosines.numpy(),
        effects=met.numpy(),
        least=level,
        groups=groups,
        polytopes=found,
        twins=twins,
        chance=chance,
        control=Chance(
            control, feature_dimensionality(idle).numpy(), near.numpy(), tuple(map(len, idle_groups)),
            names_of(idle_found), idle_twins,
        ),
        provenance=provenance(seed=seed, control=control, neighbors=neighbors, tolerance=tolerance),
    )  # fmt: skip


def _idle(rows: Tensor, control: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if control == "random":
        drawn = torch.randn(rows.shape, generator=generator, dtype=torch.float64)
    else:
        drawn = rows.gather(0, torch.rand(rows.shape, generator=generator).argsort(dim=0))
    lengths = drawn.norm(dim=1, keepdim=True)
    # shuffling sparse directions can leave one with nothing
    drawn = torch.where(lengths > 0, drawn, torch.randn(rows.shape, generator=generator, dtype=torch.float64))
    scale: Tensor = rows.norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True)
    return drawn * scale


def _nearest(rows: Tensor, count: int, report: Any, part: tuple[int, int]) -> tuple[Tensor, Tensor]:
    unit = _unit(rows)
    places, values = [], []
    for start in range(0, len(unit), _ROWS):
        cosines = unit[start : start + _ROWS] @ unit.T
        sizes = cosines.abs()
        sizes[torch.arange(len(cosines)), start + torch.arange(len(cosines))] = -1  # none is its own neighbor
        at = sizes.topk(count, dim=1).indices
        places.append(at)
        values.append(cosines.gather(1, at))
        report(part[0] * len(unit) + start + len(cosines), part[1] * len(unit))
    return torch.cat(places), torch.cat(values).double().clamp(-1, 1)


def _unit(rows: Tensor) -> Tensor:
    unit: Tensor = (rows / rows.norm(dim=1, keepdim=True)).float()
    return unit


def _grouped(
    rows: Tensor, near: Tensor, least: float, tolerance: float
) -> tuple[tuple[tuple[int, ...], ...], tuple[Polytope, ...], int]:
    """Groups at the threshold; and, letting it fall from 1 to there, each group on the way that forms a solid."""
    # a direction with no neighbor so near has no edge: of directions that mean nothing that is nearly all
    kept = (near > min(least, TWINS) - 1e-6).nonzero().flatten()
    forest, twins = _forest(_unit(rows[kept]), least)
    at = kept.tolist()
    members = {i: [i] for i in at}
    home = {i: i for i in at}
    solid: dict[int, list[Polytope]] = {}
    most = max(len(corners) for corners in solids().values())
    dims = feature_dimensionality(rows)
    for i, j in forest:
        a, b = home[at[i]], home[at[j]]
        if len(members[a]) < len(members[b]):
            a, b = b, a
        for moved in members[b]:
            home[moved] = a
        members[a] += members.pop(b)
        inner = solid.pop(a, []) + solid.pop(b, [])
        if len(members[a]) <= most:
            group = sorted(members[a])
            name, size, deviation = recognize(rows[group], tolerance=tolerance)
            if name != UNRECOGNISED:  # the larger solid counts, not those within it
                inner = [Polytope(name, tuple(group), size, deviation, float(dims[group].mean()))]
        if inner:
            solid[a] = inner
    groups = sorted((tuple(sorted(m)) for m in members.values() if len(m) > 1), key=lambda g: (-len(g), g))
    found = sorted((p for inner in solid.values() for p in inner), key=lambda p: p.members)
    return tuple(groups), tuple(found), twins


def _forest(unit: Tensor, least: float) -> tuple[list[tuple[int, int]], int]:
    """Pairs that join all that cosines above `least` (in size) join, nearest first; and how many pairs are twins.

    Of all such pairs, which may be millions, only those matter that join two groups when the threshold falls to them:
    a spanning forest. It is kept up to date block by block, so that memory does not grow with the number of pairs.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    count, twins = len(unit), 0
    first, second, size = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    for start in range(0, count, _EDGES):
        cosines = (unit[start : start + _EDGES] @ unit.T).triu(start + 1)
        twins += int((cosines > TWINS).sum())
        i, j = (cosines.abs() > least).nonzero(as_tuple=True)
        if not len(i):
            continue
        found = cosines[i, j].abs().double().numpy()
        rows = np.concatenate([first, i.numpy() + start])
        columns, sizes = np.concatenate([second, j.numpy()]), np.concatenate([size, found])
        # weights from 1 to 2, since a weight of 0 is no pair there
        tree = minimum_spanning_tree(coo_array((2 - sizes.clip(0, 1), (rows, columns)), shape=(count, count))).tocoo()
        first, second, size = tree.row.astype(np.int64), tree.col.astype(np.int64), 2 - tree.data
    order = np.lexsort((second, first, -size))
    return [*zip(first[order].tolist(), second[order].tolist(), strict=True)], twins
