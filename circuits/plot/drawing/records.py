"""What every result shows without a figure of its own: its rows as a table with bars, a page, a cell of a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from circuits.plot.drawing import canvas, html_page, palette
from circuits.plot.drawing.wording import amount, short

ROWS = 30
"""Rows drawn of a longer table."""
_SMALL = 10
"""Rows in a cell of a notebook."""
_LIGHT = 120_000
"""Bytes of a figure in a cell before it becomes a JPEG: notebooks keep every cell."""
Records = Sequence[Mapping[str, Any]]


def records_figure(title: str, records: Records) -> Figure:
    """Rows as a table, the numbers with bars; one row stands with a line for each of its entries.

    Args:
        title: printed over it.
        records: of `Result.records`.
    """
    names, rows = _laid_out(records)
    wide = [max(6.3 * max(len(text) for text in (name, *(r[i][0] for r in rows))), 40) for i, name in enumerate(names)]
    wide = [min(w, 330.0) + 18 for w in wide]
    figure, axes = canvas.page(max(24 + sum(wide) + 90, 520), 92 + 22 * len(rows))
    canvas.write(axes, 24, 34, title, size=13, bold=True, limit=int((sum(wide) + 90) / 7.6))
    bars = [i for i in range(len(names)) if all(r[i][1] is not None for r in rows)]
    bar = bars[0] if bars and len(rows) > 1 else None
    lengths = [0.0 if bar is None else abs(row[bar][1] or 0.0) for row in rows]
    most = max(lengths, default=0.0)
    left = 24.0
    for i, (name, width) in enumerate(zip(names, wide, strict=True)):
        canvas.note(axes, left, 60, name, size=10.5, limit=int(width / 6))
        for k, row in enumerate(rows):
            y = 80 + 22 * k
            if i == bar and most > 0:
                axes.barh(y, lengths[k] / most * (width - 22), left=left - 4, height=16, color=palette.TILE, zorder=1)
            canvas.write(axes, left, y, row[i][0], size=11, middle=True, limit=int(width / 6.2), zorder=2)
        left += width
    hidden = len(records) - ROWS
    if hidden > 0:
        canvas.note(axes, left, 60, f"and {hidden} more", size=10.5)
    return figure


def records_html(records: Records, most: int = ROWS, *, inline: bool = False) -> Markup:
    """Rows as an HTML table of at most `most` rows, and how many there are besides; `inline` as for `table`."""
    names, rows = _laid_out(records[:most])
    table = html_page.table(names, [[text for text, _ in row] for row in rows], inline=inline)
    rest = len(records) - most
    return html_page.join([table, html_page.tag("p", f"and {rest} more rows", class_="note")]) if rest > 0 else table


def cell_html(title: str, figure: Figure | None, records: Records) -> str:
    """A cell of a notebook: the line, the figure, and rows where there are several or there is no figure."""
    parts = [html_page.tag("pre", title, style="white-space:pre-wrap;margin:0 0 .4em")]
    if figure is not None:
        parts.append(canvas.embedded(figure, title, most=_LIGHT))
    if figure is None or len(records) > 1:
        parts.append(records_html(records, _SMALL, inline=True))
    return str(html_page.tag("div", *parts, style="max-width:100%;overflow-x:auto"))


def result_page(
    title: str, line: str, figure: Figure | None, records: Records, *, command: str, python: str, provenance: Any
) -> str:
    """A result as one self-contained page: its line, its figure, its table, where it came from."""
    return html_page.page(
        "result.html",
        title=title,
        line=line,
        figure=None if figure is None else canvas.embedded(figure, line),
        table=records_html(records, 200),
        command=command,
        python=python,
        provenance=provenance,
    )


def _laid_out(records: Records) -> tuple[list[str], list[list[tuple[str, float | None]]]]:
    """Column names, and for each row text and number of each cell."""
    if len(records) == 1:
        return ["", "value"], [
            [(name.replace("_", " "), None), _cell(value, name=name)] for name, value in records[0].items()
        ]
    names = list(dict.fromkeys(name for row in records for name in row))
    names = [
        n for n in names if not all(row.get(n) is None or isinstance(row[n], list | dict) for row in records)
    ] or names
    signed = {n for n in names if any(isinstance(row.get(n), float) and row[n] < 0 for row in records)}
    return [n.replace("_", " ") for n in names], [
        [_cell(row.get(n), n in signed, n) for n in names] for row in records[:ROWS]
    ]


_NAMES = frozenset("seed index unit channel latent class cluster variant year image row column id number".split())
"""Columns, or last words of their names, whose numbers are names: they are written without separators."""


def _cell(value: Any, signed: bool = False, name: str = "") -> tuple[str, float | None]:
    """Text and number of a value; in a column that has negative numbers the positive ones bear a sign, too."""
    if value is None:
        return "", None
    if isinstance(value, bool):
        return ("yes" if value else "no"), None
    if isinstance(value, int):
        text = str(value) if name.rpartition("_")[2] in _NAMES else f"{value:,}"
        return text.replace("-", "\N{MINUS SIGN}"), float(value)
    if isinstance(value, float):
        return ("+" if signed and value > 0 else "") + amount(value), value
    text = ", ".join(map(str, value)) if isinstance(value, list) else short(str(value))
    return html_page.cropped(html_page.printable(text), 60), None
