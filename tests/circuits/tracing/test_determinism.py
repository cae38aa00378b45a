"""The same seed gives the same bits, and the batch size gives no other result."""

from __future__ import annotations

import json

import pytest
import torch

import circuits
from tests import nets


def trace_json(model: circuits.Model, **options: object) -> str:
    images = nets.clutter(10)
    circuit = circuits.trace(model, f"objects:{nets.MIXTURE}", images=images, depth=2, width=4, **options)  # type: ignore[arg-type]
    return json.dumps(circuit.to_json())


@pytest.mark.parametrize("by", ["weights", "attribution", "ablation"])
def test_tracing_twice_gives_the_same_bits(planted: circuits.Model, by: str) -> None:
    assert trace_json(planted, by=by) == trace_json(nets.planted(), by=by)


def test_scoring_twice_gives_the_same_bits_and_another_seed_others(planted: circuits.Model) -> None:
    images = nets.clutter(10)
    circuit = circuits.trace(planted, f"objects:{nets.MIXTURE}", images=images, width=4)
    first = circuits.score(planted, circuit, images=images, random=5, seed=3)
    assert circuits.score(nets.planted(), circuit, images=images, random=5, seed=3) == first
    assert circuits.score(planted, circuit, images=images, random=5, seed=4) != first
    fewer = [circuits.score(planted, circuit, images=images, random=2, seed=3, limit=5) for _ in range(2)]
    assert fewer[0] == fewer[1] and fewer[0].n_images == 5


def test_finding_twice_gives_the_same_bits(planted: circuits.Model) -> None:
    a, b = nets.clutter(8), nets.clutter(8, seed=1)
    first = circuits.find(planted, positive=a, negative=b, seed=3)
    again = circuits.find(nets.planted(), positive=a, negative=b, seed=3)
    assert again == first
    other = circuits.find(planted, positive=a, negative=b, seed=4)
    assert sorted(r.unit for r in other.rows) == sorted(r.unit for r in first.rows)
    assert [(r.low, r.high) for r in other.rows] != [(r.low, r.high) for r in first.rows]


def test_no_verb_touches_the_global_random_state(planted: circuits.Model) -> None:
    images = nets.clutter(6)
    before = torch.get_rng_state()
    circuit = circuits.trace(planted, f"objects:{nets.MIXTURE}", images=images)
    circuits.score(planted, circuit, images=images, random=2)
    circuits.find(planted, positive=images, negative=nets.clutter(6, seed=1), layer="parts")
    with circuits.edit(planted, [circuits.Ablate("parts:0", to="resample")], reference=images):
        circuits.capture(planted, images, "objects")
    assert torch.equal(torch.get_rng_state(), before)


def test_results_do_not_depend_on_the_batch_size(planted: circuits.Model) -> None:
    images = nets.clutter(10)
    target = f"objects:{nets.MIXTURE}"
    large = circuits.trace(planted, target, images=images, width=4, batch_size=10)
    small = circuits.trace(planted, target, images=images, width=4, batch_size=3)
    assert [n.unit for n in small.nodes] == [n.unit for n in large.nodes]
    assert [e.strength for e in small.edges] == pytest.approx([e.strength for e in large.edges], rel=1e-4)
    a = circuits.score(planted, large, images=images, random=5, batch_size=10)
    b = circuits.score(planted, large, images=images, random=5, batch_size=3)
    assert b.faithfulness == pytest.approx(a.faithfulness, abs=1e-5)
    assert b.random_faithfulness == pytest.approx(a.random_faithfulness, abs=1e-5)
    assert b.completeness == pytest.approx(a.completeness, abs=1e-5)
    other = nets.clutter(7, seed=1)
    first = circuits.find(planted, positive=images, negative=other, layer="parts", batch_size=16)
    second = circuits.find(planted, positive=images, negative=other, layer="parts", batch_size=3)
    assert [r.unit for r in first.rows] == [r.unit for r in second.rows]
    assert [r.auc for r in first.rows] == [r.auc for r in second.rows]
    each = [circuits.capture(planted, images, "objects", batch_size=size)["objects"] for size in (1, 3, 10)]
    torch.testing.assert_close(each[0], each[2])
    torch.testing.assert_close(each[1], each[2])
