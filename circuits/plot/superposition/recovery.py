"""Recovery of a toy model's features by SAEs, by density, beside controls.

It takes what `sae.superposition.recovery` returns, or anything with the same attributes: nothing of `sae` is imported.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from circuits.errors import CircuitsError
from circuits.plot.drawing import canvas, palette
from circuits.plot.superposition.charts import head, log_axis, plain
from circuits.plot.units.weight_factors import FACTOR_COLORS

_DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)))
_BLUES = ("#B9D3EA", "#7FB0DA", "#3F86C6", "#12508A", "#0B2F52")
"""SAEs with few active latents, to many."""


def recovery_figure(result: Any, *, title: str = "") -> Figure:
    """Cosines with true features, share recovered and unexplained variance, each against sparsity.

    Lines are means over toy models, bands their range. Left of the dotted line features are denser than sparsity can
    tell from mixtures; a ring marks where an SAE's active latents are as many as features are active.

    Args:
        result: of `sae.superposition.recovery`.
        title: what it is.

    Raises:
        CircuitsError: fewer than two densities, which make no line.
    """
    if len(result.densities) < 2:
        raise CircuitsError("a line over densities takes at least two of them")
    figure = canvas.figure_of_size(11.4, 5.3)
    about = (
        f"SAEs on the hidden layer of n = {result.features} features in m = {result.hidden} dimensions; "
        "left of the dotted line sparsity does not separate features from mixtures of them"
    )
    head(figure, title or "Features of a toy model recovered by sparse autoencoders", about)
    order = np.argsort(-np.asarray(result.densities), kind="stable")
    sparsity = 1 / np.asarray(result.densities)[order]
    tints = _tints(result.active_latents)
    panels = (
        ("mmcs", "mean cosine of a feature with its nearest latent", result.control_mmcs, 1.04),
        ("recovered", "share of features with a latent at cosine > 0.9", result.control_recovered, 1.04),
        ("fvu", "variance unexplained (FVU)", None, max(0.7, 1.05 * float(np.max(result.fvu)))),
    )
    for i, (name, label, control, top) in enumerate(panels):
        axes = figure.add_axes((0.055 + 0.325 * i, 0.235, 0.27, 0.60))
        if control is not None:
            for values, dash in zip(np.asarray(control)[:, order], _DASHES, strict=False):
                axes.plot(sparsity, values.mean(axis=1), color=palette.REST, lw=1.3, ls=dash, zorder=1)
        values = np.asarray(getattr(result, name))[:, order]
        for row, tint, k in zip(values, tints, result.active_latents, strict=True):
            middle = row.mean(axis=1)
            axes.fill_between(sparsity, row.min(axis=1), row.max(axis=1), color=tint, alpha=0.18, lw=0, zorder=2)
            axes.plot(sparsity, middle, color=tint, lw=1.7, marker="o", ms=3.4, zorder=3)
            _ring(axes, sparsity, middle, np.asarray(result.active)[order].mean(axis=1), k, tint)
        _boundary(axes, result)
        log_axis(axes, sparsity)
        axes.set_xlim(sparsity.min() / 1.08, sparsity.max() * 1.08)
        axes.set_ylim(-0.02 * top, top)
        axes.set_title(label, fontsize=9.5, loc="left", color=palette.INK)
        axes.set_xlabel("1 / density", fontsize=9.5)
        plain(axes)
    _counts(figure, result, order)
    _legend(figure, result, tints)
    return figure


def _tints(active_counts: tuple[int | None, ...]) -> list[str]:
    """Blue for those held to a number of latents, darker the more; other colors for those with a penalty."""
    counts = sorted({k for k in active_counts if k is not None})
    free = iter(("#CA5A00", *FACTOR_COLORS[2:]))
    blues = _BLUES[max(0, len(_BLUES) - 1 - len(counts)) :] if len(counts) < len(_BLUES) else _BLUES
    return [next(free, palette.INK) if k is None else blues[counts.index(k) % len(blues)] for k in active_counts]


def _ring(
    axes: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    active: NDArray[np.float64],
    k: int | None,
    tint: str,
) -> None:
    """Where features active at once come down to the latents that an SAE has."""
    if k is None or not active.min() <= k <= active.max():
        return
    # active features fall with sparsity; interpolate between densities
    at = float(np.exp(np.interp(k, active[::-1], np.log(x)[::-1])))
    height = float(np.interp(np.log(at), np.log(x), y))
    axes.plot([at], [height], marker="o", ms=10, mfc="none", mec=tint, mew=1.4, zorder=4)


def _boundary(axes: Axes, result: Any) -> None:
    """The density at which features stop being sparser than their mixtures."""
    kurtosis, logs = np.asarray(result.kurtosis), np.log(1 / np.asarray(result.densities))
    order = np.argsort(logs)
    if kurtosis.min() < 0 < kurtosis.max():
        # kurtosis is about linear in 1 / density
        at = float(np.interp(0.0, kurtosis[order], np.exp(logs[order])))
        axes.axvline(at, color=palette.MUTED, lw=1.1, ls=(0, (1, 2)), zorder=0)


def _counts(figure: Figure, result: Any, order: NDArray[np.int64]) -> None:
    """A line of text: features represented, and active at once, at some densities."""
    indices = order[np.unique(np.linspace(0, len(order) - 1, 5).round().astype(int))]
    texts = [
        f"{np.mean(result.represented[i]):.3g} ({np.mean(result.active[i]):.2g}) at {100 * result.densities[i]:.3g} %"
        for i in indices
    ]
    text = f"features represented (active at once) by density: {', '.join(texts)}"
    figure.text(0.055, 0.115, canvas.printable(text, 160), fontsize=8.5, color=palette.MUTED, parse_math=False)


def _legend(figure: Figure, result: Any, tints: list[str]) -> None:
    lines = [
        Line2D([], [], color=tint, lw=1.7, marker="o", ms=3.4, label=canvas.printable(name, 24))
        for name, tint in zip(result.names, tints, strict=True)
    ]
    lines += [
        Line2D([], [], color=palette.REST, lw=1.3, ls=dash, label=canvas.printable(name, 24))
        for name, dash in zip(result.controls, _DASHES, strict=False)
    ]
    ring = Line2D([], [], ls="none", marker="o", ms=9, mfc="none", mec=palette.MUTED, label="k = active features")
    figure.legend(
        handles=[*lines, ring], loc="lower left", bbox_to_anchor=(0.047, 0.005), ncols=5, fontsize=8.5, frameon=False,
        handlelength=2.4, columnspacing=1.6,
    )  # fmt: skip
