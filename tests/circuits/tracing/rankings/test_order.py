"""The order in which each next unit adds most to those before it, where responses are sums of what units do."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from circuits.tracing.rankings.unit_scores import UnitScores, by_gain


def scores_of(changes: Tensor) -> UnitScores:
    """Of what each unit does to the response `(C, positions)`: covariance with the sum, and size, in its variance."""
    whole = changes.sum(dim=0)
    return UnitScores(
        changes @ whole / whole.square().sum(), (changes.square().sum(dim=1) / whole.square().sum()).sqrt()
    )


def kept(changes: Tensor, units: list[int]) -> float:
    whole = changes.sum(dim=0)
    return 1 - float((whole - changes[units].sum(dim=0)).square().sum() / whole.square().sum())


def test_the_first_unit_is_the_one_that_keeps_most_alone() -> None:
    changes = torch.randn(12, 40, generator=torch.Generator().manual_seed(0)).double()
    alone = [kept(changes, [unit]) for unit in range(12)]
    assert by_gain(scores_of(changes), 1) == [max(range(12), key=lambda unit: alone[unit])]


def test_a_large_unit_that_leads_away_from_the_response_is_not_the_first() -> None:
    """Two large units cancel: by magnitude they come first, and each alone is worse than none."""
    signal, noise = torch.zeros(6).double(), torch.zeros(6).double()
    signal[0], noise[1] = 1.0, 5.0
    changes = torch.stack([noise, -noise, 0.6 * signal, 0.4 * signal])
    scores = scores_of(changes)
    assert scores.magnitude.argmax() in (0, 1) and kept(changes, [0]) < -20
    assert by_gain(scores, 1) == [2] and kept(changes, [2]) == pytest.approx(0.84)


def test_it_stops_to_push_where_it_would_overshoot() -> None:
    """Eleven units push by .2, six pull by .2: by signed share all that push come first, up to 2.2 of the response."""
    changes = torch.cat([torch.full((11, 1), 0.2), torch.full((6, 1), -0.2)]).double()
    order = by_gain(scores_of(changes), 17)
    assert sorted(order) == list(range(17)) and order[:4] == [0, 1, 2, 3]
    shares = [float(changes[order[:n]].sum()) for n in range(1, 18)]
    assert max(shares) <= 1.2 + 1e-6 and shares[-1] == pytest.approx(1.0)


def test_it_is_close_to_the_best_circuit_of_each_size() -> None:
    generator = torch.Generator().manual_seed(1)
    mean = {"gain": 0.0, "magnitude": 0.0, "signed": 0.0}
    for _ in range(20):
        common = torch.randn(30, generator=generator).double()
        changes = torch.randn(8, 30, generator=generator).double() + torch.randn(8, 1, generator=generator) * common
        scores = scores_of(changes)
        for size in (2, 3, 5):
            best = max(kept(changes, list(units)) for units in itertools.combinations(range(8), size))
            mean["gain"] += best - kept(changes, by_gain(scores, size))
            mean["magnitude"] += best - kept(changes, scores.magnitude.argsort(descending=True)[:size].tolist())
            mean["signed"] += best - kept(changes, scores.signed.argsort(descending=True)[:size].tolist())
    assert mean["gain"] < 0.8 * mean["magnitude"] and mean["gain"] < mean["signed"]


def test_without_a_share_to_explain_the_order_is_by_magnitude() -> None:
    scores = UnitScores(torch.tensor([0.1, -0.2, 0.0]), torch.tensor([0.3, 0.1, 0.5]))
    assert by_gain(scores, 2) == [2, 0]
