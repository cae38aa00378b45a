"""The order in which each next unit adds most to those before it, where responses are sums of what units do."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

import circuits
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.baselines import Mean
from circuits.tracing.rankings.gain import by_gain, gain_order
from circuits.tracing.rankings.unit_scores import UnitScores, unit_scores
from circuits.tracing.target import target_of
from tests import nets
from zoo.images.sources import open_images


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


def linear_reader(seed: int) -> tuple[circuits.Model, nn.Conv2d]:
    """Twenty-four channels, each with a weight on the only unit of the layer after; and that layer."""
    torch.manual_seed(seed)
    last = nn.Conv2d(24, 1, 1)
    return nets.wrap(nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), last), 12), last


def test_beyond_sixteen_each_next_unit_is_the_one_whose_loss_is_measured_to_cost_most() -> None:
    """Where the response is a sum, by trying every unit, in plain PyTorch."""
    model, last = linear_reader(0)
    images = nets.pictures(8, 12)
    acts = model.module[1](model.module[0](model.input.normalize(images))).detach()
    parts = (last.weight[0] * acts).detach().double()  # what each channel gives, less its mean where it is ablated
    parts = parts - parts.mean(dim=(0, 2, 3), keepdim=True)
    ablation = Ablation(model, target_of(model, "2:0"), ["1"], open_images(images), Mean())
    scores = unit_scores(ablation, "gradient")["1"]
    order = gain_order(ablation, scores, 22)
    assert order[:16] == by_gain(scores, 16) == gain_order(ablation, scores, 16)
    for size in range(16, 22):
        errors = {
            c: float((parts.sum(dim=1) - parts[:, [*order[:size], c]].sum(dim=1)).square().sum())
            for c in set(range(24)) - set(order[:size])
        }
        assert order[size] == min(errors, key=lambda c: errors[c])


def test_what_keeps_a_target_silent_is_found_where_a_circuit_overshoots() -> None:
    """Exciters with a common background that inhibitors take away: it is only there where the target is silent."""
    generator = torch.Generator().manual_seed(0)
    exciters, inhibitors = 40, 8
    signal = torch.rand(20, exciters, 6, 6, generator=generator)
    there = (torch.rand(20, 1, 6, 6, generator=generator) < 0.3).float()
    background = (1 - there) * 2
    images = torch.cat([signal * there + background, background.expand(-1, inhibitors, -1, -1)], dim=1) / 3
    last = nn.Conv2d(exciters + inhibitors, 1, 1, bias=False)
    with torch.no_grad():
        last.weight[:, :exciters], last.weight[:, exciters:] = 1.0, -exciters / inhibitors
    model = nets.wrap(nn.Sequential(nn.Identity(), last, nn.ReLU()), 6, channels=exciters + inhibitors)
    ablation = Ablation(model, target_of(model, "2:0"), ["0"], open_images(images), Mean())
    scores = unit_scores(ablation, "gradient")["0"]
    alone, anew = (
        ablation.keep({"0": set(order)}) for order in (by_gain(scores, 32), gain_order(ablation, scores, 32))
    )
    assert alone < 0.8 and anew > 0.99
