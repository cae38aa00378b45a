"""Views of a circuit: weak edges pruned, units pinned, units grouped. The sums of contributions stay complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.explorer.server.security import UploadError, checked_text
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.tracing.circuit import Circuit, Edge, Node, Rest
from zoo.common.results import Result

MOST = 24
"""Largest number of groups, and of pins, in a view."""
NONE = "none"
"""In an address: no pins or groups, where the circuit's file has some."""


@dataclass(frozen=True)
class Group:
    """Units that are shown as one node.

    Attributes:
        name: in the graph; units: addresses, all of one layer.
    """

    name: str
    units: tuple[str, ...]


@dataclass(frozen=True)
class View(Result):
    """How a circuit is shown.

    Attributes:
        prune: edges below this share of their target's strongest are pruned, in [0, 1).
        pins: units that are never pruned; groups: units shown as one node.
    """

    prune: float = 0.0
    pins: tuple[str, ...] = ()
    groups: tuple[Group, ...] = field(default_factory=tuple)

    @classmethod
    def of_address(cls, prune: float, pins: str | None, groups: str | None, model: str) -> View:
        """The view of an address: `pin=mixed3b:6,mixed3b:46`, `group=parts=mixed3b:6,mixed3b:39;other=...`.

        Raises:
            AddressError: no unit has such an address. UploadError: too many groups or pins, or a group without a name.
        """
        pinned = tuple(_full(text, model) for text in ("" if pins in (None, NONE) else str(pins)).split(",") if text)
        parsed = []
        for part in ("" if groups in (None, NONE) else str(groups)).split(";"):
            if part:
                name, _, units = part.partition("=")
                parsed.append(
                    Group(checked_text(name, 40) or "group", tuple(_full(u, model) for u in units.split(",") if u))
                )
        if len(pinned) > MOST or len(parsed) > MOST:
            raise UploadError(f"at most {MOST} pins and {MOST} groups")
        return cls(prune, pinned, tuple(group for group in parsed if len(group.units) > 1))

    def to_address(self) -> dict[str, str | None]:
        """Parameters of the address, for `links.change`."""
        groups = ";".join(f"{g.name}={','.join(_short(u) for u in g.units)}" for g in self.groups)
        return {"pin": ",".join(_short(u) for u in self.pins) or None, "group": groups or None}

    def pinned(self, unit: str) -> View:
        """With a unit pinned, or unpinned where it was pinned."""
        return replace(self, pins=tuple(u for u in self.pins if u != unit) + ((unit,) if unit not in self.pins else ()))

    def grouped(self, name: str, units: Sequence[str]) -> View:
        """With units grouped; a unit is in one group at most.

        Raises:
            UploadError: fewer than two units, units of several layers, or a name that an address cannot hold.
        """
        label = checked_text(name, 40)
        if not label or any(c in label for c in "=;,"):
            raise UploadError("a group needs a name without = ; and ,")
        if len(units) < 2 or len({Unit.parse(u).space for u in units}) != 1:
            raise UploadError("a group has at least two units, all of one layer")
        others = (replace(g, units=tuple(u for u in g.units if u not in units)) for g in self.groups if g.name != label)
        return replace(self, groups=(*(g for g in others if len(g.units) > 1), Group(label, tuple(units))))

    def ungrouped(self, name: str) -> View:
        """Without a group."""
        return replace(self, groups=tuple(g for g in self.groups if g.name != name))


def _full(text: str, model: str) -> str:
    unit = Unit.parse(text)
    return str(unit if unit.model is not None else replace(unit, model=model))


def _short(unit: str) -> str:
    return unit.rpartition("/")[2]


def pruned(circuit: Circuit, view: View) -> Circuit:
    """The circuit without its weak edges, and without units that no path connects to the target any more.

    An edge stays when its strength is at least a share `view.prune` of the strongest into its target, or its source is
    pinned. Pruned edges are added to the rest of their target, so that the sums stay complete.
    """
    most: dict[str, float] = {}
    for edge in circuit.edges:
        most[edge.target] = max(most.get(edge.target, 0.0), abs(edge.strength))
    strong = [e for e in circuit.edges if e.source in view.pins or abs(e.strength) >= view.prune * most[e.target]]
    reached = {circuit.target}
    for _ in circuit.layers:  # a path is no longer than the number of layers
        reached |= {e.source for e in strong if e.target in reached}
    edges = tuple(e for e in strong if e.target in reached)
    remaining = {(e.source, e.target) for e in edges}
    rests = tuple(_with(rest, circuit, remaining) for rest in circuit.rest if rest.target in reached)
    nodes = tuple(node for node in circuit.nodes if node.unit in reached)
    return replace(
        circuit, nodes=nodes, edges=edges, rest=rests, score=circuit.score if nodes == circuit.nodes else None
    )


def least_prune(circuit: Circuit, most: int, largest: int) -> float:
    """The smallest share, in whole percent up to `largest`, that leaves at most `most` units; else `largest`."""
    percents = range(largest + 1)
    fits = (percent for percent in percents if len(pruned(circuit, View(percent / 100)).nodes) <= most)
    return next(fits, largest) / 100


def _with(rest: Rest, circuit: Circuit, remaining: set[tuple[str, str]]) -> Rest:
    removed = [e for e in circuit.edges if e.target == rest.target and (e.source, e.target) not in remaining]
    if not removed:
        return rest
    return replace(rest, count=rest.count + len(removed), strength=rest.strength + sum(e.strength for e in removed))


def merged(circuit: Circuit, view: View) -> Circuit:
    """The circuit with each group as one node: strengths and kernels of its members' edges added up."""
    owner = {unit: group for group in view.groups for unit in group.units}
    inside = {n.unit for n in circuit.nodes}
    members_of = {g.name: [u for u in g.units if u in inside and u != circuit.target] for g in view.groups}
    representative = {
        u: members_of[g.name][0] for u, g in owner.items() if u in inside and u != circuit.target and members_of[g.name]
    }

    def of(unit: str) -> str:
        return representative.get(unit, unit)

    nodes: list[Node] = []
    for node in circuit.nodes:
        if node.unit not in representative:
            nodes.append(node)
        elif representative[node.unit] == node.unit:
            group = owner[node.unit]
            joined = [circuit.node(u) for u in members_of[group.name]]
            examples = tuple(e for parts in zip(*(m.examples for m in joined), strict=False) for e in parts)
            nodes.append(replace(node, label=f"{group.name} ({len(joined)})", examples=examples or node.examples))
    edges: dict[tuple[str, str], Edge] = {}
    for edge in circuit.edges:
        key = (of(edge.source), of(edge.target))
        before = edges.get(key)
        edges[key] = replace(edge, source=key[0], target=key[1]) if before is None else _added(before, edge)
    rests: dict[str, Rest] = {}
    for rest in circuit.rest:
        target = of(rest.target)
        earlier = rests.get(target)
        rests[target] = replace(rest, target=target) if earlier is None else _summed(earlier, rest)
    return replace(circuit, nodes=tuple(nodes), edges=tuple(edges.values()), rest=tuple(rests.values()))


def _added(edge: Edge, other: Edge) -> Edge:
    strength = edge.strength + other.strength
    kernel, offset = _added_kernels(edge, other)
    weight = float(np.sqrt((kernel.astype(np.float64) ** 2).sum())) * (1 if kernel.sum() >= 0 else -1)
    sign = 1 if strength >= 0 else -1
    return replace(edge, sign=sign, strength=strength, weight=weight, kernel=kernel, offset=offset)


def _added_kernels(edge: Edge, other: Edge) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """The sum of two kernels, each at its offset, and the offset of the sum.

    Those of the branches of a layer have different sizes. Without a common stride there is no common frame: the sum is
    then that of all weights, as for an edge without a kernel.
    """
    kernels = [np.atleast_2d(edge.kernel), np.atleast_2d(other.kernel)]
    if edge.stride != other.stride:
        return np.array([[kernels[0].sum() + kernels[1].sum()]], np.float32), (0, 0)
    offsets = (edge.offset, other.offset)
    top, left = (min(offset[axis] for offset in offsets) for axis in range(2))
    ends = [[o[a] + k.shape[a] for o, k in zip(offsets, kernels, strict=True)] for a in range(2)]
    total = np.zeros((max(ends[0]) - top, max(ends[1]) - left), np.float32)
    for (y, x), kernel in zip(offsets, kernels, strict=True):
        total[y - top : y - top + kernel.shape[0], x - left : x - left + kernel.shape[1]] += kernel
    return total, (top, left)


def _summed(rest: Rest, other: Rest) -> Rest:
    names = ("count", "strength", "total", "bias", "remainder", "pre_activation")
    summed = {name: getattr(rest, name) + getattr(other, name) for name in names}
    errors = [r.error for r in (rest, other) if r.error is not None]
    return replace(rest, **summed, error=sum(errors) if errors else None)


def document(circuit: Circuit, view: View) -> dict[str, Any]:
    """`circuit.json`: the whole circuit, as `Circuit.from_json` reads it, and its view."""
    return {**circuit.to_json(), "view": view.describe()}


def read_document(data: Any) -> tuple[Circuit, View | None]:
    """A `circuit.json` of the explorer, and its view, or one of `circuits trace`, which has none.

    Raises:
        CircuitsError: it cannot be read.
    """
    circuit = Circuit.from_json(data)
    stored = data.get("view")
    for node in circuit.nodes:
        Unit.parse(node.unit)
    if not isinstance(stored, Mapping):
        return circuit, None
    try:
        view = View(
            min(0.99, max(0.0, float(stored.get("prune", 0.0)))),
            tuple(str(Unit.parse(u)) for u in stored.get("pins", ())[:MOST]),
            tuple(
                Group(checked_text(g["name"], 40), tuple(str(Unit.parse(u)) for u in g["units"]))
                for g in stored.get("groups", ())[:MOST]
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, CircuitsError):
            raise
        raise UploadError("the view of this circuit cannot be read") from error
    return circuit, view
