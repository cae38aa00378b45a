"""Measures and solids: closed forms, planted structures under rotation, scale and noise, and bad input."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from sae.superposition import (
    PLATEAUS,
    ToyError,
    components,
    dimensions_per_feature,
    feature_dimensionality,
    interference,
    plateau_of,
    polytopes,
    recognize,
    solids,
    stickiness,
)
from sae.superposition.polytopes import antiprism, polygon, simplex


def turned(rows: Tensor, seed: int = 0) -> Tensor:
    """The same directions under a random rotation."""
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(rows.shape[1], rows.shape[1], generator=generator, dtype=torch.float64)
    return rows @ torch.linalg.qr(square).Q


@pytest.mark.parametrize("corners", range(2, 9))
def test_corners_of_polygons_and_simplices_have_their_closed_form_dimensionality(corners: int) -> None:
    flat = feature_dimensionality(turned(polygon(corners)))
    torch.testing.assert_close(flat, torch.full((corners,), 2 / corners if corners > 2 else 0.5, dtype=torch.float64))
    full = feature_dimensionality(turned(simplex(corners)) * 7)
    torch.testing.assert_close(full, torch.full((corners,), (corners - 1) / corners, dtype=torch.float64))


def test_the_antiprism_is_a_tight_frame_of_three_eighths_and_not_a_cube() -> None:
    rows = antiprism()
    torch.testing.assert_close(rows.T @ rows, torch.eye(3, dtype=torch.float64) * 8 / 3)
    torch.testing.assert_close(feature_dimensionality(rows), torch.full((8,), 3 / 8, dtype=torch.float64))
    cube = torch.tensor([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=torch.float64)
    torch.testing.assert_close(feature_dimensionality(cube), torch.full((8,), 3 / 8, dtype=torch.float64))
    assert recognize(cube)[0] == "unrecognized" and recognize(rows)[0] == "square antiprism"


def test_orthogonal_directions_have_a_dimension_each_whatever_their_lengths() -> None:
    rows = torch.diag(torch.tensor([1.0, 1e-20, 1e20, 3.0]))
    torch.testing.assert_close(feature_dimensionality(rows), torch.ones(4, dtype=torch.float64))
    assert float(interference(torch.diag(torch.tensor([1.0, 1e-3, 1e3]))).max()) == pytest.approx(0, abs=1e-8)
    assert float(dimensions_per_feature(torch.eye(3))) == 1


def test_a_direction_of_no_length_has_no_dimension() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-2.0, 0.0]])
    torch.testing.assert_close(feature_dimensionality(rows), torch.tensor([1 / 5, 0.0, 4 / 5], dtype=torch.float64))
    torch.testing.assert_close(interference(rows), torch.tensor([4.0, 0.0, 1.0], dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 12), d=st.integers(1, 8), rank=st.integers(1, 8), seed=st.integers(0, 10_000))
def test_dimensionalities_never_add_up_to_more_than_the_rank(n: int, d: int, rank: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    low = min(rank, n, d)
    rows = torch.randn(n, low, generator=generator, dtype=torch.float64) @ torch.randn(
        low, d, generator=generator, dtype=torch.float64
    )
    rows *= torch.rand(n, 1, generator=generator, dtype=torch.float64) * 3
    dims = feature_dimensionality(rows)
    assert float(dims.sum()) <= low + 1e-9
    assert float(dims.min()) >= 0 and float(dims.max()) <= 1 + 1e-12


def test_measures_take_a_batch_of_models_at_once() -> None:
    rows = torch.randn(3, 4, 5, 2, generator=torch.Generator().manual_seed(0))
    for measure in (feature_dimensionality, interference):
        one = torch.stack([torch.stack([measure(rows[i, j]) for j in range(4)]) for i in range(3)])
        torch.testing.assert_close(measure(rows), one)


def test_interference_equals_its_definition() -> None:
    rows = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for i in range(6):
        unit = rows[i] / rows[i].norm()
        expected = sum(float(unit @ rows[j]) ** 2 for j in range(6) if j != i)
        assert float(interference(rows)[i]) == pytest.approx(expected, rel=1e-10)
        dims = float(rows[i] @ rows[i]) / sum(float(unit @ rows[j]) ** 2 for j in range(6))
        assert float(feature_dimensionality(rows)[i]) == pytest.approx(dims, rel=1e-10)


def test_plateaus_are_the_dimensionalities_of_their_solids() -> None:
    for name, at in PLATEAUS.items():
        if name in solids():
            assert float(feature_dimensionality(solids()[name])[0]) == pytest.approx(at, abs=1e-12)
    assert plateau_of(torch.tensor([[1.0, 0.51], [0.375, 0.45]])) == ["dedicated", "digon", "square antiprism", None]
    share, chance = stickiness(torch.tensor([1.0, 0.5, 0.45, 0.55]))
    # seven plateaus of width 0.04, the two at the ends half, the two at 0.375 and 0.4 overlapping by 0.015
    assert share == 0.5 and chance == pytest.approx(5 * 0.04 + 2 * 0.02 - 0.015)


@pytest.mark.parametrize("name", list(solids()))
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_solid_is_recognized_rotated_scaled_noisy_and_shuffled(name: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corners = solids()[name]
    rows = turned(torch.cat([corners, torch.zeros(len(corners), 3, dtype=torch.float64)], dim=1), seed)
    rows = rows[torch.randperm(len(rows), generator=generator)]
    rows = rows * (0.5 + torch.rand(len(rows), 1, generator=generator, dtype=torch.float64)) * 10.0 ** (seed * 3 - 3)
    clean = recognize(rows)
    assert clean[:2] == (name, corners.shape[1]) and clean[2] < 1e-12
    noise = torch.randn(rows.shape, generator=generator, dtype=torch.float64) * rows.norm(dim=1, keepdim=True)
    noisy = recognize(rows + 0.01 * noise)
    assert noisy[0] == name and clean[2] < noisy[2] < 0.12


def test_random_directions_are_no_solid() -> None:
    generator = torch.Generator().manual_seed(0)
    names = [recognize(torch.randn(k, 3, generator=generator))[0] for k in (4, 5, 6, 7, 8) for _ in range(40)]
    assert names.count("unrecognized") == len(names)


def test_several_solids_in_one_space_are_separated() -> None:
    planted = torch.block_diag(polygon(5), simplex(4), simplex(2), torch.eye(1), antiprism(), torch.zeros(2, 1))
    order = torch.randperm(len(planted), generator=torch.Generator().manual_seed(2))
    found = polytopes(turned(planted)[order], least_norm=1e-6)
    assert sorted(p.name for p in found) == ["dedicated", "digon", "pentagon", "square antiprism", "tetrahedron"]
    where = {p.name: {int(order[i]) for i in p.members} for p in found}
    assert where["pentagon"] == set(range(5)) and where["tetrahedron"] == {5, 6, 7, 8}
    assert where["digon"] == {9, 10} and where["dedicated"] == {11} and where["square antiprism"] == set(range(12, 20))
    dims = {p.name: (p.dimensions, p.dimensionality) for p in found}
    assert dims["square antiprism"] == (3, pytest.approx(3 / 8)) and dims["pentagon"] == (2, pytest.approx(2 / 5))


def test_a_square_is_two_pairs_and_an_octahedron_three() -> None:
    assert [p.name for p in polytopes(turned(polygon(4)))] == ["digon", "digon"]
    octahedron = torch.cat([torch.eye(3), -torch.eye(3)])
    assert [p.name for p in polytopes(octahedron)] == ["digon"] * 3


def test_groups_are_connected_by_interference() -> None:
    tilt = math.radians(20)
    rows = torch.tensor([[1.0, 0, 0], [math.sin(tilt), math.cos(tilt), 0], [0, 0, 2.0], [0, 0, 0]])
    assert components(rows, least=0.3) == [[0, 1], [2]]
    assert components(rows, least=0.4) == [[0], [1], [2]]
    assert components(rows, least=0.3, least_norm=1.5) == [[2]]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: feature_dimensionality(torch.ones(3)), "one a row"),
        (lambda: feature_dimensionality(torch.ones(3, 2, dtype=torch.int64)), "float"),
        (lambda: feature_dimensionality([[1.0]]), "list"),  # type: ignore[arg-type]
        (lambda: feature_dimensionality(torch.ones(0, 2)), "no directions"),
        (lambda: interference(torch.tensor([[math.nan, 1.0]])), "not numbers"),
        (lambda: recognize(torch.ones(2, 3, 4)), "one set"),
        (lambda: recognize(torch.zeros(2, 3)), "no corner of a solid"),
        (lambda: recognize(torch.eye(2), tolerance=0.6), "tolerance"),
        (lambda: plateau_of(torch.ones(2), tolerance=0.0), "tolerance"),
        (lambda: simplex(1), "at least 2"),
    ],
)
def test_invalid_directions_are_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ToyError, match=says):
        make()
