"""Kernels in words and in characters, for tables. numpy and the library are imported when first used."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from apps.cli.output.console import BLUE, ORANGE

_PLUS, _MINUS = " ·▪■", " ·▫□"
_WIDEST = 7


def reading(kernel: Any, sign: int | None = None) -> str:
    """What a kernel does, the effect of `sign` first: "excites from above, inhibits from below"."""
    from circuits.plot.drawing.wording import kernel_effect

    return kernel_effect(kernel, sign)


def halves(kernel: Any) -> dict[str, float]:
    """Sums of a kernel's upper, lower, left and right half; a middle row or column counts half to each."""
    import numpy as np

    values = np.atleast_2d(np.asarray(kernel, dtype=float))
    rows, columns = values.sum(axis=1), values.sum(axis=0)
    first = [np.clip(len(v) / 2 - np.arange(len(v)), 0, 1) for v in (rows, columns)]
    above, left = float(first[0] @ rows), float(first[1] @ columns)
    return {"above": above, "below": float(rows.sum()) - above, "left": left, "right": float(columns.sum()) - left}


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
    text = Text.assemble(("|", "dim"))
    for row in values:
        for value in row:
            level = round(abs(value) / top * (len(_PLUS) - 1))
            text.append(_PLUS[level] if value >= 0 else _MINUS[level], style=ORANGE if value > 0 else BLUE)
        text.append("|", style="dim")
    return text
