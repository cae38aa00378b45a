"""Dictionaries on hidden layers of toy models: what they must find, what they cannot, and the controls beside it."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch

import sae
from circuits.errors import CircuitsError
from sae.superposition import (
    HiddenStream,
    Recovery,
    Solution,
    ToyError,
    ToyModel,
    excess_kurtosis,
    feature_cosines,
    recovery,
    sample,
)
from sae.superposition.polytopes import polygon
from sae.superposition.sae_recovery import CONTROLS


def planted(density: float, rows: torch.Tensor | None = None) -> Solution:
    """A toy model that was not trained but put together: 8 features as 4 antipodal pairs in 4 dimensions, turned."""
    if rows is None:
        turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0))).Q
        rows = torch.cat([turn, -turn])
    n, m = rows.shape
    model = ToyModel(n, m, density)
    return Solution(model, rows.T.float(), rows.float(), torch.zeros(n), 0.0)


def learned(solution: Solution, *configs: sae.SAEConfig, steps: int = 400) -> list[sae.SAE]:
    runs = sae.train(HiddenStream(solution, 256), list(configs), steps=steps, lr=5e-3, report_every=steps)
    return [run.sae for run in runs]


def test_kurtosis_is_the_features_own_and_changes_sign_at_two_fifths() -> None:
    for p in (1.0, 0.5, 0.1):
        x = sample(ToyModel(1, 1, p), 400_000)[:, 0].double()
        centered = x - x.mean()
        measured = float(centered.pow(4).mean() / centered.square().mean() ** 2 - 3)
        assert excess_kurtosis(p) == pytest.approx(measured, abs=0.01 + 0.02 * abs(measured))
    assert excess_kurtosis(1.0) == pytest.approx(-6 / 5)  # of a uniform distribution
    assert excess_kurtosis(0.40) > 0 > excess_kurtosis(0.42)


def test_an_opposite_direction_does_not_recover_a_feature() -> None:
    learned_rows = torch.tensor([[3.0, 0.0], [0.6, 0.8]])
    true = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]])
    torch.testing.assert_close(feature_cosines(learned_rows, true), torch.tensor([1.0, -0.6, 0.8], dtype=torch.float64))


def test_sparse_antipodal_pairs_are_recovered_by_one_latent_each_and_dense_features_are_not() -> None:
    """Eight features on four lines: with signs, in which PCA could not tell the two of a line apart."""
    (sparse,) = learned(planted(0.05), sae.TopK(latents=16, k=1))
    found = feature_cosines(sparse.write, planted(0.05).directions)
    assert float(found.min()) > 0.95
    dense = planted(1.0, torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0))).Q)
    (mixed,) = learned(dense, sae.TopK(latents=16, k=3))
    control = feature_cosines(torch.randn(16, 4, generator=torch.Generator().manual_seed(1)), dense.directions)
    assert float(feature_cosines(mixed.write, dense.directions).mean()) < float(control.mean()) + 0.05
    # and yet the hidden layer is reconstructed: reconstruction says nothing about features here
    assert sae.metrics.reconstruction(mixed, next(HiddenStream(dense, 4096, 9)), baselines=False).fvu < 0.1


def test_five_features_of_a_pentagon_are_recovered_in_two_dimensions() -> None:
    solution = planted(0.03, polygon(5))
    (found,) = learned(solution, sae.TopK(latents=5, k=1, seed=3), steps=600)
    assert float(feature_cosines(found.write, solution.directions).min()) > 0.95


def test_the_stream_is_the_hidden_layer_and_resumes_at_a_position() -> None:
    solution = planted(0.2)
    stream = HiddenStream(solution, 32, seed=4)
    first = [next(stream).clone() for _ in range(40)]
    assert all(x.shape == (32, 4) for x in first) and not torch.equal(first[0], first[16])
    stream.seek({**stream.tell(), "batch": 17})
    assert torch.equal(next(stream), first[17]) and stream.tell()["batch"] == 18
    assert torch.equal(next(HiddenStream(solution, 32, seed=4)), first[0])
    assert not torch.equal(next(HiddenStream(solution, 32, seed=5)), first[0])
    with pytest.raises(sae.TrainingError, match="another toy model"):
        stream.seek(HiddenStream(solution, 16, seed=4).tell())
    # every vector is W x of some features: for orthogonal pairs, at most one of a pair's two sides is above 0
    every = torch.cat(first) @ solution.weights
    torch.testing.assert_close(every[:, :4], -every[:, 4:], rtol=0, atol=1e-6)
    assert isinstance(stream, sae.Stream)


def test_the_stream_without_features_has_the_same_mean_and_covariance() -> None:
    solution = planted(0.3, polygon(3))
    real = next(HiddenStream(solution, 200_000)).double()
    normal = next(HiddenStream(solution, 200_000, normal=True)).double()
    torch.testing.assert_close(normal.mean(dim=0), real.mean(dim=0), rtol=0, atol=0.01)
    torch.testing.assert_close(normal.T.cov(), real.T.cov(), rtol=0.03, atol=0.003)
    centered = (normal - normal.mean(dim=0)) / normal.std(dim=0)
    assert float((centered.pow(4).mean(dim=0) - 3).abs().max()) < 0.1


@pytest.fixture(scope="module")
def small() -> Recovery:
    options = {"steps": 1200, "sae_steps": 350, "batch": 256, "lr": 5e-3, "seeds": 1, "runs": 1, "importance": 0.8}
    dictionaries = [sae.TopK(latents=24, k=1), sae.TopK(latents=24, k=2)]
    return recovery(12, 6, densities=[1.0, 0.05], dictionaries=dictionaries, device="cpu", **options)  # type: ignore[arg-type]


def test_features_are_recovered_where_they_are_sparse_and_not_where_they_are_dense(small: Recovery) -> None:
    assert small.represented[0, 0] == 6 and small.represented[1, 0] > 6
    assert small.recovered[0, 1, 0] > 0.8 and small.mmcs[0, 1, 0] > 0.95
    assert small.recovered[:, 0, 0].max() < 0.2
    # sparse: all controls are left behind; dense: none of them is
    assert (small.control_recovered[:, 1] < 0.5).all()
    assert small.mmcs[:, 0, 0].max() < small.control_mmcs[:, 0, 0].max() + 0.1
    assert small.active[0, 0] == 6 and small.active[1, 0] == pytest.approx(0.05 * small.represented[1, 0])
    assert small.l0[0, :, 0] == pytest.approx(1, abs=0.6)


def test_recovery_is_ready_for_json_with_its_controls(small: Recovery) -> None:
    described = json.loads(json.dumps(small.describe()))
    row = described["rows"][1]
    assert row["density"] == 0.05 and set(row["controls"]) == set(CONTROLS)
    assert row["dictionaries"]["topk-24-k1"]["recovered"] == small.recovered[0, 1, 0]
    assert described["rows"][0]["excess_kurtosis"] < 0 < row["excess_kurtosis"]
    assert described["provenance"]["sae_steps"] == 350


def test_the_same_seed_finds_the_same() -> None:
    options = {"densities": [0.1], "dictionaries": [sae.TopK(latents=8, k=1)], "steps": 20, "seeds": 1, "device": "cpu"}
    first, again, other = (recovery(4, 2, seed=seed, **options) for seed in (0, 0, 1))  # type: ignore[arg-type]
    np.testing.assert_array_equal(first.mmcs, again.mmcs)
    assert not np.array_equal(first.mmcs, other.mmcs)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: excess_kurtosis(0.0), "above 0"),
        (lambda: feature_cosines(torch.ones(2, 3), torch.ones(2, 4)), "one space"),
        (lambda: feature_cosines(torch.ones(3), torch.ones(2, 3)), "one a row"),
        (lambda: HiddenStream(planted(0.1), 0), "batch_size=0"),
        (lambda: recovery(4, 2, dictionaries=[]), "at least one"),
        (lambda: recovery(4, 2, densities=[]), "at least one"),
        (lambda: recovery(4, 2, seeds=0), "seeds=0"),
        (lambda: recovery(4, 2, sae_steps=0), "sae_steps=0"),
        (lambda: recovery(4, 2, importance=-1.0), "above 0"),
    ],
)
def test_what_cannot_be_looked_for_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(CircuitsError, match=says) as refused:
        make()
    assert isinstance(refused.value, ToyError)
