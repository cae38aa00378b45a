"""A circuit as data: units, the weights between them, the rest of each sum, and how well it explains its target."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from circuits.common.examples import Example
from circuits.errors import CircuitsError, shorten
from circuits.network.address import is_address_of
from circuits.tracing.circuit_score import Score, plain_values, score_json
from zoo.common.files import write_text_atomically
from zoo.common.reading import Count, read_as, read_json
from zoo.common.results import Result, remember

if TYPE_CHECKING:
    import networkx

SCHEMA = 1


@dataclass(frozen=True)
class Node:
    """A unit of a circuit.

    Attributes:
        unit: full address; layer, index: its parts.
        role: "target" or "parent".
        depth: steps back from the target.
        activation: mean response over the positions where the circuit was traced.
        examples: where it fires, strongest first.
        label: a name given by the user, the labels of a model, or part masks.
    """

    unit: str
    layer: str
    index: Count
    role: str
    depth: Count
    activation: float
    examples: tuple[Example, ...] = ()
    label: str | None = None


@dataclass(frozen=True, eq=False)
class Edge:
    """A weight between two units.

    Attributes:
        source, target: addresses.
        sign: +1 excites, -1 inhibits: the sign of `strength`.
        low: whether most of the strength comes from positions where the source is below the baseline: it then excites
            by a negative weight where it is low, or inhibits by a positive one.
        weight: L2 norm of the kernel with the sign of its sum.
        strength: mean contribution to the target's pre-activation over the positions traced (for
            `by="ablation"` the mean drop of its response when the source is ablated).
        kernel: `(kh, kw)` expanded weights; `(1, 1)`, the mean gradient summed over positions, where there are none.
        offset, stride: place of the kernel: see `ExpandedWeights`.
    """

    source: str
    target: str
    sign: Annotated[int, Meta(ge=-1, le=1)]
    weight: float
    strength: float
    kernel: NDArray[np.float32]
    offset: tuple[int, int] = (0, 0)
    stride: tuple[int, int] = (1, 1)
    low: bool = False

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Edge):
            return NotImplemented
        return _edge_json(self) == _edge_json(other)


@dataclass(frozen=True)
class FoldedSum:
    """The sum of a unit by expanded weights, had the bottlenecks and maxima in between been passed as if linear.

    `total + bias + remainder = pre_activation` of its `Rest`.

    Attributes:
        total: what all sources of the layer before contribute by their expanded weights; bias: what the biases do.
        remainder: what the ReLUs of the bottlenecks change.
    """

    total: float
    bias: float
    remainder: float


@dataclass(frozen=True)
class Rest:
    """What a node of the circuit receives besides its edges in the circuit.

    `edges + strength = total` and `total + bias + remainder = pre_activation`, all means over the positions traced.
    Where the sources are latents, `edges + strength + error = total`.

    Attributes:
        target: address of the node.
        count: number of sources without an edge in the circuit; strength: the sum of their contributions.
        total: the sum of all sources' contributions.
        bias: what the biases between the two layers contribute.
        remainder: what the ReLUs in between (and inputs that bypass the source layer) change; zero
            where the network is linear between the two layers.
        pre_activation: the target's value before its own ReLU.
        folded: the sum by the kernels alone, of a unit that was traced through bottlenecks or whose contributions are
            not those of the kernels (integrated gradients); else None.
        error: where the sources are latents, what the part of the activations that their dictionary does not
            reconstruct contributes; else None.
    """

    target: str
    count: Count
    strength: float
    total: float
    bias: float
    remainder: float
    pre_activation: float
    folded: FoldedSum | None = None
    error: float | None = None

    @property
    def nonlinear(self) -> float:
        """`|remainder| / |pre_activation|`: how much of the response the contributions leave out; near 0 is good."""
        return _ratio(self.remainder, self.pre_activation)

    @property
    def folded_nonlinear(self) -> float | None:
        """The same of the folded reading."""
        return None if self.folded is None else _ratio(self.folded.remainder, self.pre_activation)


def _ratio(part: float, whole: float) -> float:
    return abs(part) / abs(whole) if whole else (math.inf if part else 0.0)


@dataclass(frozen=True)
class Circuit(Result):
    """A target unit, the units that make it fire, and the weights between them.

    Attributes:
        target: address; model: name of the model.
        nodes: the target first, then by depth and strength.
        edges: for each target in the order in which its sources were chosen, the strongest first.
        rest: one per node that has edges into it.
        layers: the target's layer, then the source layers going back.
        by: how sources were ranked; see `circuits.trace`.
        score: None until scored.
        provenance: weights digest, data digest, seed, versions, arguments.
    """

    target: str
    model: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    rest: tuple[Rest, ...]
    layers: tuple[str, ...]
    by: str = "weights"
    score: Score | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        names = [n.label or n.unit.rpartition("/")[2] for n in self.nodes if n.role != "target"]
        units = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        return f"Circuit({self.target} from {len(names)} units by {self.by}: {units}; {self.score or 'not scored'})"

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: one for each edge, with the mean activation and the label of its source."""
        names = ("source", "target", "strength", "weight")
        nodes = [self.node(edge.source) for edge in self.edges]
        rows = [{name: getattr(edge, name) for name in names} for edge in self.edges]
        return [row | {"activation": n.activation, "label": n.label} for row, n in zip(rows, nodes, strict=True)]

    def scored(self, images: Any = None, **options: Any) -> Circuit:
        """The circuit with its score on some images, by default those it was traced on; see `circuits.score`."""
        if "scorer" not in self._given:
            raise CircuitsError("a loaded circuit is scored by circuit.with_score(circuits.score(model, circuit, ...))")
        images = self._given["images"] if images is None else images
        return self.with_score(self._given["scorer"](self._given["model"], self, images=images, **options))

    def with_score(self, score: Score) -> Circuit:
        """The circuit with a score of `circuits.score`."""
        return remember(replace(self, score=score), **self._given)

    def node(self, unit: str) -> Node:
        """The node at an address (with or without the model's name).

        Raises:
            CircuitsError: the circuit has no such node.
        """
        for node in self.nodes:
            if is_address_of(unit, node.unit):
                return node
        raise CircuitsError(f"the circuit of {self.target} has no node {shorten(unit)!r}")

    def into(self, unit: str) -> list[Edge]:
        """Edges into a node, strongest first."""
        return [e for e in self.edges if e.target == unit]

    def parents(self, unit: str | None = None) -> list[Node]:
        """Sources of a node (default: of the target), strongest first."""
        return [self.node(e.source) for e in self.into(unit or self.target)]

    def label(self, labels: Mapping[str, str]) -> Circuit:
        """The circuit with names on its nodes: address -> label."""
        nodes = tuple(replace(n, label=labels.get(n.unit, n.label)) for n in self.nodes)
        return remember(replace(self, nodes=nodes), **self._given)

    # -- JSON -------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The circuit as one JSON document (schema 1)."""
        return {
            "schema": SCHEMA,
            "target": self.target,
            "model": self.model,
            "by": self.by,
            "layers": list(self.layers),
            "nodes": [_node_json(n) for n in self.nodes],
            "edges": [_edge_json(e) for e in self.edges],
            "rest": [_rest_json(r) for r in self.rest],
            "score": None if self.score is None else score_json(self.score),
            "provenance": plain_values(dict(self.provenance)),
        }

    describe = to_json

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Circuit:
        """Read what `to_json` wrote.

        Raises:
            CircuitsError: another schema, or parts missing.
        """
        if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
            schema = data.get("schema") if isinstance(data, Mapping) else type(data).__name__
            raise CircuitsError(f"not a circuit of schema {SCHEMA} (found {shorten(schema)}); trace it again")
        try:
            # files hold these, whatever they are where they are left out in Python
            if not all({"offset", "stride"} <= e.keys() for e in data["edges"]) or any(
                "examples" not in n for n in data["nodes"]
            ):
                raise ValueError("a node has no examples, or an edge no offset or stride")
            return read_as({f.name: data[f.name] for f in fields(cls)}, cls, _kernel)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CircuitsError(f"the circuit document is incomplete or damaged: {shorten(error)}") from error

    def save(self, path: str | Path) -> Path:
        """Write the JSON document, over a file of that name; a killed run leaves the old file or the new one."""
        text = json.dumps(self.to_json(), indent=1, allow_nan=False)
        write_text_atomically(Path(path), text)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Circuit:
        """Read a circuit file.

        Raises:
            CircuitsError: no such file, or not a circuit.
        """
        try:
            data = read_json(path)
        except FileNotFoundError as error:
            raise CircuitsError(f"no circuit file {shorten(path)}; circuits trace ... --out DIR writes one") from error
        except (OSError, ValueError) as error:
            raise CircuitsError(f"{shorten(path)} is not a circuit file: {shorten(error)}") from error
        return cls.from_json(data)

    def to_networkx(self) -> networkx.DiGraph:
        """The circuit as a `networkx.DiGraph`: node attributes as in `Node`, edge attributes as in `Edge`."""
        import networkx

        graph = networkx.DiGraph(target=self.target, model=self.model, by=self.by)
        for node in self.nodes:
            graph.add_node(node.unit, **{f.name: getattr(node, f.name) for f in fields(node) if f.name != "unit"})
        for edge in self.edges:
            values = {f.name: getattr(edge, f.name) for f in fields(edge) if f.name not in ("source", "target")}
            graph.add_edge(edge.source, edge.target, **values)
        return graph

    def diff(self, other: Circuit) -> CircuitDiff:
        """What `other` has and this has not, and the reverse; strengths of the edges both have.

        Raises:
            CircuitsError: no circuit, or one of another model, whose units have other addresses.
        """
        if not isinstance(other, Circuit):
            raise CircuitsError(f"diff takes two circuits, not a {type(other).__name__}; Circuit.load(path) reads one")
        if self.model != other.model:
            raise CircuitsError(
                f"a circuit of {self.model} and one of {other.model} have no unit in common: addresses are compared; "
                "circuits.match finds units that correspond"
            )
        mine, theirs = {n.unit for n in self.nodes}, {n.unit for n in other.nodes}
        my_edges = {(e.source, e.target): e.strength for e in self.edges}
        their_edges = {(e.source, e.target): e.strength for e in other.edges}
        return CircuitDiff(
            only_first=tuple(n.unit for n in self.nodes if n.unit not in theirs),
            only_second=tuple(n.unit for n in other.nodes if n.unit not in mine),
            both=tuple(n.unit for n in self.nodes if n.unit in theirs),
            edges_only_first=tuple(sorted(my_edges.keys() - their_edges.keys())),
            edges_only_second=tuple(sorted(their_edges.keys() - my_edges.keys())),
            edges_both=tuple(
                (s, t, my_edges[s, t], their_edges[s, t]) for s, t in sorted(my_edges.keys() & their_edges.keys())
            ),
            strengths_only_first=tuple(my_edges[e] for e in sorted(my_edges.keys() - their_edges.keys())),
            strengths_only_second=tuple(their_edges[e] for e in sorted(their_edges.keys() - my_edges.keys())),
            by=(self.by, other.by),
        )


@dataclass(frozen=True)
class CircuitDiff(Result):
    """Difference of two circuits, by addresses.

    Attributes:
        only_first, only_second, both: units.
        edges_only_first, edges_only_second: `(source, target)`.
        edges_both: `(source, target, strength in the first, strength in the second)`.
        strengths_only_first, strengths_only_second: of the edges that only one has, in their order.
        by: how each was traced. Strengths of two methods count from different values, and are not compared as they are.
    """

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    both: tuple[str, ...]
    edges_only_first: tuple[tuple[str, str], ...]
    edges_only_second: tuple[tuple[str, str], ...]
    edges_both: tuple[tuple[str, str, float, float], ...]
    strengths_only_first: tuple[float, ...] = ()
    strengths_only_second: tuple[float, ...] = ()
    by: tuple[str, str] = ("", "")

    def records(self) -> list[dict[str, Any]]:
        """A row for each edge, with its strength in each circuit that has it."""
        rows = [{"source": s, "target": t, "in": "both", "first": a, "second": b} for s, t, a, b in self.edges_both]
        for side, edges, strengths in (
            ("first", self.edges_only_first, self.strengths_only_first),
            ("second", self.edges_only_second, self.strengths_only_second),
        ):
            rows += [
                {"source": s, "target": t, "in": side, side: strength}
                for (s, t), strength in zip(edges, strengths, strict=True)
            ]
        return rows


def diff(first: Circuit, second: Circuit) -> CircuitDiff:
    """What two circuits of a model share and what only one of them has: of two methods, images, targets, or layers.

    Two networks are compared by `sae.diff`, which stands above this package.

    Raises:
        CircuitsError: see `Circuit.diff`; they are no circuits.
    """
    for value in (first, second):
        if not isinstance(value, Circuit):
            raise CircuitsError(
                f"diff compares two circuits, not a {type(value).__name__}; Circuit.load(path) reads one, and "
                "sae.diff(a, b, layer=...) compares two networks"
            )
    return first.diff(second)


def _node_json(node: Node) -> dict[str, Any]:
    data = plain_values({f.name: getattr(node, f.name) for f in fields(node) if f.name not in ("examples", "label")})
    data["examples"] = [plain_values(vars(e)) for e in node.examples]
    if node.label is not None:
        data["label"] = node.label
    return dict(data)


def _edge_json(edge: Edge) -> dict[str, Any]:
    data = {f.name: plain_values(getattr(edge, f.name)) for f in fields(edge) if f.name not in ("kernel", "low")}
    # float32 written in full, so that reading gives the same bits
    data["kernel"] = [[float(v) for v in row] for row in edge.kernel]
    return {**data, "low": True} if edge.low else data


def _kernel(_kind: Any, rows: Any) -> NDArray[np.float32]:
    kernel = np.asarray(rows, dtype=np.float32)
    if kernel.ndim != 2:
        raise ValueError("a kernel is a table of numbers")
    return kernel


def _rest_json(rest: Rest) -> dict[str, Any]:
    values = {name: value for name, value in vars(rest).items() if value is not None}
    return values if rest.folded is None else {**values, "folded": vars(rest.folded)}
