"""Geometry of directions: planted structure is found, directions that mean nothing are like their control."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import circuits
from circuits.network.basis import Directions
from sae.superposition import ToyError, components, geometry
from sae.superposition.polytopes import polygon, simplex

sharing = importlib.import_module("sae.superposition.geometry")  # the package has the function of that name


def random(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted(n: int = 150, d: int = 64, seed: int = 0) -> Tensor:
    """Random directions; 0 to 2 a triangle, 3 and 4 antipodal, 5 and 6 one feature twice."""
    rows = random(n, d, seed)
    basis = torch.linalg.qr(random(d, d, seed + 1)).Q
    rows[:3] = 5 * simplex(3) @ basis[:2]
    rows[3], rows[4] = basis[2], -2 * basis[2]
    rows[5], rows[6] = basis[3], basis[3] + 0.1 * basis[4]
    return rows


def test_planted_groups_are_detected_and_the_control_has_none() -> None:
    found = geometry(planted())
    assert {(p.name, p.members) for p in found.polytopes} == {("triangle", (0, 1, 2)), ("digon", (3, 4))}
    assert {(0, 1, 2), (3, 4), (5, 6)} <= set(found.groups)
    assert found.twins == 1 and found.control.twins == 0 and not found.control.polytopes
    assert found.describe()["polytopes"] == {"triangle": 1, "digon": 1}


def test_random_directions_are_like_their_control() -> None:
    found = geometry(random(400, 64, seed=7))
    assert found.describe()["beyond_chance"] < 0.04
    assert np.median(found.dimensionality) == pytest.approx(np.median(found.control.dimensionality), rel=0.02)
    assert not found.polytopes and found.rank == 64
    assert float(found.dimensionality.sum()) <= found.rank + 1e-9


def test_neighbors_are_the_largest_cosines_and_effects_those_of_a_step() -> None:
    rows = planted(40, 16)
    found = geometry(rows, neighbors=5, units=[f"layer~mine:{i}" for i in range(40)])
    unit = rows / rows.norm(dim=1, keepdim=True)
    cosines = unit @ unit.T
    cosines.fill_diagonal_(0)
    for i in (0, 3, 20):
        shared = found.shares_with(f"layer~mine:{i}")
        largest = cosines[i].abs().sort(descending=True).values[:5]
        torch.testing.assert_close(torch.tensor([abs(s.cosine) for s in shared]).double(), largest, rtol=0, atol=1e-6)
        for s in shared:
            assert s.cosine == pytest.approx(float(cosines[i, s.index]), abs=1e-6)
            # a step along i, read along the other, in shares of the other's own step
            other = rows[s.index]
            assert s.effect == pytest.approx(float(rows[i] @ other / (other @ other)), rel=1e-9)
            assert s.unit == f"layer~mine:{s.index}" and s.beyond_chance == (abs(s.cosine) > found.chance)
    # 4 is -2 times 3: a step of 3 is minus half a step of 4
    assert found.shares_with(3)[0].index == 4 and found.shares_with(3)[0].effect == pytest.approx(-0.5)
    assert found.shares_with(3)[0].beyond_chance


def test_a_direction_is_never_its_own_neighbor() -> None:
    found = geometry(torch.eye(4), neighbors=9)
    assert found.neighbors.shape == (4, 3)
    assert all(i not in row for i, row in enumerate(found.neighbors.tolist()))


def test_a_toy_models_features_in_few_dimensions_need_a_threshold() -> None:
    rows = torch.block_diag(polygon(5), simplex(4), simplex(2))
    found = geometry(rows @ torch.linalg.qr(random(6, 6)).Q, least=0.15)
    assert sorted(p.name for p in found.polytopes) == ["digon", "pentagon", "tetrahedron"]
    assert sorted(map(len, found.groups)) == [2, 4, 5]
    np.testing.assert_allclose(found.dimensionality, [0.4] * 5 + [0.75] * 4 + [0.5] * 2)


def test_a_basis_is_read_and_written_along_its_own_directions() -> None:
    written, read = random(10, 6), random(10, 6, seed=1)
    found = geometry(Directions(read, written), neighbors=9)
    np.testing.assert_allclose(found.lengths, written.norm(dim=1))
    shared = found.shares_with(0)[0]
    j = shared.index
    expected = float(written[0] @ read[j] / (written[j] @ read[j]))
    assert shared.effect == pytest.approx(expected)


def test_the_shuffled_control_keeps_the_mean_of_all_directions() -> None:
    rows = random(200, 32) + 3.0  # all lean to one side: near each other, but not by any feature
    free, kept = geometry(rows), geometry(rows, control="shuffled")
    assert free.describe()["beyond_chance"] == 1
    assert kept.describe()["beyond_chance"] < 0.05
    assert kept.control.kind == "shuffled" and np.median(kept.control.dimensionality) < 0.02


def test_the_same_seed_gives_the_same_control() -> None:
    first, again, other = (geometry(random(50, 8), seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.control.nearest, again.control.nearest)
    assert not np.array_equal(first.control.nearest, other.control.nearest)


def test_groups_are_all_that_large_cosines_join_however_they_are_cut_into_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = random(300, 12, seed=3)
    monkeypatch.setattr(sharing, "_EDGES", 7)
    monkeypatch.setattr(sharing, "_ROWS", 11)
    for least in (0.75, 0.8, 0.85):
        found = geometry(rows, least=least)
        assert [list(g) for g in found.groups] == [g for g in components(rows, least=least) if len(g) > 1]
        unit = torch.nn.functional.normalize(rows, dim=1)
        assert found.twins == int(((unit @ unit.T).triu(1) > sharing.TWINS).sum())


def test_twins_are_counted_also_where_groups_start_nearer() -> None:
    rows = torch.tensor([[1.0, 0, 0], [0.93, (1 - 0.93**2) ** 0.5, 0], [0, 0, 1.0]])
    found = geometry(rows, least=0.95)
    assert found.twins == 1 and found.groups == ()


def test_a_thousand_pairs_are_a_thousand_digons() -> None:
    rows = random(1000, 256)
    found = geometry(torch.cat([rows, -3 * rows]), least=0.9)
    assert found.describe()["polytopes"] == {"digon": 1000}
    assert found.groups == tuple((i, i + 1000) for i in range(1000))


def test_the_measures_of_one_direction_are_ready_for_json_beside_the_control() -> None:
    found = geometry(planted(), neighbors=3, units=[f"layer~mine:{i}" for i in range(150)])
    told = json.loads(json.dumps(found.about("layer~mine:0")))
    assert told["group"] == ["layer~mine:1", "layer~mine:2"] and told["group_size"] == 3
    assert told["polytope"]["name"] == "triangle" and told["polytope"]["units"] == [f"layer~mine:{i}" for i in range(3)]
    assert len(told["shares_with"]) == 3 and told["directions"] == 150 and told["control"] == "random"
    near, _, far = told["shares_with"]
    assert near["cosine"] == pytest.approx(-0.5) and near["percentile"] == 100 and near["beyond_chance"]
    # the third neighbor is one that is near by chance: about as near as nearest neighbors of the control
    assert 0 <= far["percentile"] < 100 and not far["beyond_chance"]
    assert far["percentile"] == pytest.approx(100 * (found.control.nearest < abs(far["cosine"])).mean())
    alone = found.about(20)
    assert alone["group_size"] == 1 and alone["group"] == [] and alone["polytope"] is None
    below = (found.control.dimensionality < found.dimensionality[20]).mean()
    assert alone["dimensionality_percentile"] == pytest.approx(100 * below)


def test_a_layers_weights_have_a_geometry() -> None:
    """A branch of the built-in network: most of its units lie nearer to each other than weights mixed up do."""
    model = circuits.load("scenes", device="cpu")
    conv = dict(model.module.named_modules())["mixed3b_3x3_pre"]
    assert isinstance(conv, torch.nn.Conv2d)
    found = geometry(conv.weight.flatten(1), control="shuffled")
    assert len(found) == conv.out_channels and found.dimensions == conv.weight[0].numel()
    assert found.describe()["beyond_chance"] > 0.3


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: geometry(torch.ones(3)), "one a row"),
        (lambda: geometry(torch.ones(1, 3)), "at least two"),
        (lambda: geometry(torch.ones(2, 2, 2)), "at least two"),
        (lambda: geometry("mixed3a"), "directions"),  # type: ignore[arg-type]
        (lambda: geometry(torch.tensor([[1.0, 0], [0, 0]])), "direction 1 has length 0"),
        (lambda: geometry(torch.eye(3), units=["a"]), "1 names for 3"),
        (lambda: geometry(torch.eye(3), neighbors=0), "neighbors=0"),
        (lambda: geometry(torch.eye(3), least=1.0), "least=1"),
        (lambda: geometry(torch.eye(3), control="none"), "shuffled"),  # type: ignore[arg-type]
        (lambda: geometry(torch.eye(3)).shares_with(3), "0 to 2"),
        (lambda: geometry(torch.eye(3)).about(-1), "0 to 2"),
        (lambda: geometry(torch.eye(3), units=["a:1", "a:2", "b:3"]).shares_with("a:9"), "Nearest: a:"),
    ],
)
def test_what_has_no_geometry_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ToyError, match=says):
        make()
