"""Statistics that several rooms use: AUC, correlations, bootstrap intervals, permutation tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.common.results import Result


def auc(positive: Tensor, negative: Tensor) -> Tensor:
    """Area under the ROC curve per column: `(n, units)`, `(m, units)` -> `(units,)`; ties count half.

    It is the Mann-Whitney statistic: the share of (positive, negative) pairs in the right order.
    """
    labels = torch.arange(len(positive) + len(negative)) < len(positive)
    return label_auc(torch.cat([positive, negative]), labels[None].to(positive.device))[0].float()


def label_auc(values: Tensor, labels: Tensor, columns: int = 512) -> Tensor:
    """Areas under the ROC curve for several labelings of the same rows: `(rows, units)`, `(k, rows)` -> `(k, units)`.

    AUC = (R - p (p + 1) / 2) / (p q), with R the sum of the ranks of the p positive rows among all p + q. Ranks are
    multiples of a half, so R is exact in float64 whatever the order of summation. scikit-learn's `roc_auc_score` gives
    the same, one column and one labeling at a time.

    Args:
        values: one column per unit; ties count half.
        labels: True for the positive rows.
        columns: units ranked at a time, which bounds memory.

    Returns:
        float64 in [0, 1]; NaN for a labeling without positive or without negative rows.
    """
    truth = labels.double()
    positive = truth.sum(dim=1, keepdim=True)
    negative = truth.shape[1] - positive
    rank_totals = [truth @ midranks(part.double()) for part in torch.split(values, columns, dim=1)]
    return (torch.cat(rank_totals, dim=1) - positive * (positive + 1) / 2) / (positive * negative)


def midranks(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Ranks from 1 down each column of `(n, units)`, equal values sharing the mean of theirs.

    `scipy.stats.rankdata(values, axis=0)`, for tensors on any device. With `weights` `(n,)` of the rows, a rank is the
    weight of all smaller values and half that of the equal ones, so that `weights` of 1 give ranks less a half.
    """
    rows = values.T.contiguous()  # sorted three times as quickly as down the columns
    order = rows.argsort(dim=1, stable=True)
    ordered = rows.gather(1, order)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    group = new.cumsum(dim=1) - 1
    size = torch.ones(len(values), device=values.device) if weights is None else weights
    totals = torch.zeros_like(ordered, dtype=torch.float64).scatter_add_(1, group, size.double()[order])
    middle = (totals.cumsum(dim=1) - totals / 2 + (0.5 if weights is None else 0.0)).gather(1, group)
    return torch.empty_like(middle).scatter_(1, order, middle).T


def bootstrap(positive: Tensor, negative: Tensor, *, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """95 % percentile intervals of `auc` per column, images resampled with replacement: `(low, high)`."""
    areas = []
    for _ in range(draws):
        i = torch.randint(len(positive), (len(positive),), generator=generator)
        j = torch.randint(len(negative), (len(negative),), generator=generator)
        areas.append(auc(positive[i], negative[j]))
    return percentile_interval(torch.stack(areas))


def percentile_interval(resampled: Tensor) -> tuple[Tensor, Tensor]:
    """`(low, high)` between which the middle 95 % of resampled values `(draws, ...)` lie."""
    return resampled.quantile(0.025, dim=0), resampled.quantile(0.975, dim=0)


@dataclass(frozen=True)
class Estimate(Result):
    """A number, and its 95 % interval, of resampled images unless it says otherwise."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"

    @classmethod
    def of(cls, value: Any, draws: Any) -> Estimate:
        """A number with the interval of its draws `(draws,)`."""
        low, high = percentile_interval(torch.as_tensor(draws))
        return cls(float(value), float(low), float(high))


def correlation(x: Any, y: Any, *, constant: float = 0.0) -> float:
    """Pearson's correlation over all entries of two arrays of one shape; `constant` where either does not vary.

    `scipy.stats.pearsonr(x, y).statistic`, without its p-value, which permutation tests here do not need thousands of
    times over.

    >>> correlation([1, 2, 3], [2, 4, 7]) > 0.99
    True
    """
    a, b = np.asarray(x, dtype=np.float64).ravel(), np.asarray(y, dtype=np.float64).ravel()
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / size) if size > 0 else constant


def rank_correlation(x: Any, y: Any) -> float:
    """Spearman's correlation, ties sharing their rank; NaN for fewer than two values, or where either does not vary.

    `scipy.stats.spearmanr(x, y).statistic`.

    >>> rank_correlation([1, 2, 3], [1, 4, 9])
    1.0
    """
    from scipy.stats import rankdata

    ranks = [rankdata(np.asarray(values)) for values in (x, y)]
    return correlation(*ranks, constant=float("nan")) if len(ranks[0]) else float("nan")


def shuffled_correlations(x: Any, y: Any, *, draws: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """`correlation` of `x` with `draws` random orders of `y`, `(draws,)`: the control of a correlation."""
    values = np.asarray(y)
    return np.array([correlation(x, generator.permutation(values)) for _ in range(draws)])


def permutation_p(value: float, shuffled: Any, *, tolerance: float = 0.0) -> float:
    """P-value of a permutation test: `(1 + b) / (1 + n)`, with b of n shuffled values at least as large as `value`.

    The value itself counts among the shuffles, so that p is never 0 (Phipson and Smyth 2010).

    Args:
        value: what was measured.
        shuffled: `(n,)` the same measured after shuffling.
        tolerance: shuffled values short of `value` by no more than this count too, where ties are subject to rounding.
    """
    shuffled = np.asarray(shuffled)
    return (1 + int((shuffled >= value - tolerance).sum())) / (1 + len(shuffled))


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down rule (1979): the family-wise error rate.

    The k-th smallest of m p-values is multiplied by m - k + 1; none may fall below the one before it.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted
