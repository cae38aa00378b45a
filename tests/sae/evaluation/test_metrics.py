"""Every metric against a closed form; how data are cut into batches changes nothing."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

import sae
from sae.evaluation import metrics
from sae.evaluation.baselines import ChannelDictionary, RandomDictionary
from tests.sae.planted import acts, features, scrambled


def test_the_mean_explains_nothing_and_the_input_everything() -> None:
    x = acts(200) + 5
    mean = x.mean(dim=0)
    assert metrics.fvu(x, mean.expand_as(x)) == pytest.approx(1)
    assert metrics.fvu(x, x) == 0 and metrics.explained_variance(x, x) == 1
    assert metrics.fvu(x, torch.zeros_like(x)) > 1
    half = mean + 0.5 * (x - mean)
    assert metrics.fvu(x, half) == pytest.approx(0.25) and metrics.shrinkage(x, half) == pytest.approx(0.5)
    assert metrics.shrinkage(x, mean + 2 * (x - mean)) == pytest.approx(2)


def test_a_projection_does_not_shrink_however_little_it_explains() -> None:
    x = acts(2000)
    x = x - x.mean(dim=0)
    direction = F.normalize(torch.randn(10, generator=torch.Generator().manual_seed(0)), dim=0)
    projected = (x @ direction)[:, None] * direction
    assert metrics.fvu(x, projected) > 0.8 and metrics.shrinkage(x, projected) == pytest.approx(1, abs=1e-5)


def test_doubling_or_splitting_the_data_changes_no_number() -> None:
    # in float64: products of other sizes round in another order
    model, x = scrambled(sae.TopK(latents=24, k=3), dtype=torch.float64), acts(97, dtype=torch.float64) + 3
    whole = metrics.reconstruction(model, x, baselines=False)
    twice = metrics.reconstruction(model, torch.cat([x, x]), baselines=False)
    pieces = metrics.reconstruction(model, [x[:1], x[1:40], x[40:]], baselines=False)
    small = metrics.reconstruction(model, x, baselines=False, batch_size=5)
    for other in (twice, pieces, small):
        for name in ("fvu", "l0", "cosine", "shrinkage", "dead"):
            assert getattr(other, name) == pytest.approx(getattr(whole, name), rel=1e-9), name
        torch.testing.assert_close(other.density, whole.density)


def test_one_pass_equals_the_functions() -> None:
    model, x = scrambled(sae.TopK(latents=24, k=3)).requires_grad_(False), acts(97) + 3
    found = metrics.reconstruction(model, x, baselines=False, batch_size=10)
    latents, out = model.encode(x), model(x)
    assert found.fvu == pytest.approx(metrics.fvu(x, out))
    assert found.l0 == metrics.l0(latents) and found.cosine == pytest.approx(metrics.cosine(x, out))
    assert found.shrinkage == pytest.approx(metrics.shrinkage(x, out))
    torch.testing.assert_close(found.density, metrics.density(latents))
    assert found.dead == metrics.dead_fraction(found.density) and found.samples == 97
    other = torch.linspace(-1, 1, 10)
    moved = metrics.reconstruction(model, x, baselines=False, mean=other, batch_size=10)
    assert moved.fvu == pytest.approx(metrics.fvu(x, out, other), rel=1e-6)
    assert moved.shrinkage == pytest.approx(metrics.shrinkage(x, out, other), rel=1e-6)


def test_a_far_mean_costs_no_digits() -> None:
    x = acts(500, dtype=torch.float64) + 1e6
    tally = metrics.Tally("far")
    for batch in x.split(50):
        tally.add(batch, batch + 0.1, torch.tensor([len(batch)] * 2))
    assert tally.result().fvu == pytest.approx(metrics.fvu(x, x + 0.1), rel=1e-8)


def test_counts_of_activity_are_counts() -> None:
    latents = torch.tensor([[1.0, 0, 0, 2], [0, 0, 0, 3]])
    assert metrics.l0(latents) == 1.5
    assert metrics.density(latents).tolist() == [0.5, 0, 0, 1]
    assert metrics.dead_fraction(metrics.density(latents)) == 0.5
    assert metrics.log10_density(torch.tensor([0.5, 0, 0, 1])).tolist() == pytest.approx([-0.30103, -10, -10, 0])
    counts, edges = metrics.density_histogram(torch.tensor([0.5, 0.0, 0.0, 1.0, 1e-12]), bins=10)
    assert counts.tolist() == [3, 0, 0, 0, 0, 0, 0, 0, 0, 2] and edges.tolist() == list(range(-10, 1))


def test_cosines_are_those_of_the_vectors_as_they_are() -> None:
    x = torch.tensor([[1.0, 0], [1, 1]])
    assert metrics.cosine(x, torch.tensor([[0.0, 2], [3, 3]])) == pytest.approx(0.5)


def test_dictionaries_are_compared_whatever_the_order_and_length_of_their_rows() -> None:
    a = features(0, 20, 12)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    scaled = a[order] * torch.linspace(0.1, 4, 20)[:, None]
    assert metrics.matched_cosine(a, scaled) == pytest.approx(1)
    assert metrics.mmcs(-scaled, a) == pytest.approx(1) and metrics.recovered(scaled, a) == 1
    assert metrics.matched_cosine(a, -a) < 0.8  # a latent writes one way only
    assert metrics.matched_cosine(a, a[:5]) == pytest.approx(1)
    half = torch.cat([a[:10], features(5, 10, 12)])
    assert 0.6 < metrics.matched_cosine(a, half) < 0.95
    assert metrics.stability([a, scaled, half]) == pytest.approx((1 + 2 * metrics.matched_cosine(a, half)) / 3)
    two = torch.tensor([[1.0, 0], [0.8, 0.6]])
    # greedily, both would take the first; one to one: 1 + .6 beats .8 + 0
    assert metrics.matched_cosine(two, torch.eye(2)) == pytest.approx((1 + 0.6) / 2)


@pytest.mark.parametrize(("d", "count", "m", "expected"), [(64, 128, 128, 0.345), (128, 256, 512, 0.283)])
def test_random_directions_are_as_close_as_theory_says(d: int, count: int, m: int, expected: float) -> None:
    assert metrics.random_mmcs(m, features(0, count, d)) == pytest.approx(expected, abs=0.02)


def test_the_channel_baseline_keeps_the_channels_farthest_from_their_mean() -> None:
    dictionary = ChannelDictionary(torch.tensor([1.0, 1.0, 1.0]), k=1)
    x = torch.tensor([[1.0, 4.0, 2.0], [-3.0, 1.0, 0.0]])
    assert dictionary.encode(x).tolist() == [[0, 3, 0], [-4, 0, 0]]
    assert dictionary.decode(dictionary.encode(x)).tolist() == [[1, 4, 1], [-3, 1, 1]]


def test_baselines_have_as_many_active_and_channels_win_where_channels_are_the_features() -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(2000, 16, generator=generator) < 0.1) * torch.rand(2000, 16, generator=generator)
    model = sae.build(sae.TopK(latents=32, k=4), 16)
    with torch.no_grad():
        model.encoder[:16], model.decoder[:16] = torch.eye(16), torch.eye(16)
        model.encoder[16:] = 0.0
    found = metrics.reconstruction(model, x)
    channels, random = found.baselines["channels"], found.baselines["random"]
    assert channels.l0 == pytest.approx(round(found.l0)) and random.l0 <= round(found.l0)
    assert channels.fvu < 0.2 < 0.5 < random.fvu < 1
    assert len(channels.density) == 16 and len(random.density) == 32
    text = json.loads(json.dumps(found.describe()))
    assert text["baselines"]["channels"]["fvu"] == channels.fvu and sum(text["log10_density"]["counts"]) == 32


def test_the_random_dictionary_gets_the_best_common_factor() -> None:
    x = acts(300)
    dictionary = RandomDictionary(x.mean(dim=0), 40, 5)
    out = dictionary.decode(dictionary.encode(x))
    assert metrics.shrinkage(x, out) == pytest.approx(1, abs=1e-4)
    assert torch.equal(RandomDictionary(x.mean(dim=0), 40, 5).write, dictionary.write)
    assert not torch.equal(RandomDictionary(x.mean(dim=0), 40, 5, seed=1).write, dictionary.write)


def test_metrics_refuse_inputs_that_they_are_not_defined_for() -> None:
    model, x = scrambled(sae.TopK(latents=24, k=3)), acts()
    for call, message in (
        (lambda: metrics.fvu(x, x[:5]), r"are not both \(N, d\)"),
        (lambda: metrics.fvu(torch.ones(5, 2), torch.ones(5, 2)), "no variance to explain"),
        (lambda: metrics.reconstruction(model, torch.ones(5, 10)), "no variance to explain"),
        (lambda: metrics.reconstruction(model, x[:0]), "empty"),
        (lambda: metrics.reconstruction(model, []), "nothing was counted"),
        (lambda: metrics.reconstruction(model, iter([x])), "read the activations twice"),
        (lambda: metrics.mmcs(x, x[:, :3]), "two dictionaries are"),
        (lambda: metrics.stability([x]), "two dictionaries or more"),
    ):
        with pytest.raises(sae.SAEError, match=message):
            call()
