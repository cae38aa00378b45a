"""Which metric tells trained dictionaries from controls: a table of AUROCs, colored."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from circuits.plot.drawing import canvas, palette

_ROW, _COLUMN, _NAMES, _MEANS, _TOP = 30, 74, 190, 70, 124


def metric_table_figure(table: Any, *, title: str = "") -> Figure:
    """AUROC of each metric against each control: orange 1, white .5 (chance), blue 0.

    Args:
        table: a `sae.MetricTable`.
        title: default what was measured.
    """
    rows, controls = table.records(), table.controls
    width, height = 60 + _NAMES + _MEANS + _COLUMN * len(controls), _TOP + _ROW * len(rows) + 56
    figure, page = canvas.page(width, height)
    about = f"{', '.join(table.layers)}; {table.seeds} seeds, {table.images} held-out images"
    canvas.heading(page, title or f"{table.model}: trained dictionaries against controls", about)
    left = 30 + _NAMES + _MEANS
    for j, control in enumerate(controls):
        x = left + _COLUMN * (j + 0.5)
        for k, word in enumerate(control.split(" ")):
            canvas.note(page, x, _TOP - 28 + 14 * k, word, size=9.5, align="center")
    canvas.note(page, left - 14, _TOP - 14, "trained", size=9.5, align="right")
    for i, row in enumerate(rows):
        y = _TOP + _ROW * (i + 0.5)
        canvas.write(page, 30, y, row["metric"], size=11, middle=True)
        canvas.write(page, left - 14, y, _figure(row["trained"]), size=10.5, align="right", middle=True)
        for j, control in enumerate(controls):
            value, x = row[control], left + _COLUMN * j
            if value == value:
                color = palette.encode(np.array([[2 * value - 1]]), 1.0)
                canvas.place_image(page, color, x + 1, y - _ROW / 2 + 1, _COLUMN - 2, _ROW - 2, sharp=True)
            ink = palette.PAPER if abs(2 * value - 1) > 0.75 else palette.INK
            canvas.write(
                page, x + _COLUMN / 2, y, _figure(value), size=10.5, align="center", middle=True, zorder=4, color=ink
            )
    words = "probability that a trained dictionary scores above the control: orange 1, white chance, blue 0"
    canvas.note(page, 30, height - 26, words, size=9.5)
    return figure


def _figure(value: float) -> str:
    return f"{value:.2f}" if value == value else "–"
