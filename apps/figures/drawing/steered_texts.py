"""Texts that a language model wrote, as it is and steered, with what was counted in each group."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from circuits.plot.drawing import canvas, palette

MARGIN, WIDE = 24, 980
_LEFT, _ROOM = 236, 92


@dataclass(frozen=True)
class Written:
    """A group of texts.

    Attributes:
        name: how they came about; texts: some of them.
        named: share of all texts of the group that speak of what is steered towards; right: share of sentences that
            are as they should be. Both in [0, 1].
    """

    name: str
    texts: Sequence[str]
    named: float
    right: float


def written_figure(groups: Sequence[Written], *, marks: Sequence[str], title: str, about: str) -> Figure:
    """Groups of texts below each other, with two bars each; words that are meant are marked.

    Args:
        groups: unsteered first.
        marks: words to mark in the texts; several together are marked where they stand in one line.
        title: of the figure; about: a line below it.
    """
    marked = re.compile("|".join(re.escape(one) for one in marks if one) or "(?!)")
    lines = [[line for text in one.texts for line in _wrapped(text)] for one in groups]
    heights = [max(56, 16 * len(some) + 22) for some in lines]
    figure, axes = canvas.page(WIDE, MARGIN + 62 + sum(heights) + 8)
    told = f"{about}; orange: share of texts that name it; blue: share of sentences that are right"
    canvas.heading(axes, title, told, limit=90, room=150)
    y = MARGIN + 62.0
    for one, some, height in zip(groups, lines, heights, strict=True):
        axes.plot([MARGIN, WIDE - MARGIN], [y - 12, y - 12], color=palette.LINE, lw=0.8)
        canvas.write(axes, MARGIN, y + 4, one.name, size=12, bold=True, limit=32)
        for k, (share, color) in enumerate(((one.named, palette.EXCITES), (one.right, palette.INHIBITS))):
            at = y + 14 + 13 * k
            axes.add_patch(Rectangle((MARGIN, at), 130, 9, color=palette.TILE, lw=0))
            axes.add_patch(Rectangle((MARGIN, at), 130 * min(max(share, 0.0), 1.0), 9, color=color, lw=0))
            canvas.write(axes, MARGIN + 138, at + 5, f"{100 * share:.0f} %", size=10.5, middle=True)
        for i, line in enumerate(some):
            _line(axes, line, marked, MARGIN + _LEFT, y + 4 + 16 * i)
        y += height
    return figure


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), _ROOM, initial_indent="– ", subsequent_indent="   ") or ["–"]


def _line(axes: Axes, line: str, marked: re.Pattern[str], x: float, y: float) -> None:
    """A line in letters of one width, marked words on a ground of their own."""
    step = 6.62  # of a letter; each word is placed by itself, as what draws may round it
    for found in marked.finditer(line):
        left, wide = x + found.start() * step - 2, len(found[0]) * step + 3
        axes.add_patch(Rectangle((left, y - 11), wide, 14, color=palette.EXCITES, alpha=0.22, lw=0))
    for word in re.finditer(r"\S+", line):
        canvas.write(axes, x + word.start() * step, y, word[0], size=11, mono=True)
