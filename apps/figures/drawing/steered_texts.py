"""Texts of a language model, unsteered and steered, with counts of each group."""

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
_INDENT, _WIDTH = 236, 92


@dataclass(frozen=True)
class TextGroup:
    """A group of texts.

    Attributes:
        name: of the group; texts: examples.
        mentions: share of all texts of the group that mention the steered concept; correct: share of correct sentences.
            Both in [0, 1].
    """

    name: str
    texts: Sequence[str]
    mentions: float
    correct: float


def text_groups_figure(groups: Sequence[TextGroup], *, marks: Sequence[str], title: str, about: str) -> Figure:
    """Groups of texts below each other, with two bars each and highlighted words.

    Args:
        groups: unsteered first.
        marks: words or phrases to highlight; a phrase is highlighted where it is on one line.
        title: of the figure; about: a line below it.
    """
    marked = re.compile("|".join(re.escape(mark) for mark in marks if mark) or "(?!)")
    lines = [[line for text in group.texts for line in _wrapped(text)] for group in groups]
    heights = [max(56, 16 * len(wrapped) + 22) for wrapped in lines]
    figure, axes = canvas.page(WIDE, MARGIN + 62 + sum(heights) + 8)
    legend = f"{about}; orange: share of texts that mention it; blue: share of correct sentences"
    canvas.heading(axes, title, legend, limit=90, room=150)
    y = MARGIN + 62.0
    for group, wrapped, height in zip(groups, lines, heights, strict=True):
        axes.plot([MARGIN, WIDE - MARGIN], [y - 12, y - 12], color=palette.LINE, lw=0.8)
        canvas.write(axes, MARGIN, y + 4, group.name, size=12, bold=True, limit=32)
        for k, (share, color) in enumerate(((group.mentions, palette.EXCITES), (group.correct, palette.INHIBITS))):
            at = y + 14 + 13 * k
            axes.add_patch(Rectangle((MARGIN, at), 130, 9, color=palette.TILE, lw=0))
            axes.add_patch(Rectangle((MARGIN, at), 130 * min(max(share, 0.0), 1.0), 9, color=color, lw=0))
            canvas.write(axes, MARGIN + 138, at + 5, f"{100 * share:.0f} %", size=10.5, middle=True)
        for i, line in enumerate(wrapped):
            _line(axes, line, marked, MARGIN + _INDENT, y + 4 + 16 * i)
        y += height
    return figure


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), _WIDTH, initial_indent="– ", subsequent_indent="   ") or ["–"]


def _line(axes: Axes, line: str, marked: re.Pattern[str], x: float, y: float) -> None:
    """A line in a monospaced font, with highlighted words."""
    step = 6.62  # width of a letter; each word has its own position, since renderers round the width
    for match in marked.finditer(line):
        start, wide = x + match.start() * step - 2, len(match[0]) * step + 3
        axes.add_patch(Rectangle((start, y - 11), wide, 14, color=palette.EXCITES, alpha=0.22, lw=0))
    for match in re.finditer(r"\S+", line):
        canvas.write(axes, x + match.start() * step, y, match[0], size=11, mono=True)
