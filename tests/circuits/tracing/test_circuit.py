"""A circuit is data: what is written is read again, and what is damaged is refused."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import circuits
from circuits.errors import CircuitsError
from circuits.tracing.circuit import Circuit
from tests import nets


@pytest.fixture(scope="module")
def scored(planted: circuits.Model) -> Circuit:
    images = nets.clutter(8)
    circuit = circuits.trace(planted, f"objects:{nets.CAR}", images=images, depth=2, width=3)
    score = circuits.score(planted, circuit, images=images, random=5)
    named = {f"planted/parts:{nets.WINDOW}": "window", f"planted/objects:{nets.CAR}": "car <b>&"}
    return replace(circuit, score=score).label(named)


def test_a_circuit_reads_back_equal_to_the_bit(scored: Circuit) -> None:
    text = json.dumps(scored.to_json(), allow_nan=False)
    again = Circuit.from_json(json.loads(text))
    assert again == scored
    assert json.dumps(again.to_json()) == text
    for mine, theirs in zip(scored.edges, again.edges, strict=True):
        assert mine.kernel.dtype == theirs.kernel.dtype == np.float32
        np.testing.assert_array_equal(mine.kernel, theirs.kernel)


def test_the_document_has_the_published_keys(scored: Circuit) -> None:
    data = scored.to_json()
    assert data["schema"] == 1
    assert {"target", "model", "nodes", "edges", "rest", "score", "provenance"} <= set(data)
    assert {"unit", "layer", "role"} <= set(data["nodes"][0])
    assert {"source", "target", "sign", "weight", "strength", "kernel"} <= set(data["edges"][0])
    assert data["nodes"][0]["label"] == "car <b>&" and "label" not in data["nodes"][-1]


def test_an_unscored_circuit_reads_back(scored: Circuit) -> None:
    bare = replace(scored, score=None)
    assert Circuit.from_json(json.loads(json.dumps(bare.to_json()))) == bare


def test_a_circuit_file_reads_back(scored: Circuit, tmp_path: Path) -> None:
    path = tmp_path / "circuit.json"
    scored.save(path)
    assert Circuit.load(path) == scored
    scored.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["circuit.json"]  # no temporary file stays


def test_a_killed_save_leaves_the_old_file_whole(
    scored: Circuit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "circuit.json"
    scored.save(path)

    def killed(self: Path, text: str, *args: Any, **kwargs: Any) -> int:
        with open(self, "w", encoding="utf-8") as file:
            file.write(text[: len(text) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        replace(scored, by="ablation").save(path)
    monkeypatch.undo()
    assert Circuit.load(path) == scored
    assert [p.name for p in tmp_path.iterdir()] == ["circuit.json"]


def test_a_circuit_that_is_not_finite_is_not_written(scored: Circuit, tmp_path: Path) -> None:
    path = tmp_path / "circuit.json"
    broken = replace(scored, edges=(replace(scored.edges[0], strength=math.nan), *scored.edges[1:]))
    with pytest.raises((CircuitsError, ValueError)):
        broken.save(path)
    assert not path.exists() and not list(tmp_path.iterdir())


def drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.pop(key)


DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{
        f"no {key}": drop(key)
        for key in ("schema", "target", "model", "by", "layers", "nodes", "edges", "rest", "score")
    },
    "a later schema": lambda d: d.update(schema=2),
    "a schema in words": lambda d: d.update(schema="1"),
    "nodes that are none": lambda d: d.update(nodes=None),
    "a node that is a number": lambda d: d.update(nodes=[3]),
    "a node without a unit": lambda d: d["nodes"][0].pop("unit"),
    "an example without a box": lambda d: d["nodes"][0]["examples"][0].pop("box"),
    "an unknown field": lambda d: d["edges"][0].update(color="red"),
    "a kernel of words": lambda d: d["edges"][0].update(kernel=[["a"]]),
    "a ragged kernel": lambda d: d["edges"][0].update(kernel=[[1.0], [1.0, 2.0]]),
    "a flat kernel": lambda d: d["edges"][0].update(kernel=[1.0, 2.0]),
    "a rest that is a list": lambda d: d.update(rest=[[]]),
    "half a score": lambda d: d["score"].pop("minimality"),
    "a score without its controls": lambda d: d["score"].pop("random_faithfulness"),
    "provenance in words": lambda d: d.update(provenance="none"),
}


@pytest.mark.parametrize("kind", list(DAMAGE))
def test_a_damaged_document_is_refused_with_one_line(kind: str, scored: Circuit) -> None:
    data = copy.deepcopy(scored.to_json())
    DAMAGE[kind](data)
    with pytest.raises(CircuitsError, match="schema|incomplete or damaged") as caught:
        Circuit.from_json(data)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("data", [None, [], "circuit", 3, {}])
def test_what_is_no_document_is_refused(data: object) -> None:
    with pytest.raises(CircuitsError, match="not a circuit of schema 1"):
        Circuit.from_json(data)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe\x00", b'{"schema": 1}', b"null", b"x" * 10_000, b"[" * 10**6]
)
def test_a_file_that_holds_no_circuit_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "circuit.json"
    path.write_bytes(content)
    with pytest.raises(CircuitsError) as caught:
        Circuit.load(path)
    assert len(str(caught.value)) < 400
    with pytest.raises(CircuitsError, match="no circuit file"):
        Circuit.load(tmp_path / "missing.json")
    with pytest.raises(CircuitsError, match="is not a circuit file"):
        Circuit.load(tmp_path)


def test_nodes_are_found_by_address_with_or_without_the_model(scored: Circuit) -> None:
    full = f"planted/parts:{nets.WINDOW}"
    assert scored.node(full) is scored.node(full.partition("/")[2])
    with pytest.raises(CircuitsError, match="has no node 'parts:23'"):
        scored.node("parts:23")


def test_parents_come_strongest_first(scored: Circuit, planted: circuits.Model) -> None:
    images = nets.clutter(8)
    by_mask = circuits.trace(planted, scored.target, images=images, width=3, by="mask")
    ranking = circuits.rank(planted, scored.target, images=images, share=1.0, method="mask")
    assert [e.source for e in by_mask.edges] == list(ranking.units[:3])
    by_weights = circuits.trace(planted, scored.target, images=images, width=3, by="weights")
    strengths = [abs(e.strength) for e in by_weights.edges]
    assert strengths == sorted(strengths, reverse=True) and len(strengths) == 3
    assert [n.unit for n in scored.parents()] == [e.source for e in scored.into(scored.target)]
    assert scored.nodes[0].unit == scored.target and scored.nodes[0].role == "target"
    assert [n.depth for n in scored.nodes] == sorted(n.depth for n in scored.nodes)


def test_labels_stay_where_none_is_given(scored: Circuit) -> None:
    again = scored.label({f"planted/parts:{nets.BODY}": "body"})
    assert again.node(f"parts:{nets.WINDOW}").label == "window" and again.node(f"parts:{nets.BODY}").label == "body"


def test_networkx_has_the_same_nodes_edges_and_attributes(scored: Circuit) -> None:
    graph = scored.to_networkx()
    assert list(graph.nodes) == [n.unit for n in scored.nodes]
    assert {(e.source, e.target) for e in scored.edges} == set(graph.edges)
    edge = scored.edges[0]
    assert graph.edges[edge.source, edge.target]["strength"] == edge.strength
    assert graph.nodes[scored.target]["role"] == "target" and graph.graph["target"] == scored.target


def test_a_circuit_differs_from_itself_in_nothing(scored: Circuit) -> None:
    diff = scored.diff(scored)
    assert (diff.only_first, diff.only_second, diff.edges_only_first, diff.edges_only_second) == ((), (), (), ())
    assert diff.both == tuple(n.unit for n in scored.nodes)
    assert len(diff.edges_both) == len(scored.edges) and all(a == b for *_, a, b in diff.edges_both)


def test_a_difference_names_what_each_has_alone(planted: circuits.Model) -> None:
    images, target = nets.clutter(8), f"objects:{nets.CAR}"
    three = circuits.trace(planted, target, images=images, width=3)
    four = circuits.trace(planted, target, images=images, width=4)
    fourth = four.into(four.target)[-1].source
    diff = three.diff(four)
    assert (diff.only_first, diff.only_second) == ((), (fourth,))
    assert diff.edges_only_second == ((fourth, four.target),)
    strength = four.into(four.target)[-1].strength
    assert diff.records()[-1] == {"source": fourth, "target": four.target, "in": "second", "second": strength}
    assert diff.by == ("gradient", "gradient")
    assert four.diff(three).only_first == (fourth,)
    other = circuits.trace(planted, f"objects:{nets.MIXTURE}", images=images)
    assert three.diff(other).edges_both == ()
    with pytest.raises(CircuitsError, match="a circuit of planted and one of elsewhere have no unit in common"):
        three.diff(replace(four, model="elsewhere"))
    with pytest.raises(CircuitsError, match=r"two circuits, not a str; Circuit.load\(path\)"):
        circuits.diff(three, "circuit.json")  # type: ignore[arg-type]


def test_provenance_says_from_what_a_circuit_was_made(scored: Circuit, planted: circuits.Model) -> None:
    assert scored.provenance["weights"] == planted.digest
    assert {"images", "images_digest", "versions", "depth", "width"} <= set(scored.provenance)
