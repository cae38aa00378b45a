"""How well dictionaries separate the clusters of polysemantic channels, beside their controls."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from circuits.plot.drawing import canvas, palette

_MARGIN, _NAMES, _WIDE, _GAP, _STEP, _HEAD = 24, 150, 210, 36, 26, 104


def separation_figure(result: Any, *, title: str = "") -> Figure:
    """Adjusted Rand indices: a dot a channel, the mean over channels and its 95 % interval; a panel a measure.

    Args:
        result: a `Separation` of `sae.evaluation.trust.cluster_separation`.
        title: default what was compared.
    """
    names = (*result.dictionaries, *result.controls)
    measures = [m for m in ("clusters", "leading latent", "parts", "classes") if _known(result, names[0], m)]
    width = 2 * _MARGIN + _NAMES + len(measures) * (_WIDE + _GAP) - _GAP
    bottom = _HEAD + _STEP * len(names)
    figure, axes = canvas.page(max(width, 620), bottom + 62)
    canvas.heading(
        axes, title or f"Clusters of {len(result.rows)} polysemantic channels of {result.layer}",
        "a dot a channel; bars: mean over channels and its 95 % interval",
    )  # fmt: skip
    random = np.random.default_rng(0)
    for j, measure in enumerate(measures):
        left = _MARGIN + _NAMES + j * (_WIDE + _GAP)

        def at(value: float, left: float = left) -> float:
            return left + (min(max(value, -0.2), 1.0) + 0.2) / 1.2 * _WIDE

        canvas.write(axes, left + _WIDE / 2, _HEAD - 16, measure, size=11, bold=True, align="center")
        for tick in (0.0, 0.5, 1.0):
            axes.plot([at(tick)] * 2, [_HEAD - 6, bottom], color=palette.LINE, lw=0.8, zorder=0)
            canvas.note(axes, at(tick), bottom + 16, f"{tick:g}", size=10, align="center")
        for i, name in enumerate(names):
            y = _HEAD + (i + 0.5) * _STEP
            color = palette.EXCITES if name in result.dictionaries else palette.INK
            if j == 0:
                canvas.write(axes, _MARGIN, y, name, size=11, middle=True, limit=24)
            values = result.values(name, measure)
            values = values[~np.isnan(values)]
            if not len(values):
                continue
            scatter = y + random.uniform(-7, 7, len(values))
            axes.plot([at(v) for v in values], scatter, ".", ms=3.5, color=color, alpha=0.28, mew=0, zorder=1)
            mean = result.mean(name, measure)
            axes.plot([at(mean.low), at(mean.high)], [y, y], color=color, lw=2.4, zorder=3, solid_capstyle="butt")
            axes.plot([at(mean.value)], [y], "o", ms=6, color=color, mec=palette.PAPER, mew=0.8, zorder=4)
    canvas.note(axes, _MARGIN + _NAMES, bottom + 36, "adjusted Rand index: 1 the same groups, 0 chance", size=10)
    return figure


def _known(result: Any, name: str, measure: str) -> bool:
    return bool((~np.isnan(result.values(name, measure))).any())
