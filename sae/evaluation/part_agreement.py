"""Agreement of units with part masks: AUC and IoU of every unit with every part, and bootstrap samples of both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sae.seeding import CONTROL, generator


@dataclass(frozen=True, eq=False)
class Agreement:
    """Agreement of units with parts, position by position; all `(units, parts)`.

    Attributes:
        auc: probability that the unit is more active at a position on the part than at one of an image without it.
        iou: largest intersection over union of the part with the positions at or above a threshold.
        threshold: that threshold.
    """

    auc: Tensor
    iou: Tensor
    threshold: Tensor


def agreement(acts: Tensor, inside: Tensor, absent: Tensor) -> Agreement:
    """Agreement of units with parts.

    One sort of a unit's activations gives both measures for all parts. Going down the levels, with H and M the numbers
    of positions on the part and of absent positions at or above a level, the AUC is the Mann-Whitney sum over levels of
    `dH (off - M + dM / 2) / (on off)`, ties counting half, and the IoU at a level is `H / (above + on - H)`.

    Args:
        acts: `(n, units)` at positions.
        inside: `(n, parts)` whether a position is on the part.
        absent: `(n, parts)` whether it belongs to an image without the part, the negatives of the AUC. The IoU
            counts all positions.
    """
    parts, count = inside.shape[1], acts.shape[1]
    yes, no = inside.int(), absent.int()
    on, off = inside.sum(dim=0).double(), absent.sum(dim=0).double()
    areas, overlaps, levels = (torch.empty(count, parts, dtype=torch.float64) for _ in range(3))
    start = torch.zeros(1, parts, dtype=torch.float64)
    for unit, values in enumerate(acts.T):
        # most latents are silent at most positions: positions at the lowest value need no sorting
        low = values.min()
        rows = (values > low).nonzero().flatten()
        rows = rows[values[rows].argsort(descending=True)]
        ordered = values[rows]
        last = torch.ones(len(rows), dtype=torch.bool)
        last[:-1] = ordered[1:] != ordered[:-1]
        ends = last.nonzero().flatten()
        hits = torch.cat([yes[rows].cumsum(dim=0)[ends].double(), on[None]])  # on the part, at or above each level
        misses = torch.cat([no[rows].cumsum(dim=0)[ends].double(), off[None]])
        above = torch.cat([ends + 1, torch.tensor([len(values)])]).double()[:, None]
        new_hits, new_misses = hits.diff(dim=0, prepend=start), misses.diff(dim=0, prepend=start)
        areas[unit] = (new_hits * (off - misses + new_misses / 2)).sum(dim=0) / (on * off)
        overlap, at = (hits / (above + on - hits)).max(dim=0)
        overlaps[unit], levels[unit] = overlap, torch.cat([ordered[ends], low[None]])[at].double()
    return Agreement(areas, overlaps, levels)


def iou_at(acts: Tensor, thresholds: Tensor, on: Tensor) -> Tensor:
    """IoU `(units, parts)` of units `(n, units)` with parts `(n, parts)` at given thresholds `(units, parts)`."""
    rows, parts = on.nonzero().T
    iou = torch.empty_like(thresholds)
    for unit, (values, levels) in enumerate(zip(acts.T.double(), thresholds, strict=True)):
        above = len(values) - torch.searchsorted(values.sort().values, levels)
        both = torch.bincount(parts[values[rows] >= levels[parts]], minlength=on.shape[1])
        iou[unit] = both / (above + on.sum(dim=0) - both)
    return iou


def bootstrap_iou(maps: Tensor, threshold: float, on: Tensor, weights: Tensor) -> Tensor:
    """IoU `(draws,)` of one unit's maps `(images, positions)` with one part, images weighted `(draws, images)`."""
    above = maps >= threshold
    both, either = ((above & on).sum(dim=1).double(), (above | on).sum(dim=1).double())
    return (weights @ both) / (weights @ either)


def bootstrap_auc(maps: Tensor, on: Tensor, absent: Tensor, weights: Tensor) -> Tensor:
    """AUC `(draws,)` of one unit's maps `(images, positions)` for one part, images weighted `(draws, images)`.

    The Mann-Whitney count is a matrix P over pairs of images, computed once; each bootstrap sample w gives `w P w`.
    """
    n, positions = maps.shape
    image = torch.arange(n)[:, None].expand_as(on)[on]
    high, low = maps[on], maps[absent].sort(dim=1).values
    every = high.expand(len(low), -1).contiguous()
    below = (torch.searchsorted(low, every) + torch.searchsorted(low, every, right=True)).double() / 2
    # P: pairs in the right order, by the image of the position on the part and the image without the part
    pairs = torch.zeros(n, len(low), dtype=torch.float64).index_add_(0, image, below.T)
    sides = weights @ on.sum(dim=1).double(), weights[:, absent].sum(dim=1) * positions
    return ((weights @ pairs) * weights[:, absent]).sum(dim=1) / (sides[0] * sides[1])


def bootstrap_weights(draws: int, images: int, seed: int) -> Tensor:
    """How often each bootstrap sample has each image, `(draws, images)`."""
    rows = torch.randint(images, (draws, images), generator=generator(seed, CONTROL, images))
    return torch.zeros(draws, images, dtype=torch.float64).scatter_add_(
        1, rows, torch.ones(draws, images, dtype=torch.float64)
    )
