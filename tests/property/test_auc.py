"""The AUC of `find` is scikit-learn's, ties and all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.metrics import roc_auc_score

from circuits.common.statistics import auc

# few values, so that there are many ties; and any floats
few = st.sampled_from([-1.0, 0.0, 0.0, 0.5, 1.0])
any_float = st.floats(-1e6, 1e6, width=32)
columns = st.one_of(st.lists(few, min_size=1, max_size=30), st.lists(any_float, min_size=1, max_size=30))


@settings(max_examples=150, deadline=None)
@given(columns, columns)
def test_auc_equals_scikit_learn(positive: list[float], negative: list[float]) -> None:
    ours = float(auc(torch.tensor(positive)[:, None], torch.tensor(negative)[:, None]))
    labels = [1] * len(positive) + [0] * len(negative)
    theirs = roc_auc_score(labels, np.array(positive + negative, dtype=np.float32))
    assert ours == pytest.approx(theirs, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(columns, columns, st.floats(0.1, 10), st.floats(-5, 5))
def test_auc_is_symmetric_and_knows_no_scale(
    positive: list[float], negative: list[float], by: float, to: float
) -> None:
    x, y = torch.tensor(positive, dtype=torch.float64)[:, None], torch.tensor(negative, dtype=torch.float64)[:, None]
    assert float(auc(x, y) + auc(y, x)) == pytest.approx(1.0, abs=1e-6)
    both = torch.cat([x, y]) * 0.5
    assert float(auc(both[: len(x)], both[len(x) :])) == pytest.approx(float(auc(x, y)), abs=1e-6)
    assert float(auc(x * 2, y * 2)) == pytest.approx(float(auc(x, y)), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6))
def test_columns_are_ranked_apart(units: int, n: int, m: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = (
        torch.randint(0, 4, (n, units), generator=generator).float(),
        torch.randint(0, 4, (m, units), generator=generator).float(),
    )
    whole = auc(x, y)
    for c in range(units):
        assert float(whole[c]) == float(auc(x[:, c : c + 1], y[:, c : c + 1]))
