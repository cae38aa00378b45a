"""Statistics that several rooms use."""

from __future__ import annotations

import torch
from torch import Tensor


def auc(positive: Tensor, negative: Tensor) -> Tensor:
    """Area under the ROC curve per column: `(n, units)`, `(m, units)` -> `(units,)`; ties count half.

    It is the Mann-Whitney statistic: the share of (positive, negative) pairs in the right order.
    """
    n, m = len(positive), len(negative)
    ranks = midranks(torch.cat([positive, negative]).double())
    return ((ranks[:n].sum(dim=0) - n * (n + 1) / 2) / (n * m)).float()


def midranks(values: Tensor) -> Tensor:
    """Ranks from 1 down each column, equal values sharing the mean of theirs."""
    order = values.argsort(dim=0, stable=True)
    ordered = values.gather(0, order)
    count = len(values)
    place = torch.arange(1, count + 1, dtype=torch.float64, device=values.device)[:, None].expand_as(values)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    group = new.cumsum(dim=0) - 1
    sums = torch.zeros_like(ordered).scatter_add_(0, group, place)
    sizes = torch.zeros_like(ordered).scatter_add_(0, group, torch.ones_like(ordered))
    middle = (sums / sizes.clamp_min(1)).gather(0, group)
    return torch.empty_like(ordered).scatter_(0, order, middle)


def bootstrap(positive: Tensor, negative: Tensor, *, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """95 % percentile intervals of `auc` per column, drawing pictures with replacement: `(low, high)`."""
    drawn = []
    for _ in range(draws):
        i = torch.randint(len(positive), (len(positive),), generator=generator)
        j = torch.randint(len(negative), (len(negative),), generator=generator)
        drawn.append(auc(positive[i], negative[j]))
    areas = torch.stack(drawn)
    return areas.quantile(0.025, dim=0), areas.quantile(0.975, dim=0)
