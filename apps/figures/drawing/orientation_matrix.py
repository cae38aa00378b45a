"""Weights between two families as a matrix, in the order of preferred orientation, beside a shuffled one."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from circuits.plot.drawing import canvas, palette
from circuits.plot.drawing.wording import minus, short
from circuits.tuning.detectors.sign_rule import SignRule

MARGIN = 24


def orientation_matrix(
    rule: SignRule, sources: NDArray[np.float64], targets: NDArray[np.float64], *, seed: int = 0, title: str = ""
) -> Figure:
    """Weights between detectors, both in the order of their orientation; right, with shuffled sources.

    Where units excite those of their own orientation and inhibit opposite ones, an orange band runs along the diagonal.
    Every row is in shares of its largest weight, whatever its sign, so that weak targets show too.

    Args:
        rule: of `circuits.detectors.sign_rule`.
        sources, targets: orientations of both, degrees, in the order of the rule.
        seed: of the shuffle.
        title: what they are.
    """
    rows, columns = np.argsort(targets, kind="stable"), np.argsort(sources, kind="stable")
    shares = rule.weights / np.maximum(np.abs(rule.weights).max(axis=1, keepdims=True), 1e-30)
    ordered = shares[np.ix_(rows, columns)]
    shuffled = shares[np.ix_(rows, np.random.default_rng(seed).permutation(len(sources)))]
    across = max(16.0, min(34.0, 380 / len(columns)))
    down = max(11.0, min(30.0, 420 / len(rows)))
    wide, high, start, top, gap = across * len(columns), down * len(rows), 150.0, 112.0, 64.0
    figure, axes = canvas.page(start + 2 * wide + gap + MARGIN + 20, top + high + 100)
    level = float(np.quantile(rule.shuffled, 0.95))
    about = (
        f"r = {minus(f'{rule.correlation:.2f}')} with the cosine of the angle between them; 95 % of "
        f"{len(rule.shuffled)} shuffles below {minus(f'{level:.2f}')}"
    )
    canvas.heading(axes, title or "Weights between detectors, by orientation", about, limit=80, room=110, y=32)
    for name, values, x in (
        ("in the order of orientation", ordered, start),
        ("sources shuffled", shuffled, start + wide + gap),
    ):
        canvas.write(axes, x, top - 12, name, size=12, bold=True, limit=40)
        canvas.place_image(axes, palette.encode(values, 1.0), x, top, wide, high, sharp=True)
        axes.add_patch(Rectangle((x, top), wide, high, fill=False, edgecolor=palette.LINE, lw=0.9, zorder=4))
    for i, row in enumerate(rows):
        text = f"{short(rule.targets[row])}  {targets[row]:3.0f}°"
        canvas.write(
            axes, start - 8, top + (i + 0.5) * down, text, size=min(10.0, down - 1), align="right", middle=True
        )
    for j, column in enumerate(columns):
        x = start + (j + 0.5) * across
        _upright(axes, x, top + high + 8, f":{rule.sources[column].rpartition(':')[2]} {sources[column]:.0f}°")
    source = short(rule.sources[0]).rpartition(":")[0]
    canvas.write(axes, start - 8, top + high + 18, f"from {source}", size=10.5, color=palette.MUTED, align="right")
    canvas.color_bar(axes, start, top + high + 78, 1.0, "of the row's largest weight")
    return figure


def _upright(axes: Axes, x: float, y: float, text: str) -> None:
    axes.text(
        x, y, canvas.printable(text), fontsize=9.5 * 72 / canvas.DPI, color=palette.INK, rotation=90,
        fontfamily=canvas.FONT, horizontalalignment="center", verticalalignment="top", parse_math=False,
    )  # fmt: skip
