"""An attribution graph as data: units, errors and the image, what each gives the target, and through which others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from circuits.common.examples import Example
from circuits.errors import CircuitsError, shorten
from circuits.network.address import is_address_of
from circuits.tracing.circuit import Circuit, CircuitDiff, Edge, Node, Rest
from zoo.common.checks import whole_number
from zoo.common.reading import Count, read_as
from zoo.common.results import Result, plain, remember
from zoo.common.stored import Stored

if TYPE_CHECKING:
    import networkx

Kind = Literal["target", "unit", "rest", "error", "input"]


@dataclass(frozen=True)
class GraphNode:
    """A node of an attribution graph.

    Attributes:
        unit: address; `layer:rest` for the other units of a layer together, `layer:error` for what a dictionary leaves
            over, `input` for the image.
        kind: what it is; layer: the layer, or the dictionary, of which.
        value: what it gives the target, on average over the images: the sum of its activations times their
            derivatives.
        bias: how much of the value comes from biases and not from other nodes. Of errors and of the image, which have
            no sources, 0.
        activation: the sum of its activations over positions, on average over the images.
        influence: share of the target that goes through it, by sizes of edges, from 0 to 1.
        count: number of units that it stands for.
        examples: where on the images it gives most.
        label: a name.
    """

    unit: str
    kind: Kind
    layer: str
    value: float
    bias: float = 0.0
    activation: float = 0.0
    influence: float = 0.0
    count: int = 1
    examples: tuple[Example, ...] = ()
    label: str | None = None


@dataclass(frozen=True)
class GraphEdge:
    """What a node gives the target through another one, directly: past no other node of the graph.

    Attributes:
        source, target: addresses.
        weight: in the units of the target, on average over the images.
    """

    source: str
    target: str
    weight: float


class _StoredNode(TypedDict):
    unit: str
    kind: str
    layer: str
    value: float
    bias: float
    activation: float
    influence: float
    count: Count
    examples: list[Example]
    label: str | None


class _Document(TypedDict):
    target: str
    model: str
    layers: list[str]
    nodes: list[_StoredNode]
    edges: list[GraphEdge]
    completeness: float
    replacement: float | None
    unexplained: float
    keep: float
    n_images: Count
    provenance: dict[str, Any]


FILES = Stored(
    "the file of an attribution graph",
    "Make the graph again, or give another file",
    mark={"kind": "vision-circuits attribution graph"},
    shape=_Document,
)


@dataclass(frozen=True, eq=False)
class AttributionGraph(Result):
    """Why a target has its value: the nodes that give it, and the edges between them, in the target's own units.

    The value of each node is the sum of the edges into it plus its bias, to rounding; so is the target's.

    Attributes:
        target, model: of what.
        layers: of the units, earliest first; dictionaries as `layer~name`.
        nodes: the image first, then by layer, the target last.
        weights: `(n, n)` of edges, a row for each node and a column for each of its sources.
        completeness, replacement: how much goes through units and not through errors; see `influence`. Of the whole
            graph, before it is pruned.
        unexplained: the largest difference of a layer's sum from what the frozen network computes, as a share.
        keep: share of the influence of units that those that are nodes of their own have.
        n_images: number of images that it is the mean of.
    """

    target: str
    model: str
    layers: tuple[str, ...]
    nodes: tuple[GraphNode, ...]
    weights: NDArray[np.float64]
    completeness: float
    replacement: float
    unexplained: float
    keep: float
    n_images: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        units = [n.label or n.unit.rpartition("/")[2] for n in self.strongest()]
        named = ", ".join(units[:4]) + (", …" if len(units) > 4 else "")
        return (
            f"AttributionGraph({self.target} = {self.nodes[-1].value:.3g} from {len(units)} units: {named}; "
            f"completeness {self.completeness:.2f}, replacement {self.replacement:.2f})"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AttributionGraph) and self.to_json() == other.to_json()

    @property
    def edges(self) -> tuple[GraphEdge, ...]:
        """All edges, those into later nodes last."""
        names = [node.unit for node in self.nodes]
        return tuple(
            GraphEdge(names[s], names[t], float(self.weights[t, s])) for t, s in np.argwhere(self.weights).tolist()
        )

    def node(self, unit: str) -> GraphNode:
        """The node at an address, with or without the model's name.

        Raises:
            CircuitsError: the graph has no such node.
        """
        for node in self.nodes:
            if is_address_of(unit, node.unit):
                return node
        raise CircuitsError(f"the graph of {self.target} has no node {shorten(unit)!r}")

    def into(self, unit: str | None = None) -> list[GraphEdge]:
        """Edges into a node (default: into the target), strongest first."""
        target = self.target if unit is None else self.node(unit).unit
        return sorted((e for e in self.edges if e.target == target), key=lambda e: -abs(e.weight))

    def strongest(self) -> list[GraphNode]:
        """The units, by the size of what they give the target."""
        return sorted((n for n in self.nodes if n.kind == "unit"), key=lambda n: -abs(n.value))

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: one for each edge."""
        return [asdict(edge) for edge in self.edges]

    def label(self, labels: Mapping[str, str]) -> AttributionGraph:
        """The graph with names on its nodes: address -> label."""
        nodes = tuple(replace(n, label=labels.get(n.unit, n.label)) for n in self.nodes)
        return remember(replace(self, nodes=nodes), **self._given)

    # -- as a circuit, and as other formats -----------------------------------------------------------

    def circuit(self, width: int = 6) -> Circuit:
        """The graph as a circuit, which is drawn and compared as any other: the strongest sources of each node.

        Starts at the target, and takes at each node its `width` strongest sources that are units, or the image; what
        is left out is the `Rest` of the node, errors apart.
        """
        whole_number("width", width)
        index = {node.unit: i for i, node in enumerate(self.nodes)}
        order = [self.target]
        edges, rests = [], []
        for name in order:
            row = self.weights[index[name]]
            sources = [i for i in np.argsort(-np.abs(row), kind="stable").tolist() if row[i] != 0]
            drawn = [i for i in sources if self.nodes[i].kind in ("unit", "input")][:width]
            node = self.nodes[index[name]]
            if not sources:
                continue
            order += [self.nodes[i].unit for i in drawn if self.nodes[i].unit not in order]
            edges += [_circuit_edge(self.nodes[i].unit, node.unit, float(row[i])) for i in drawn]
            hidden = [i for i in sources if i not in drawn and self.nodes[i].kind != "error"]
            error = [float(row[i]) for i in sources if self.nodes[i].kind == "error"]
            rests.append(
                Rest(
                    node.unit, sum(self.nodes[i].count for i in hidden), float(row[hidden].sum()), float(row.sum()),
                    node.bias, 0.0, node.value,
                    error=sum(error) if error else None,
                )
            )  # fmt: skip
        steps = [*self.layers[::-1]]
        nodes = []
        for name in order:
            node = self.nodes[index[name]]
            role = "target" if name == self.target else "parent"
            depth = 0 if role == "target" else steps.index(node.layer) + 1 if node.layer in steps else len(steps) + 1
            number = node.unit.rpartition(":")[2].partition("@")[0]
            at = int(number) if number.isdigit() else 0
            nodes.append(Node(name, node.layer, at, role, depth, node.activation, node.examples, node.label))
        nodes.sort(key=lambda n: n.depth)
        layers = tuple(dict.fromkeys(n.layer for n in nodes))
        circuit = Circuit(
            self.target, self.model, tuple(nodes), tuple(edges), tuple(rests), layers, "attribution graph",
            provenance=self.provenance,
        )  # fmt: skip
        return remember(circuit, **self._given)

    def to_networkx(self) -> networkx.DiGraph:
        """A `networkx.DiGraph`: node attributes as in `GraphNode`, the weight of each edge."""
        import networkx

        graph = networkx.DiGraph(target=self.target, model=self.model)
        for node in self.nodes:
            graph.add_node(node.unit, **{k: v for k, v in vars(node).items() if k != "unit"})
        graph.add_weighted_edges_from((e.source, e.target, e.weight) for e in self.edges)
        return graph

    def to_circuit_tracer(self, slug: str = "") -> dict[str, Any]:
        """The graph as circuit-tracer's JSON (schema 1), which its pages and Neuronpedia's draw.

        The fields that agree: units are features, of layers by number; what dictionaries leave over is their error; the
        image, or its patches, are tokens; the target is a logit. A unit summed over positions stands at token 0; the
        rest of a layer is feature -2 there. An influence is cumulative, as theirs is: the share of those from the
        largest down to it. Biases have no place there.

        Args:
            slug: name of the graph there (default: the target's).
        """
        order = np.argsort([-n.influence for n in self.nodes], kind="stable")
        total = max(sum(n.influence for n in self.nodes), float(np.finfo(float).tiny))
        cumulative = np.zeros(len(order))
        cumulative[order] = np.cumsum([self.nodes[i].influence for i in order]) / total
        tokens = [n.unit.rpartition("/")[2] for n in self.nodes if n.kind == "input"]
        nodes = [self._tracer_node(node, i, float(cumulative[i])) for i, node in enumerate(self.nodes)]
        ids = {node.unit: entry["node_id"] for node, entry in zip(self.nodes, nodes, strict=True)}
        images = self.provenance.get("images", "")
        return {
            "metadata": {
                "slug": slug or "".join(c if c.isalnum() else "-" for c in self.target.lower()), "scan": self.model,
                "transcoder_list": list(self.layers), "prompt_tokens": tokens, "prompt": str(images),
                "node_threshold": self.keep, "schema_version": 1,
            },
            "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
            "nodes": nodes,
            "links": [{"source": ids[e.source], "target": ids[e.target], "weight": e.weight} for e in self.edges],
        }  # fmt: skip

    def _tracer_node(self, node: GraphNode, number: int, influence: float) -> dict[str, Any]:
        layer = self.layers.index(node.layer) if node.layer in self.layers else len(self.layers) + 1
        last, position = node.unit.rpartition(":")[2], 0
        at = str(layer)
        if node.kind == "input":
            identity, of, at, feature, position = f"E_0_{number}", "embedding", "E", number, number
        elif node.kind == "error":
            identity, of, feature = f"{layer}_-1_0", "mlp reconstruction error", -1
        elif node.kind == "rest":
            identity, of, feature = f"{layer}_-2_0", "cross layer transcoder", -2
        else:
            index, _, position_of = last.partition("@")
            feature = int(index) if index.isdigit() else 0
            identity, of = f"{layer}_{feature}_{position_of or 0}", "logit"
            if node.kind == "unit":  # their number of a feature is Cantor's pairing of layer and index
                feature = (layer + feature) * (layer + feature + 1) // 2 + feature
                of = "cross layer transcoder"
        return {
            "node_id": identity, "feature": feature, "layer": at, "ctx_idx": position, "feature_type": of,
            "token_prob": 0.0, "is_target_logit": node.kind == "target", "run_idx": 0, "reverse_ctx_idx": 0,
            "jsNodeId": identity, "clerp": node.label or node.unit.rpartition("/")[2], "influence": influence,
            "activation": node.activation if node.kind in ("unit", "rest") else None,
        }  # fmt: skip

    def diff(self, other: AttributionGraph, width: int = 6) -> CircuitDiff:
        """What the circuits of two graphs share, and what only one has: two images, two networks."""
        return self.circuit(width).diff(other.circuit(width))

    # -- JSON -----------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The graph as one JSON document (schema 1)."""
        nodes = [{**vars(n), "examples": [vars(e) for e in n.examples]} for n in self.nodes]
        document = {
            "schema": FILES.schema, **FILES.mark, "target": self.target, "model": self.model, "layers": self.layers,
            "nodes": nodes, "edges": self.records(), "completeness": self.completeness,
            "replacement": self.replacement, "unexplained": self.unexplained, "keep": self.keep,
            "n_images": self.n_images, "provenance": dict(self.provenance),
        }  # fmt: skip
        return plain(document)  # type: ignore[no-any-return]

    describe = to_json

    def save(self, path: str | Path) -> Path:
        """Write the JSON document, over a file of that name, whole or not at all.

        Raises:
            FileError: the file cannot be written.
        """
        path = Path(path).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        FILES.write_json(path, self.to_json())
        return path

    @classmethod
    def load(cls, path: str | Path) -> AttributionGraph:
        """Read what `save` wrote.

        Raises:
            CircuitsError: no such file, a damaged one, or one of something else.
        """
        path = Path(path).expanduser()
        data = FILES.read_document(path)
        if data is None:
            raise FILES.missing(path)
        with FILES.parsing(path):
            nodes = tuple(read_as(node, GraphNode) for node in data["nodes"])
            index = {node.unit: i for i, node in enumerate(nodes)}
            weights = np.zeros((len(nodes), len(nodes)))
            for edge in data["edges"]:
                weights[index[edge["target"]], index[edge["source"]]] = edge["weight"]
            replacement = data["replacement"]
            return cls(
                data["target"], data["model"], tuple(data["layers"]), nodes, weights, data["completeness"],
                float("nan") if replacement is None else replacement, data["unexplained"], data["keep"],
                data["n_images"], data["provenance"],
            )  # fmt: skip


def _circuit_edge(source: str, target: str, weight: float) -> Edge:
    kernel = np.array([[weight]], dtype=np.float32)
    return Edge(source, target, 1 if weight > 0 else -1, weight, weight, kernel, stride=(0, 0))
