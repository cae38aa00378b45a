"""Statistics against scipy and scikit-learn, and against small cases worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from circuits.common.statistics import (
    auc,
    bootstrap,
    correlation,
    holm,
    label_auc,
    midranks,
    permutation_p,
    rank_correlation,
    shuffled_correlations,
)

RNG = np.random.default_rng(0)
TIED, FREE = RNG.integers(0, 5, (60, 7)).astype(float), RNG.normal(size=(60, 7))


def test_auc_of_a_small_case_worked_out_by_hand() -> None:
    positive, negative = torch.tensor([[3.0, 1.0], [2.0, 1.0]]), torch.tensor([[1.0, 1.0], [2.0, 1.0], [0.0, 1.0]])
    # First column: 3 beats all; 2 beats two and ties with one: (3 + 2.5) / 6.
    assert auc(positive, negative).tolist() == pytest.approx([5.5 / 6, 0.5])


@pytest.mark.parametrize("values", [TIED, FREE])
def test_areas_of_several_labelings_are_scikit_learns(values: np.ndarray) -> None:
    labels = RNG.random((3, 60)) < 0.3
    labels[2] = False
    areas = label_auc(torch.from_numpy(values), torch.from_numpy(labels), columns=3)
    for k, unit in itertools.product(range(2), range(7)):
        assert float(areas[k, unit]) == pytest.approx(roc_auc_score(labels[k], values[:, unit]), abs=1e-15)
    assert areas[2].isnan().all()
    assert label_auc(torch.from_numpy(values), ~torch.from_numpy(labels))[2].isnan().all()


@pytest.mark.parametrize("values", [TIED, FREE])
def test_ranks_are_scipys(values: np.ndarray) -> None:
    assert (midranks(torch.from_numpy(values)).numpy() == stats.rankdata(values, axis=0)).all()


@pytest.mark.parametrize("values", [TIED, FREE])
def test_correlations_are_scipys(values: np.ndarray) -> None:
    x, y = values[:, 0], values[:, 1] + 0.3 * values[:, 0]
    assert correlation(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-14)
    assert rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-14)
    assert correlation(torch.from_numpy(values), values * 2) == pytest.approx(1)


def test_a_constant_correlates_with_nothing() -> None:
    assert correlation([1, 2, 3], [4, 4, 4]) == 0.0
    assert np.isnan(correlation([1, 2, 3], [4, 4, 4], constant=float("nan")))
    assert np.isnan(rank_correlation([1, 2], [3, 3])) and np.isnan(rank_correlation([1], [3]))


def test_rank_correlation_is_spearmans() -> None:
    assert rank_correlation([1, 2, 3, 4], [1, 8, 27, 64]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # one pair of neighbors exchanged: 1 - 6 * 2 / (4 * 15)
    assert rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)


def test_a_permutation_test_agrees_with_scipys() -> None:
    x = FREE[:, 0]
    y = FREE[:, 1] + 0.4 * x
    value = correlation(x, y)
    shuffled = shuffled_correlations(x, y, draws=4000, generator=np.random.default_rng(1))
    expected = stats.permutation_test(
        (y,), lambda order: correlation(x, order), permutation_type="pairings", n_resamples=4000,
        alternative="greater", rng=np.random.default_rng(2),
    ).pvalue  # fmt: skip
    p = permutation_p(value, shuffled)
    assert 1 / 4001 <= p and abs(p - expected) < 4 * np.sqrt(max(expected, 1 / 4000) / 4000)


def test_p_counts_ties_and_is_never_zero() -> None:
    assert permutation_p(5.0, np.arange(4)) == pytest.approx(1 / 5)
    assert permutation_p(3.0, np.arange(4)) == pytest.approx(2 / 5)
    assert permutation_p(3.0 + 1e-13, np.arange(4), tolerance=1e-12) == pytest.approx(2 / 5)
    assert permutation_p(3.0, []) == 1.0


def test_bootstrap_intervals_hold_the_area_as_often_as_promised() -> None:
    generator = torch.Generator().manual_seed(0)
    positive, negative = (torch.randn(40, 200, generator=generator) + shift for shift in (1.0, 0.0))
    low, high = bootstrap(positive, negative, draws=200, generator=generator)
    true = stats.norm.cdf(1 / np.sqrt(2))
    assert 0.89 < float(((low <= true) & (true <= high)).float().mean()) <= 0.99


def test_holms_rule_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
