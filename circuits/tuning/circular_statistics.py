"""Statistics of angles: means, spreads and gaps on a circle of 360 degrees, or of 180 for lines.

All angles are in degrees. Responses at several angles run along the last axis of a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def vector_mean(responses: Tensor, angles: Sequence[float], period: float = 360.0) -> tuple[Tensor, Tensor]:
    """The circular mean of responses, and how concentrated they are.

    Angles are scaled so that the period is a full turn, as usual for lines (Batschelet, *Circular Statistics in
    Biology*, 1981): `sum r exp(2 pi i angle / period) / sum r`. Negative responses count as zero.

    Args:
        responses: `(..., A)`.
        angles: `A` of them, evenly spaced over the period for the mean to be unbiased.
        period: 360, or 180 for lines.

    Returns:
        Degrees in [0, period), `(...)`, NaN where there is no response, and the length of the mean vector: 0 for
        equal responses at all angles, 1 for a response at one angle only. One minus it is the circular variance.
    """
    weights = responses.clamp_min(0).double()
    turn = torch.tensor(list(angles), dtype=torch.float64) * (2 * math.pi / period)
    total = weights.sum(dim=-1)
    x, y = (weights * turn.cos()).sum(dim=-1), (weights * turn.sin()).sum(dim=-1)
    length = torch.where(total > 0, torch.hypot(x, y) / total.clamp_min(1e-300), torch.zeros_like(total))
    mean = (torch.atan2(y, x) * (period / (2 * math.pi))) % period
    mean = torch.where(mean >= period, torch.zeros_like(mean), mean)  # a hair below zero is rounded up to the period
    # a vector of length zero points nowhere
    return torch.where(length > 1e-9, mean, torch.full_like(mean, math.nan)), length


def difference(a: Tensor, b: Tensor, period: float = 360.0) -> Tensor:
    """How far `a` lies counter-clockwise of `b`, in [-period / 2, period / 2)."""
    return (a - b + period / 2) % period - period / 2


def half_width(responses: Tensor, angles: Sequence[float], period: float = 360.0) -> Tensor:
    """Half width at half maximum of each tuning curve, in degrees.

    Counted from the peak to where the curve first falls to half of it, between angles in a straight line; the mean of
    both sides.

    Args:
        responses: `(..., A)`.
        angles: `A` of them in rising order, evenly spaced over the period.
        period: 360, or 180 for lines.

    Returns:
        `(...)`; half the period where the curve never falls to half, NaN where there is no response above zero.
    """
    count = len(angles)
    step = period / count
    values = responses.double().reshape(-1, count)
    out = torch.full((len(values),), math.nan, dtype=torch.float64)
    for i, row in enumerate(values):
        top = int(row.argmax())
        if not float(row[top]) > 0:
            continue
        half = float(row[top]) / 2
        ahead = row.roll(-top)
        sides = [_fall(way.tolist(), half) for way in (ahead, ahead.flip(0).roll(1))]
        out[i] = min(step * sum(sides) / 2, period / 2)
    return out.reshape(responses.shape[:-1])


def _fall(values: list[float], half: float) -> float:
    """Steps from the first value to where the curve first comes down to `half`."""
    for k in range(1, len(values)):
        if values[k] <= half:
            return k - 1 + (values[k - 1] - half) / (values[k - 1] - values[k])
    return math.inf


def largest_gap(angles: Sequence[float], period: float = 360.0) -> float:
    """The largest stretch of the circle without any of `angles`, in degrees; the whole circle for one or none."""
    if len(angles) < 2:
        return period
    ordered = sorted(a % period for a in angles)
    ahead = [*ordered[1:], ordered[0] + period]
    return max(b - a for a, b in zip(ordered, ahead, strict=True))
