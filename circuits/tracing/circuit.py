"""A circuit as data: units, the weights between them, the rest of each sum, and how well it explains its target."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from circuits.common.examples import Example, StoredExample, read_example
from circuits.errors import CircuitsError, shorten
from zoo.common.files import write_text_atomically
from zoo.common.reading import Count, fits, read_json
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
    index: int
    role: str
    depth: int
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
    sign: int
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
    count: int
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
class AblatedResponse:
    """The target's response with every unit of the source layers ablated: what a circuit without units has.

    Attributes:
        mean, low, high: over positions and images.
        clean_mean, clean_low, clean_high: the same with nothing ablated.
        explained_variance: of the clean response; near 0 where the ablated response is a usual one, far
            below 0 where it is not.
    """

    mean: float
    low: float
    high: float
    clean_mean: float
    clean_low: float
    clean_high: float
    explained_variance: float

    @property
    def in_range(self) -> bool:
        """Whether the ablated network's response stays between the lowest and the highest clean one."""
        return self.clean_low <= self.low and self.high <= self.clean_high


@dataclass(frozen=True)
class SizeComparison:
    """A circuit beside others of its size, on images that had no part in choosing those.

    Shares are as in `size_curve`: 0 with every unit of the source layers ablated, 1 with none.

    Attributes:
        size, n_units: units of the circuit; units of its source layers.
        share, low, high: what the circuit keeps, with its 95 % interval over images.
        ranked: what the first `size` units by gradient x (activation - baseline) keep.
        ranked_size: how many of these keep as much as the circuit; None where the curve stays below it.
        mask, mask_low, mask_high: what a mask learned for just that size keeps.
        n_images: tried on; n_learned: others, on which mask and ranking were made.
    """

    size: int
    n_units: int
    share: float
    low: float
    high: float
    ranked: float
    ranked_size: int | None
    mask: float
    mask_low: float
    mask_high: float
    n_images: int
    n_learned: int

    @property
    def of_mask(self) -> float | None:
        """The circuit's share over the mask's; None where the mask keeps nothing."""
        return self.share / self.mask if self.mask > 0 else None


@dataclass(frozen=True)
class Score(Result):
    """How much of the target's response the circuit carries, against random circuits of the same size.

    Attributes:
        faithfulness: explained variance of the target's response, over positions and images, when every
            unit of the source layers outside the circuit is set to its baseline.
        completeness: the part of that variance which is lost when only the circuit's units are set to the baseline.
        random_faithfulness, random_completeness: the same for random circuits with as many units per layer.
        faithfulness_percentile, completeness_percentile: percent of the circuits in `control_faithfulness` and
            `control_completeness` that score lower.
        minimality: address -> faithfulness lost when that node alone leaves the circuit.
        n_images, seed: on what.
        strong_faithfulness, strong_completeness: for random circuits among the units that act most on the target;
            empty in files of earlier versions.
        matched_faithfulness: for random circuits of units that are as active as the circuit's own.
        baseline: what ablated units were set to.
        ablated: the target's response with everything ablated; None in files of earlier versions.
        comparison: beside a learned mask and a ranking of its size; None where that was not asked for.
        errors_kept: where sources are latents, whether the errors of their dictionaries were left as they are.
    """

    faithfulness: float
    completeness: float
    faithfulness_percentile: float
    completeness_percentile: float
    random_faithfulness: tuple[float, ...]
    random_completeness: tuple[float, ...]
    minimality: Mapping[str, float]
    n_images: int
    seed: int
    strong_faithfulness: tuple[float, ...] = ()
    strong_completeness: tuple[float, ...] = ()
    matched_faithfulness: tuple[float, ...] = ()
    baseline: str = "mean"
    ablated: AblatedResponse | None = None
    comparison: SizeComparison | None = None
    errors_kept: bool | None = None

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: each unit, and the faithfulness lost without it."""
        return [{"unit": unit, "faithfulness_lost": lost} for unit, lost in self.minimality.items()]

    def __repr__(self) -> str:
        return f"Score({self.in_words}, on {self.n_images} images)"

    @property
    def in_words(self) -> str:
        """Faithfulness and completeness beside those of random circuits, in one line."""
        return (
            f"faithfulness {self.faithfulness:.2f} (above {self.faithfulness_percentile:.0f} % of {self.n_random} "
            f"{self.control}), completeness {self.completeness:.2f} (above {self.completeness_percentile:.0f} %)"
        )

    @property
    def control_faithfulness(self) -> tuple[float, ...]:
        """Of the random circuits that the percentile counts: those among the strongest units, where there are some."""
        return self.strong_faithfulness or self.random_faithfulness

    @property
    def control_completeness(self) -> tuple[float, ...]:
        """See `control_faithfulness`."""
        return self.strong_completeness or self.random_completeness

    @property
    def control(self) -> str:
        """What these random circuits are, in words."""
        return f"random circuits {'among the strongest' if self.strong_faithfulness else 'of any'} units"

    @property
    def n_random(self) -> int:
        """Number of random circuits compared with."""
        return len(self.random_faithfulness)


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
            if unit in (node.unit, node.unit.rpartition("/")[2]):
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
            "score": None if self.score is None else _score_json(self.score),
            "provenance": _plain(dict(self.provenance)),
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
            fits(data, _Document)
            return cls(
                target=data["target"],
                model=data["model"],
                by=data["by"],
                layers=tuple(data["layers"]),
                nodes=tuple(_read_node(n) for n in data["nodes"]),
                edges=tuple(_read_edge(e) for e in data["edges"]),
                rest=tuple(_read_rest(r) for r in data["rest"]),
                score=None if data["score"] is None else _read_score(data["score"]),
                provenance=dict(data["provenance"]),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CircuitsError(f"the circuit document is incomplete or damaged: {shorten(error)}") from error

    def save(self, path: str | Path) -> Path:
        """Write the JSON document; a killed run leaves the old file or the new one."""
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
        """What `other` has and this has not, and the reverse; strengths of the edges both have."""
        mine, theirs = {n.unit for n in self.nodes}, {n.unit for n in other.nodes}
        my_edges = {(e.source, e.target): e.strength for e in self.edges}
        their_edges = {(e.source, e.target): e.strength for e in other.edges}
        both = sorted(my_edges.keys() & their_edges.keys())
        return CircuitDiff(
            only_first=tuple(n.unit for n in self.nodes if n.unit not in theirs),
            only_second=tuple(n.unit for n in other.nodes if n.unit not in mine),
            both=tuple(n.unit for n in self.nodes if n.unit in theirs),
            edges_only_first=tuple(sorted(my_edges.keys() - their_edges.keys())),
            edges_only_second=tuple(sorted(their_edges.keys() - my_edges.keys())),
            edges_both=tuple((s, t, my_edges[s, t], their_edges[s, t]) for s, t in both),
        )


@dataclass(frozen=True)
class CircuitDiff(Result):
    """Difference of two circuits, by addresses.

    Attributes:
        only_first, only_second, both: units.
        edges_only_first, edges_only_second: `(source, target)`.
        edges_both: `(source, target, strength in the first, strength in the second)`.
    """

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    both: tuple[str, ...]
    edges_only_first: tuple[tuple[str, str], ...]
    edges_only_second: tuple[tuple[str, str], ...]
    edges_both: tuple[tuple[str, str, float, float], ...]


def diff(first: Circuit, second: Circuit) -> CircuitDiff:
    """What two circuits share and what only one of them has: two methods, two sets of images, two models' layers.

    >>> diff(circuit, circuit).only_first  # doctest: +SKIP
    ()
    """
    return first.diff(second)


class _Node(TypedDict):
    unit: str
    layer: str
    index: Count
    role: str
    depth: Count
    activation: float
    examples: list[StoredExample]
    label: NotRequired[str | None]


class _Edge(TypedDict):
    source: str
    target: str
    sign: Literal[-1, 0, 1]
    weight: float
    strength: float
    kernel: list[list[float]]
    offset: tuple[int, int]
    stride: tuple[int, int]
    low: NotRequired[bool]


class _Rest(TypedDict):
    target: str
    count: Count
    strength: float
    total: float
    bias: float
    remainder: float
    pre_activation: float
    folded: NotRequired[dict[str, float] | None]
    error: NotRequired[float | None]


class _Score(TypedDict):
    faithfulness: float
    completeness: float
    faithfulness_percentile: float
    completeness_percentile: float
    random_faithfulness: list[float]
    random_completeness: list[float]
    minimality: dict[str, float]
    n_images: Count
    seed: Count
    strong_faithfulness: NotRequired[list[float]]
    strong_completeness: NotRequired[list[float]]
    matched_faithfulness: NotRequired[list[float]]
    baseline: NotRequired[str]
    ablated: NotRequired[dict[str, float] | None]
    comparison: NotRequired[dict[str, float | None] | None]
    errors_kept: NotRequired[bool]


class _Document(TypedDict):
    target: str
    model: str
    by: str
    layers: list[str]
    nodes: list[_Node]
    edges: list[_Edge]
    rest: list[_Rest]
    score: _Score | None
    provenance: dict[str, Any]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _node_json(node: Node) -> dict[str, Any]:
    data = _plain({f.name: getattr(node, f.name) for f in fields(node) if f.name not in ("examples", "label")})
    data["examples"] = [_plain(vars(e)) for e in node.examples]
    if node.label is not None:
        data["label"] = node.label
    return dict(data)


def _read_node(data: Mapping[str, Any]) -> Node:
    return Node(**{**data, "examples": tuple(map(read_example, data["examples"]))})


def _edge_json(edge: Edge) -> dict[str, Any]:
    data = {f.name: _plain(getattr(edge, f.name)) for f in fields(edge) if f.name not in ("kernel", "low")}
    # float32 written in full, so that reading gives the same bits
    data["kernel"] = [[float(v) for v in row] for row in edge.kernel]
    return {**data, "low": True} if edge.low else data


def _read_edge(data: Mapping[str, Any]) -> Edge:
    kernel = np.asarray(data["kernel"], dtype=np.float32)
    if kernel.ndim != 2:
        raise ValueError("a kernel is a table of numbers")
    return Edge(**{**data, "kernel": kernel, "offset": tuple(data["offset"]), "stride": tuple(data["stride"])})


def _rest_json(rest: Rest) -> dict[str, Any]:
    values = {name: value for name, value in vars(rest).items() if value is not None}
    return values if rest.folded is None else {**values, "folded": vars(rest.folded)}


def _read_rest(data: Mapping[str, Any]) -> Rest:
    folded = data["folded"] if "folded" in data else None
    return Rest(**{**data, "folded": None if folded is None else FoldedSum(**folded)})


def _score_json(score: Score) -> dict[str, Any]:
    values = {name: value for name, value in score.__getstate__().items() if name not in ("comparison", "errors_kept")}
    if score.comparison is not None:
        values["comparison"] = vars(score.comparison)
    if score.errors_kept is not None:
        values["errors_kept"] = score.errors_kept
    if score.ablated is None:  # of an earlier version: as it was written
        later = ("strong_faithfulness", "strong_completeness", "matched_faithfulness", "baseline", "ablated")
        return {name: _plain(value) for name, value in values.items() if name not in later}
    return dict(_plain({**values, "ablated": vars(score.ablated)}))


def _read_score(data: Mapping[str, Any]) -> Score:
    lists = {name: tuple(value) for name, value in data.items() if isinstance(value, list)}
    ablated, comparison = data.get("ablated"), data.get("comparison")
    parts = {
        "ablated": None if ablated is None else AblatedResponse(**ablated),
        "comparison": None if comparison is None else SizeComparison(**comparison),
    }
    return Score(**{**data, **lists, **parts})
