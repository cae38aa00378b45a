"""Exports of a page: its figure as PNG, SVG or PDF, its data as JSON, its table as CSV."""

from __future__ import annotations

import csv
import io
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from apps.explorer.server.security import checked_name
from apps.explorer.session.state import to_json
from circuits import plot

DRAWING = threading.Lock()  # matplotlib's settings belong to the whole process
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_KINDS = {"png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf"}


@dataclass(frozen=True)
class Export:
    """The exports of a page. Each is computed when its button is clicked.

    Attributes:
        name: of the files, without suffix.
        figure: returns a matplotlib figure; data: returns a value for JSON; rows: returns a table; page: returns HTML.
    """

    name: str
    figure: Callable[[], Any] | None = None
    data: Callable[[], Any] | None = None
    rows: Callable[[], Sequence[Mapping[str, Any]]] | None = None
    page: Callable[[], str] | None = None


def figure_bytes(figure: Callable[[], Any], kind: str) -> bytes:
    """A figure as the bytes of a PNG, SVG or PDF file."""
    with DRAWING, tempfile.TemporaryDirectory(prefix="explorer-") as folder:
        path = Path(folder) / f"figure.{kind}"
        plot.save_figure(figure(), path)
        return path.read_bytes()


def csv_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A table as CSV; text that a spreadsheet would run as a formula is quoted."""
    buffer = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"'{v}" if isinstance(v, str) and v.startswith(_FORMULA) else v for k, v in row.items()})
    return buffer.getvalue().encode("utf-8")


def file_name(name: str) -> str:
    """An address as a file's name.

    >>> file_name("scenes/mixed4a:11")
    'scenes-mixed4a-11'
    """
    return checked_name("".join(c if c.isalnum() or c in "._" else "-" for c in name)[:80].strip("-.") or "view")


def buttons(export: Export) -> None:
    """One button for each kind of file."""
    name = file_name(export.name)
    if export.figure is not None:
        with st.container(horizontal=True, gap="small"):
            for kind, mime in _KINDS.items():
                _button(name, kind, mime, lambda kind=kind, figure=export.figure: figure_bytes(figure, kind))  # type: ignore[misc]
    with st.container(horizontal=True, gap="small"):
        if (data := export.data) is not None:
            _button(name, "json", "application/json", lambda: to_json(data()).encode("utf-8"))
        if (rows := export.rows) is not None:
            _button(name, "csv", "text/csv", lambda: csv_bytes(rows()))
        if (page := export.page) is not None:
            _button(name, "html", "text/html", lambda: page().encode("utf-8"))


def _button(name: str, kind: str, mime: str, content: Callable[[], bytes]) -> None:
    key, file = f"export-{kind}", f"{name}.{kind}"
    st.download_button(kind.upper(), content, file, mime, key=key, on_click="ignore")
