"""AUC and IoU of units against parts, over the pixels of images: chosen on one half, reported on the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from circuits.common.statistics import midranks

QUANTILES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)
"""Shares of the cells of the choosing half that lie below the thresholds tried for the IoU."""
_COLUMNS = 64  # units ranked at a time, which bounds memory
_BINS = 512  # of a unit's responses in a bootstrap


@dataclass(frozen=True, eq=False)
class Halves:
    """The parts of the images of each half, and the same masks laid on other images.

    Attributes:
        images: of each half, `(n,)`, as the scores take them; inside: `(P, n * positions)` of each half.
        shuffled: likewise, each image's masks given to another image of its half.
        area: `(positions,)` pixels of a cell.
    """

    images: tuple[Tensor, Tensor]
    inside: tuple[Tensor, Tensor]
    shuffled: tuple[Tensor, Tensor]
    area: Tensor

    @staticmethod
    def of(inside: Tensor, area: Tensor, images: tuple[Tensor, Tensor], generator: torch.Generator) -> Halves:
        """The halves of `(N, P, positions)` shares."""
        rows, shuffled = [], []
        for half in images:
            order = torch.randperm(len(half), generator=generator)
            other = torch.empty_like(order)
            other[order] = order.roll(1)  # one long cycle: no image keeps its own masks
            rows.append(inside[half].movedim(1, 0).flatten(1))
            shuffled.append(inside[half[other]].movedim(1, 0).flatten(1))
        return Halves(images, (rows[0], rows[1]), (shuffled[0], shuffled[1]), area)


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of some units for all parts; the first entry is of the choosing half, the second of the reporting one.

    Attributes:
        auc, iou: `(2, P, units)`; the IoU of the second is at the threshold that the first chose.
        threshold: `(P, units)` above which a unit is active, for the IoU.
    """

    auc: Tensor
    iou: Tensor
    threshold: Tensor

    @staticmethod
    def joined(parts: list[Scores]) -> Scores:
        """The scores of several ranges of units together."""
        return Scores(*(torch.cat([getattr(p, name) for p in parts], dim=-1) for name in ("auc", "iou", "threshold")))


def score_units(acts: Tensor, halves: Halves, *, shuffled: bool = False) -> Scores:
    """Scores of units for every part.

    AUC is the probability that a pixel of the part is in a cell where the unit is more active than in that of a pixel
    outside, ties counting half. With R the ranks of all pixels by activation, weighted by the area of cells, P the
    pixels of the part and Q the others: AUC = (sum of R over the part - P^2 / 2) / (P Q). IoU is the pixels where the
    unit is active and the part is, by those where either is.

    Args:
        acts: `(N, positions, units)` of all images.
        halves: the parts.
        shuffled: after the P parts come P more: the same against the masks of other images, which is what the mere
            position of a part gives.
    """
    inside = halves.inside
    if shuffled:
        first, second = (torch.cat(masks) for masks in zip(halves.inside, halves.shuffled, strict=True))
        inside = first, second
    return Scores.joined([_scores(columns, halves, inside) for columns in torch.split(acts, _COLUMNS, dim=2)])


def _scores(acts: Tensor, halves: Halves, inside: tuple[Tensor, Tensor]) -> Scores:
    aucs, ious = [], []
    thresholds = torch.empty(0)
    for half, images in enumerate(halves.images):
        values = acts[images].flatten(0, 1)  # (cells, units)
        area = halves.area.repeat(len(images))
        aucs.append(_auc(values, area, inside[half]))
        if half == 0:
            ordered = values.sort(dim=0).values
            at = torch.tensor([int(q * (len(ordered) - 1)) for q in QUANTILES])
            thresholds = ordered[at]  # (quantiles, units)
        ious.append(torch.stack([_iou(values > t, area.float(), inside[half]) for t in thresholds]))
    best = ious[0].argmax(dim=0, keepdim=True)
    chosen = torch.stack([iou.gather(0, best)[0] for iou in ious])
    threshold = thresholds.unsqueeze(1).expand(-1, len(inside[0]), -1).gather(0, best)[0]
    return Scores(torch.stack(aucs), chosen, threshold)


def _auc(values: Tensor, area: Tensor, inside: Tensor) -> Tensor:
    """`(P, units)` in [0, 1], float64; NaN for a part that no pixel shows."""
    part = inside.double()
    positive = part.sum(dim=1, keepdim=True)
    ranks = part @ midranks(values.double(), area)
    return (ranks - positive**2 / 2) / (positive * (area.sum() - positive))


def _iou(active: Tensor, area: Tensor, inside: Tensor) -> Tensor:
    """`(P, units)` in [0, 1]."""
    on = active.float()
    both = inside @ on
    return (both / (inside.sum(dim=1, keepdim=True) + area @ on - both)).double()


def resampled(
    acts: Tensor, inside: Tensor, area: Tensor, pairs: list[tuple[int, int, float]], weights: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """AUC and IoU of pairs of a part and a unit on resampled images: `(draws,)` each; NaN in draws without the part.

    Activations are sorted into bins between quantiles of their own, so that a draw is a product of two matrices; the
    AUC of so many bins is that of the values up to less than 0.001.

    Args:
        acts: `(n, positions, units)` of the reporting half.
        inside: `(P, n * positions)`; area: `(positions,)`.
        pairs: part, unit, threshold of the IoU.
        weights: `(draws, n)` how often each image is in a draw.
    """
    images = len(acts)
    areas = area.expand(images, -1).double()
    binned: dict[int, Tensor] = {}
    for part, unit, threshold in pairs:
        values, shares = acts[:, :, unit], inside[part].view(images, -1).double()
        if unit not in binned:
            above = values[values > values.min()].sort().values  # most cells of a sparse unit are zero: one bin
            edges = (
                above[torch.linspace(0, len(above) - 1, min(_BINS, len(above) + 1)).long()[:-1]]
                if len(above)
                else above
            )
            edges = torch.unique(edges)
            bins = torch.bucketize(values.contiguous(), edges, right=True)  # an edge is the lowest value of its bin
            binned[unit] = bins + torch.arange(images)[:, None] * _BINS
        totals = [
            weights
            @ torch.zeros(images * _BINS, dtype=torch.float64)
            .index_add_(0, binned[unit].flatten(), weight.flatten())
            .view(images, _BINS)
            for weight in (shares, areas)
        ]  # (draws, bins)
        of_part, of_all = totals
        positive, everything = of_part.sum(dim=1), of_all.sum(dim=1)
        ranks = (of_part * (of_all.cumsum(dim=1) - of_all / 2)).sum(dim=1)
        auc = (ranks - positive**2 / 2) / (positive * (everything - positive))
        on = (values > threshold).double()
        both, active = weights @ (shares * on).sum(dim=1), weights @ (areas * on).sum(dim=1)
        yield auc, torch.where(positive > 0, both / (positive + active - both), torch.nan)
