"""How evenly orientations cover the circle, and how well added ones fill the gaps, beside random orientations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae.checks import whole
from sae.errors import SAEError
from zoo.common.results import Result, called


@dataclass(frozen=True)
class Coverage(Result):
    """How evenly orientations cover the circle, degrees.

    Attributes:
        count: of orientations.
        largest_gap: between neighboring orientations.
        mean_gap: period / count; NaN without any.
        expected_gap: mean size of the gap that contains a random orientation, `sum gap^2 / period`; least, `mean_gap`,
            when all gaps are equal.
        covered: share of the circle within `within` degrees of some orientation.
        chance: largest gap of as many random orientations: median, and central 95 %.
        more_even: share of these draws with a larger largest gap; 0.5 is chance.
        within, period: degrees.
    """

    count: int
    largest_gap: float
    mean_gap: float
    expected_gap: float
    covered: float
    chance: tuple[float, float, float]
    more_even: float
    within: float
    period: float

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return super().describe() | {"chance": dict(zip(("median", "low", "high"), self.chance, strict=True))}


def coverage(
    orientations: Sequence[float], *, within: float = 10.0, period: float = 360.0, draws: int = 2000, seed: int = 0
) -> Coverage:
    """How evenly orientations lie on the circle.

    Args:
        orientations: degrees.
        within: how near an orientation is covered.
        period: 360, or 180 for lines.
        draws: samples of as many random orientations; seed: of these.

    Raises:
        SAEError: orientations that are no finite numbers, or numbers out of range.

    >>> coverage([0, 90, 180, 270]).largest_gap
    90.0
    """
    degrees = _degrees(orientations)
    for name, number in (("within", within), ("period", period)):
        if not 0 < number < float("inf"):
            raise SAEError(f"{name} is in degrees, above 0; not {number}")
    whole("draws", draws)
    gaps = gaps_of(degrees, period)
    random = np.random.default_rng(seed).uniform(0, period, (draws, len(degrees)))
    largest = gaps_of(random, period).max(axis=-1)
    low, median, high = np.quantile(largest, [0.025, 0.5, 0.975])
    return Coverage(
        count=len(degrees),
        largest_gap=float(gaps.max()),
        mean_gap=period / len(degrees) if len(degrees) else float("nan"),
        expected_gap=float((gaps**2).sum() / period),
        covered=float(np.minimum(gaps, 2 * within).sum() / period) if len(degrees) else 0.0,
        chance=(float(median), float(low), float(high)),
        more_even=_share_larger(largest, float(gaps.max())),
        within=within,
        period=period,
    )


def gaps_of(orientations: NDArray[np.float64], period: float = 360.0) -> NDArray[np.float64]:
    """Gaps between neighbors on the circle, `(..., n)` for `(..., n)` degrees; one gap of the whole circle for none."""
    if orientations.shape[-1] == 0:
        return np.full((*orientations.shape[:-1], 1), period)
    ordered = np.sort(orientations % period, axis=-1)
    return np.diff(ordered, axis=-1, append=ordered[..., :1] + period)


def _share_larger(random: NDArray[np.float64], gap: float) -> float:
    """Share of random gaps above one, ties counting half.

    With one orientation every gap is the whole circle: a tolerance of 1e-9 treats rounding differences as ties.
    """
    return float(((random > gap + 1e-9).mean() + (random >= gap - 1e-9).mean()) / 2)


def nearest_distances(
    orientations: Sequence[float], references: Sequence[float], period: float = 360.0
) -> NDArray[np.float64]:
    """Degrees from each orientation to the nearest of the references; the whole period without references."""
    a, b = _degrees(orientations), _degrees(references)
    if not len(b):
        return np.full(len(a), period)
    distance = np.abs((a[:, None] - b[None] + period / 2) % period - period / 2)
    return np.asarray(distance.min(axis=1))


@dataclass(frozen=True)
class Filling(Result):
    """Orientations that the detectors of a basis add to those of the channels.

    Attributes:
        in_gaps: number of detectors farther than `within` from every detector among the channels.
        largest_gap: of both together.
        chance: share of draws with a larger gap, when as many random orientations are added instead.
        in_largest: number within the channels' largest gap; expected: the same for random orientations.
        single: number that write to one channel above all (cosine above 0.9 with it): a channel, not a new feature.
    """

    in_gaps: int
    largest_gap: float
    chance: float = field(metadata=called("by_lot"))
    in_largest: int
    expected: float
    single: int


def filling(
    channels: Sequence[float],
    added: Sequence[float],
    *,
    within: float = 10.0,
    period: float = 360.0,
    draws: int = 2000,
    seed: int = 0,
    single: int = 0,
) -> Filling:
    """What added orientations contribute to the coverage of present ones, beside as many random orientations.

    Args:
        channels: degrees of the present ones; added: of the added ones.
        within: degrees; period: 360, or 180 for lines; draws: random samples; seed: of these.
        single: copied to the result, see `Filling`.
    """
    present, more = _degrees(channels) % period, _degrees(added) % period
    both = float(gaps_of(np.concatenate([present, more]), period).max())
    random = np.random.default_rng(seed).uniform(0, period, (draws, len(more)))
    largest = gaps_of(np.concatenate([np.broadcast_to(present, (draws, len(present))), random], axis=1), period).max(
        axis=1
    )
    inside, gap = _in_largest(present, more, period)
    return Filling(
        in_gaps=int((nearest_distances(more.tolist(), present.tolist(), period) > within).sum()),
        largest_gap=both,
        chance=_share_larger(largest, both),
        in_largest=inside,
        expected=len(more) * gap / period,
        single=single,
    )


def _in_largest(present: NDArray[np.float64], more: NDArray[np.float64], period: float) -> tuple[int, float]:
    """The number of added orientations inside the largest gap of the present ones, and its size."""
    gaps = gaps_of(present, period)
    if len(present) < 2:
        return len(more), period
    widest = int(gaps.argmax())
    ahead = (more - np.sort(present)[widest]) % period
    return int(((ahead > 0) & (ahead < gaps[widest])).sum()), float(gaps[widest])


def _degrees(orientations: Sequence[float]) -> NDArray[np.float64]:
    try:
        degrees = np.asarray(orientations, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SAEError("orientations are a list of degrees") from error
    if degrees.ndim != 1 or not np.isfinite(degrees).all():
        raise SAEError("orientations are a list of degrees, each a finite number")
    return degrees
