"""Examples kept while images stream by."""

from __future__ import annotations

import numpy as np
import pytest

from circuits.dataset.reservoir import NO_IMAGE, KeepBest, KeepByStrength, mix, random_tickets, shares

UNITS, PLACES = 5, 400


@pytest.fixture
def offers() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    value = rng.normal(size=(UNITS, PLACES)).astype(np.float32).round(1)  # rounded, so that there are ties
    image = np.arange(PLACES)
    place = rng.integers(0, 50, (UNITS, PLACES))
    ticket = random_tickets(7, image[None], np.arange(UNITS)[:, None])
    return {"value": value, "image": image, "place": place, "ticket": ticket}


def _keep(offers: dict[str, np.ndarray], parts: list[np.ndarray], slots: int = 12) -> KeepBest:
    kept = KeepBest(UNITS, slots)
    for part in parts:
        value, image = offers["value"][:, part], np.broadcast_to(offers["image"][part], (UNITS, len(part)))
        kept.offer(-value.astype(np.float64), image, value, image, offers["place"][:, part])
    return kept


def test_the_best_are_kept_ties_by_image(offers: dict[str, np.ndarray]) -> None:
    kept = _keep(offers, [np.arange(PLACES)])
    for unit in range(UNITS):
        order = sorted(range(PLACES), key=lambda i: (-offers["value"][unit, i], i))[:12]
        assert kept.image[unit].tolist() == order
        assert kept.value[unit].tolist() == offers["value"][unit, order].tolist()
        assert kept.position[unit].tolist() == offers["place"][unit, order].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_neither_order_nor_split_nor_merge_changes_what_is_kept(offers: dict[str, np.ndarray], seed: int) -> None:
    rng = np.random.default_rng(seed)
    order = rng.permutation(PLACES)
    parts = np.split(order, sorted(rng.integers(1, PLACES, 6)))
    whole = _keep(offers, [np.arange(PLACES)])
    pieces = _keep(offers, parts[:3])
    pieces.merge(_keep(offers, parts[3:]))
    for name, array in whole.arrays("k").items():
        np.testing.assert_array_equal(array, pieces.arrays("k")[name])


def test_fewer_than_the_slots_leave_empty_ones() -> None:
    kept = KeepBest(2, 3)
    value = np.array([[1.0, 2.0], [0.0, 5.0]], np.float32)
    rank = np.where(value > 0, -value, np.inf).astype(np.float64)
    images = np.array([[0, 1], [0, 1]])
    kept.offer(rank, images, value, images, images)
    assert kept.image.tolist() == [[1, 0, NO_IMAGE], [1, NO_IMAGE, NO_IMAGE]]


def _by_strength(offers: dict[str, np.ndarray], order: np.ndarray) -> KeepByStrength:
    kept = KeepByStrength(UNITS, 3)
    kept.offer(offers["ticket"][:, order], offers["value"][:, order], offers["image"][order], offers["place"][:, order])
    return kept


def test_a_run_of_steps_holds_the_lowest_tickets_of_all_offered_in_it(offers: dict[str, np.ndarray]) -> None:
    kept = _by_strength(offers, np.arange(PLACES))
    edges = np.append(kept.edges(), np.inf)
    for unit in range(UNITS):
        for begin, end in ((0, 80), (38, 41), (40, 43)):
            value = offers["value"][unit]
            inside = np.flatnonzero((value > 0) & (value >= edges[begin]) & (value < edges[end]))
            wanted = inside[offers["ticket"][unit, inside].argsort()][:3]
            found = kept.between(begin, end, unit, 3)
            assert found[1].tolist() == wanted.tolist()
            assert found[0].tolist() == value[wanted].tolist()
            assert found[2].tolist() == offers["place"][unit, wanted].tolist()


@pytest.mark.parametrize("seed", range(3))
def test_strengths_too_are_kept_whatever_the_order(offers: dict[str, np.ndarray], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(PLACES)
    whole, pieces = _by_strength(offers, np.arange(PLACES)), _by_strength(offers, order[:150])
    pieces.merge(_by_strength(offers, order[150:]))
    for name, array in whole.arrays("k").items():
        np.testing.assert_array_equal(array, pieces.arrays("k")[name])


def test_steps_part_at_one_one_and_a_half_two_three() -> None:
    step = KeepByStrength.step(np.array([1.0, 1.49, 1.5, 1.99, 2.0, 2.9, 3.0, 1e-30, 1e30]))
    assert (step - step[0]).tolist()[:7] == [0, 0, 1, 1, 2, 2, 3]
    assert step[7] == 0 and step[8] == KeepByStrength.STEPS - 1
    edges = KeepByStrength.edges()
    assert (KeepByStrength.step(edges[1:]) == np.arange(1, KeepByStrength.STEPS)).all()


def test_hashes_differ_by_every_word_and_spread_evenly() -> None:
    image = np.arange(20_000)
    assert len(np.unique(mix(0, image))) == len(image)
    assert not np.array_equal(mix(0, image), mix(1, image))
    assert not np.array_equal(mix(0, image, 1), mix(0, image, 2))
    spread = shares(3, image)
    assert 0 <= spread.min() and spread.max() < 1
    counts, _ = np.histogram(spread, bins=20, range=(0, 1))
    assert counts.min() > 850 and counts.max() < 1150  # 1000 each, give or take five standard deviations
    neighbors = np.corrcoef(shares(3, image)[:-1], shares(3, image)[1:])[0, 1]
    assert abs(neighbors) < 0.03
