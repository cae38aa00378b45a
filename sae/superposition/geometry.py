"""The geometry of a set of directions: which of them share space, how much, and in what shapes; against chance.

The same measures serve the features of a toy model, the weights of a layer, and the decoder of a sparse autoencoder. An
edit of one direction also changes the activations of those that share its space; `effects` is by how much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.errors import did_you_mean, shorten
from circuits.network.basis import Basis, reads_linearly
from sae.superposition.interference import directions_of, feature_dimensionality, interference
from sae.superposition.polytopes import UNRECOGNIZED, Polytope, count_by_name, recognize, solids
from sae.superposition.toy.toy_models import ToyError
from zoo.common.checks import one_of
from zoo.common.results import HIDDEN, Result
from zoo.progress import Progress, reporter

TWINS = 0.9
"""Cosine from which two directions count as the same feature twice."""
_ROWS = 1024  # rows of the n x n cosines in memory at a time
_EDGES = 256  # the same, where all large cosines are listed


@dataclass(frozen=True)
class Sharing(Result):
    """A direction that shares space with another.

    Attributes:
        index, unit: its number and name.
        cosine: between the two.
        effect: change of this one's activation per step along the other, relative to a step along this one:
            `(w_other . r_this) / (w_this . r_this)`, with write directions w and read directions r.
        percentile: percentage of the control's directions whose nearest neighbor has a smaller cosine.
        beyond_chance: whether fewer than one in a hundred nearest neighbors of the control are as near.
    """

    index: int
    unit: str
    cosine: float
    effect: float
    percentile: float
    beyond_chance: bool


@dataclass(frozen=True, eq=False)
class Chance(Result):
    """The same measures for control directions of the same lengths.

    Attributes:
        kind: "random" or "shuffled".
        dimensionality: (n,) `D_i`; nearest: (n,) absolute cosine of each with its nearest neighbor.
        groups: sizes of groups at the same threshold; polytopes: number of each solid.
        twins: pairs with a cosine above 0.9.
    """

    kind: str
    dimensionality: NDArray[np.float64] = field(metadata=HIDDEN)
    nearest: NDArray[np.float64] = field(metadata=HIDDEN)
    groups: tuple[int, ...]
    polytopes: Mapping[str, int]
    twins: int

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        spreads = {"dimensionality": _spread(self.dimensionality), "nearest_cosine": _spread(self.nearest)}
        return super().describe() | spreads


@dataclass(frozen=True, eq=False)
class Geometry(Result):
    """How directions share their space.

    Attributes:
        units: (n,) names.
        dimensions: d; rank: of all directions, at most d and at least the sum of `dimensionality`.
        lengths: (n,); dimensionality: (n,) `D_i`, the share of a dimension that each has; interference: (n,).
        neighbors: (n, k) indices of those with the largest cosines (in size), nearest first.
        cosines, effects: (n, k) of the neighbors, see `Sharing`.
        least: absolute cosine from which two directions are grouped.
        groups: directions connected by such cosines, largest first; single directions are left out.
        polytopes: groups, at that threshold or a higher one, that form a solid.
        twins: pairs with a cosine above 0.9: one feature twice.
        chance: absolute cosine that one nearest neighbor in a hundred of the control exceeds.
        control: the same measures for control directions.
        provenance: seed, versions.
    """

    units: tuple[str, ...] = field(metadata=HIDDEN)
    dimensions: int
    rank: int
    lengths: NDArray[np.float64] = field(metadata=HIDDEN)
    dimensionality: NDArray[np.float64] = field(metadata=HIDDEN)
    interference: NDArray[np.float64] = field(metadata=HIDDEN)
    neighbors: NDArray[np.int64] = field(metadata=HIDDEN)
    cosines: NDArray[np.float64] = field(metadata=HIDDEN)
    effects: NDArray[np.float64] = field(metadata=HIDDEN)
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
        rows = zip(self.neighbors[row], self.cosines[row], self.effects[row], below, strict=True)
        return tuple(
            Sharing(int(j), self.units[j], float(c), float(e), float(p), bool(abs(c) > self.chance))
            for j, c, e, p in rows
        )

    def about(self, unit: int | str) -> dict[str, Any]:
        """The measures of one direction, ready for JSON: its share of a dimension, and the directions it shares with.

        `shares_with` are its neighbors as of `Sharing.describe`; `group` the other members of its group, at
        most 50 of them; `polytope` the solid it is a corner of, or None.

        Raises:
            ToyError: there is no such direction.

        >>> geometry(torch.eye(4)[:3]).about(0)["dimensionality"]
        1.0
        """
        row = self._row(unit)
        group = next((g for g in self.groups if row in g), (row,))
        solid = next((p for p in self.polytopes if row in p.members), None)
        control = self.control.dimensionality
        return {
            "unit": self.units[row],
            "index": row,
            "directions": len(self),
            "dimensions": self.dimensions,
            "dimensionality": float(self.dimensionality[row]),
            "dimensionality_percentile": float(100 * (control < self.dimensionality[row]).mean()),
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
        return super().describe() | {
            "directions": len(self),
            "dimensionality": _spread(self.dimensionality),
            "nearest_cosine": _spread(near),
            "beyond_chance": float((near > self.chance).mean()),
            "groups": [len(g) for g in self.groups],
            "polytopes": count_by_name(self.polytopes),
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
            basis (an SAE), whose write directions are taken.
        units: names of the directions, as `layer~name:7`; by default their numbers.
        neighbors: number of neighbors of each in the result.
        least: absolute cosine from which two directions are grouped; by default what one nearest neighbor in a
            hundred of the control exceeds. In few dimensions random directions are near each other too: set it there
            (0.15 for toy models).
        tolerance: of each cosine, for solids: see `recognize`.
        control: "random" directions of the same lengths; or the entries of each dimension "shuffled" over directions,
            which keeps the distribution of the entries of each dimension.
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
    if getattr(directions, "transcodes", False):
        raise ToyError(
            "the latents of a transcoder read another layer than they write to, so that no step along one changes "
            "another: give its write directions alone, geometry(transcoder.write)"
        )
    if not isinstance(directions, Tensor) and not reads_linearly(directions):
        raise ToyError(
            "each of these latents reads what others have left, so that a step along one changes another by no cosine: "
            "give their write directions alone, geometry(sae.write)"
        )
    rows = directions_of(written).cpu()
    if rows.ndim != 2 or len(rows) < 2:
        raise ToyError(f"geometry takes at least two directions, one a row (n, d); got {tuple(rows.shape)}")
    if not bool((rows.norm(dim=1) > 0).all()):
        empty = int((rows.norm(dim=1) == 0).nonzero()[0])
        raise ToyError(f"direction {empty} has length 0: leave such directions out")
    names = tuple(str(i) for i in range(len(rows))) if units is None else tuple(units)
    if len(names) != len(rows):
        raise ToyError(f"{len(names)} names for {len(rows)} directions")
    if neighbors < 1 or (least is not None and not 0 < least < 1) or not 0 < tolerance < 0.5:
        raise ToyError(f"neighbors={neighbors} >= 1, least={least} in (0, 1), tolerance={tolerance} in (0, 0.5)")
    one_of("control", control, ("random", "shuffled"), error=ToyError)
    read = rows if isinstance(directions, Tensor) else directions_of(directions.read).cpu()
    count = min(neighbors, len(rows) - 1)
    with reporter(progress, "row") as report:
        random = _control_directions(rows, control, seed)
        nearest_cosines = _nearest(random, 1, report, (0, 2))[1].abs().flatten()
        chance = float(nearest_cosines.quantile(0.99))
        threshold = min(chance, 1 - 1e-9) if least is None else least
        nearest, cosines = _nearest(rows, count, report, (1, 2))
        groups, shapes, twins = _grouped(rows, cosines[:, 0].abs(), threshold, tolerance)
        random_groups, random_shapes, random_twins = _grouped(random, nearest_cosines, threshold, tolerance)
    step = (read * rows).sum(dim=1)
    effects = torch.einsum("nd,nkd->nk", rows, read[nearest]) / step[nearest]
    return Geometry(
        units=names,
        dimensions=rows.shape[1],
        # R of a QR decomposition has the singular values of the whole in few rows
        rank=int(torch.linalg.matrix_rank(torch.linalg.qr(rows, mode="r").R if len(rows) > rows.shape[1] else rows)),
        lengths=rows.norm(dim=1).numpy(),
        dimensionality=feature_dimensionality(rows).numpy(),
        interference=interference(rows).numpy(),
        neighbors=nearest.numpy(),
        cosines=cosines.numpy(),
        effects=effects.numpy(),
        least=threshold,
        groups=groups,
        polytopes=shapes,
        twins=twins,
        chance=chance,
        control=Chance(
            control, feature_dimensionality(random).numpy(), nearest_cosines.numpy(), tuple(map(len, random_groups)),
            count_by_name(random_shapes), random_twins,
        ),
        provenance=provenance(seed=seed, control=control, neighbors=neighbors, tolerance=tolerance),
    )  # fmt: skip


def _control_directions(rows: Tensor, control: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if control == "random":
        directions = torch.randn(rows.shape, generator=generator, dtype=torch.float64)
    else:
        directions = rows.gather(0, torch.rand(rows.shape, generator=generator).argsort(dim=0))
    lengths = directions.norm(dim=1, keepdim=True)
    # shuffling sparse directions can give a direction of length 0
    directions = torch.where(lengths > 0, directions, torch.randn(rows.shape, generator=generator, dtype=torch.float64))
    scale: Tensor = rows.norm(dim=1, keepdim=True) / directions.norm(dim=1, keepdim=True)
    return directions * scale


def _nearest(rows: Tensor, count: int, report: Any, part: tuple[int, int]) -> tuple[Tensor, Tensor]:
    unit = _unit(rows)
    neighbors, values = [], []
    for start in range(0, len(unit), _ROWS):
        cosines = unit[start : start + _ROWS] @ unit.T
        sizes = cosines.abs()
        sizes[torch.arange(len(cosines)), start + torch.arange(len(cosines))] = -1  # none is its own neighbor
        indices = sizes.topk(count, dim=1).indices
        neighbors.append(indices)
        values.append(cosines.gather(1, indices))
        report(part[0] * len(unit) + start + len(cosines), part[1] * len(unit))
    return torch.cat(neighbors), torch.cat(values).double().clamp(-1, 1)


def _unit(rows: Tensor) -> Tensor:
    unit: Tensor = (rows / rows.norm(dim=1, keepdim=True)).float()
    return unit


def _grouped(
    rows: Tensor, near: Tensor, least: float, tolerance: float
) -> tuple[tuple[tuple[int, ...], ...], tuple[Polytope, ...], int]:
    """Groups at the threshold; solids among the groups at any higher threshold; and the number of twins.

    This is single-linkage clustering: the threshold falls from 1 to `least`, and each edge of the spanning forest
    merges two groups. A group that forms a solid replaces the solids within it.
    """
    # a direction without so near a neighbor has no edge; of random directions that is nearly all
    connected = (near > min(least, TWINS) - 1e-6).nonzero().flatten()
    forest, twins = _forest(_unit(rows[connected]), least)
    indices = connected.tolist()
    members = {i: [i] for i in indices}
    group_of = {i: i for i in indices}
    solid: dict[int, list[Polytope]] = {}
    most = max(len(corners) for corners in solids().values())
    dims = feature_dimensionality(rows)
    for i, j in forest:
        a, b = group_of[indices[i]], group_of[indices[j]]
        if len(members[a]) < len(members[b]):
            a, b = b, a
        for moved in members[b]:
            group_of[moved] = a
        members[a] += members.pop(b)
        inner = solid.pop(a, []) + solid.pop(b, [])
        if len(members[a]) <= most:
            group = sorted(members[a])
            name, size, deviation = recognize(rows[group], tolerance=tolerance)
            if name != UNRECOGNIZED:
                inner = [Polytope(name, tuple(group), size, deviation, float(dims[group].mean()))]
        if inner:
            solid[a] = inner
    groups = sorted((tuple(sorted(m)) for m in members.values() if len(m) > 1), key=lambda g: (-len(g), g))
    shapes = sorted((p for inner in solid.values() for p in inner), key=lambda p: p.members)
    return tuple(groups), tuple(shapes), twins


def _forest(unit: Tensor, least: float) -> tuple[list[tuple[int, int]], int]:
    """A maximum spanning forest of pairs with an absolute cosine above `least`, nearest first; and the number of twins.

    Of all such pairs, which may be millions, only those of the forest merge two groups as the threshold falls. The
    forest of the pairs so far is updated block by block, so that memory does not grow with the number of pairs.
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
        strengths = cosines[i, j].abs().double().numpy()
        rows = np.concatenate([first, i.numpy() + start])
        columns, sizes = np.concatenate([second, j.numpy()]), np.concatenate([size, strengths])
        # scipy takes a weight of 0 as no edge: the weights 2 - |cosine| lie between 1 and 2
        tree = minimum_spanning_tree(coo_array((2 - sizes.clip(0, 1), (rows, columns)), shape=(count, count))).tocoo()
        first, second, size = tree.row.astype(np.int64), tree.col.astype(np.int64), 2 - tree.data
    order = np.lexsort((second, first, -size))
    return [*zip(first[order].tolist(), second[order].tolist(), strict=True)], twins
