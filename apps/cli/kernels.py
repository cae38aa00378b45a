"""Kernels in words and in characters, for tables. numpy and the library are imported when first used."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from apps.cli.console import BLUE, ORANGE

_PLUS, _MINUS = " ·▪■", " ·▫□"
_WIDEST = 7


def reading(kernel: Any) -> str:
    """What a kernel does: "excites from above, inhibits from below"."""
    from circuits.plot.reading import kernel_effect

    return kernel_effect(kernel)


def shares(kernel: Any) -> dict[str, float]:
    """Shares of what excites (or, for a kernel that mostly inhibits, of what inhibits) in each half."""
    import numpy as np

    from circuits.plot.reading import halves

    found = halves(kernel, 1 if float(np.asarray(kernel).sum()) >= 0 else -1)
    return {"above": found.above, "below": found.below, "left": found.left, "right": found.right}


def sketch(kernel: Any) -> Text:
    """The kernel in one line, rows divided by bars: size by character, orange excites, blue (hollow) inhibits.

    Kernels wider than seven are cut to their middle.
    """
    import numpy as np

    values = np.atleast_2d(np.asarray(kernel, dtype=float))
    for axis in range(2):
        extra = max(0, values.shape[axis] - _WIDEST)
        values = np.take(values, range(extra // 2, extra // 2 + min(values.shape[axis], _WIDEST)), axis=axis)
    top = float(np.abs(values).max()) or 1.0
    drawn = Text("|", style="dim")
    for row in values:
        for value in row:
            level = round(abs(value) / top * (len(_PLUS) - 1))
            drawn.append(_PLUS[level] if value >= 0 else _MINUS[level], style=ORANGE if value > 0 else BLUE)
        drawn.append("|", style="dim")
    return drawn
