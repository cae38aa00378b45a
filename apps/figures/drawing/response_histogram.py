"""Activation histograms on a logarithmic scale."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from circuits.dataset.scan_results import UnitScan
from circuits.errors import CircuitsError
from circuits.plot.drawing import canvas, palette
from circuits.plot.drawing.wording import short

MARGIN = 24


def densities(scan: UnitScan, bins: int = 60) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The histogram of a scan in even bins: edges `(bins + 1,)` and shares of positions per bin `(bins,)`.

    A scan counts in bins that grow with the response; the counts of a bin are spread evenly over it, and responses
    that are zero up to rounding fall into the bin that contains zero.

    Raises:
        CircuitsError: a unit with a constant response.
    """
    low, high = min(scan.minimum, 0.0), max(scan.maximum, 0.0)
    if not high > low:
        raise CircuitsError(f"{short(scan.unit)} has a constant response: there is no histogram to draw")
    edges = np.linspace(low, high, bins + 1)
    ends = np.clip(scan.edges, low, high)
    # cumulative counts, linear within a bin; the middle bin, of zeros, has no width
    below = np.concatenate([[0.0], np.cumsum(scan.counts)])
    distinct = np.concatenate([[True], np.diff(ends) > 0])
    at = np.interp(edges, ends[distinct], below[distinct])
    at[0], at[-1] = 0.0, below[-1]
    return edges, np.asarray(np.diff(at) / max(below[-1], 1.0))


def moments(scan: UnitScan, bins: int = 2000) -> tuple[float, float]:
    """Mean and standard deviation of a unit's responses, from its histogram."""
    edges, shares = densities(scan, bins)
    middle = (edges[1:] + edges[:-1]) / 2
    mean = float((middle * shares).sum())
    return mean, float(np.sqrt(((middle - mean) ** 2 * shares).sum()))


def share_above(scan: UnitScan, value: float) -> float:
    """Share of positions at which the response exceeds `value`."""
    edges, shares = densities(scan, 2000)
    below = np.concatenate([[0.0], np.cumsum(shares)])
    return float(1 - np.interp(value, edges, below))


def response_histogram(scan: UnitScan) -> Figure:
    """The activation histogram of a unit on a logarithmic scale, beside a normal distribution of the same spread.

    Responses below zero, before the ReLU, are blue, those above orange.

    Args:
        scan: of the unit.

    Raises:
        CircuitsError: a unit with a constant response.
    """
    edges, shares = densities(scan, 60)
    mean, spread = moments(scan)
    width, height = 820.0, 430.0
    figure, page = canvas.page(width, height)
    canvas.write(page, MARGIN, 32, short(scan.unit), size=15, bold=True, limit=80)
    about = (
        f"{scan.positions:,} positions of {scan.images} images; above zero at {100 * scan.density:.1f} %; "
        f"beyond 4 standard deviations at {100 * share_above(scan, mean + 4 * spread):.2g} %"
    )
    canvas.write(page, MARGIN, 52, about, size=11, color=palette.MUTED, limit=130)
    axes = figure.add_axes((84 / width, 56 / height, 1 - 120 / width, 1 - 136 / height))
    middle = (edges[1:] + edges[:-1]) / 2
    inks = [palette.EXCITES if m > 0 else palette.INHIBITS for m in middle]
    least = 1.0 / scan.positions
    axes.bar(middle, shares, width=np.diff(edges), color=inks, alpha=0.85, linewidth=0)
    fine = np.linspace(edges[0], edges[-1], 400)
    step = float(edges[1] - edges[0])
    normal = np.exp(-((fine - mean) ** 2) / (2 * spread**2)) / (spread * np.sqrt(2 * np.pi)) * step
    axes.plot(fine, normal, color=palette.INK, lw=1.2, ls=(0, (4, 3)))
    axes.set_yscale("log")
    axes.set_ylim(least / 2, min(1.5, 4 * float(shares.max())))
    axes.set_xlim(edges[0], edges[-1])
    axes.axvline(0, color=palette.REST, lw=0.8)
    before = "before the ReLU" if scan.signed else "after the ReLU"
    canvas.name_axes(axes, f"response of {short(scan.unit)} ({before})", "share of positions per bin")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(palette.REST)
    axes.tick_params(labelsize=9, colors=palette.MUTED, which="both")
    note = "dashed: a normal distribution with the same mean and spread"
    canvas.write(page, width - 36, 72, note, size=10.5, color=palette.MUTED, align="right", limit=80)
    return figure
