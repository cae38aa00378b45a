"""Consoles, tables and progress: how the command line looks."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 140
"""Columns of a table when the output is no terminal."""
TINY = 2e-5
"""What a sum in float32 leaves over; shown as 0."""
PATIENCE = 2.0
"""Seconds of work before progress is shown."""
EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""

ORANGE, BLUE = "#e07b1a", "#4a90d9"
"""What excites and what inhibits: the figures' colors, light enough for a dark terminal."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # rich would exit with 1; the reader has simply seen enough
        raise BrokenPipeError


def stdout() -> Console:
    """A console on standard output."""
    return _Console(file=sys.stdout, highlight=False, width=_width(sys.stdout))


def stderr() -> Console:
    """A console on standard error, for progress and messages."""
    return _Console(file=sys.stderr, highlight=False, width=_width(sys.stderr))


def _width(stream: Any) -> int | None:
    return None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH


Report = Callable[[int, int], None]
"""Called with how much is done, and of how much."""


@contextmanager
def progress_bar(what: str) -> Iterator[Report | None]:
    """Progress on stderr of work that takes long; the value is called with (done, total).

    On a terminal it is a bar, after two seconds; elsewhere, in a log, a plain line now and then.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield _Lines(what).report
        return
    with _Bar(what) as bar:
        yield bar.report


class _Lines:
    """A line of progress every `EVERY` seconds at most, and none of work that ends before."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._begun = self._last = time.monotonic()

    def report(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last < EVERY:
            return
        self._last = now
        count = f"{done}/{total}" if total else str(done)
        with contextlib.suppress(OSError, ValueError):  # nobody reads it
            print(f"circuits: {self._what} {count}, {now - self._begun:.0f} s", file=sys.stderr, flush=True)


class _Bar:
    """A rich progress bar that appears only when the work turns out to be long."""

    def __init__(self, what: str) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=stderr(), transient=True)
        self._what = what
        self._task = self._progress.add_task(what, total=None)
        self._timer = threading.Timer(PATIENCE, self._progress.start)
        self._timer.daemon = True

    def __enter__(self) -> _Bar:
        self._timer.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()
        self._timer.join()
        self._progress.stop()

    def report(self, done: int, total: int) -> None:
        count = f"{done}/{total}" if total else str(done)
        self._progress.update(self._task, completed=done, total=total or None, description=f"{self._what} {count}")


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None, right: str = ""
) -> Table:
    """A plain table; `right` has one letter a column, `r` where it is aligned right. Cells may be rich `Text`."""
    grid = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, name in enumerate(columns):
        side = "right" if right[i : i + 1] == "r" else "left"
        # where room is short, headings break before the names of units do
        grid.add_column(name, justify=side, header_style="dim", overflow="fold", no_wrap=i == 0)  # type: ignore[arg-type]
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else Text(text(cell)) for cell in row))
    return grid


def show_next(console: Console, command: str) -> None:
    """A command to go on with, on one line however long it is, so that it runs when it is copied."""
    console.print(Text(f"next: {command}", style="dim"), soft_wrap=True)


def text(value: object) -> str:
    """A value as it stands in a table: three significant decimals, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1e5 else f"{value:.0f}"
    return str(value)


def signed(value: float) -> Text:
    """A number with its sign, orange where it excites and blue where it inhibits."""
    if abs(value) < TINY:
        return Text("0")
    return Text(f"{value:+.3g}", style=ORANGE if value > 0 else BLUE if value < 0 else "")


def clock() -> Callable[[], float]:
    """A function that gives the seconds since this call."""
    start = time.perf_counter()
    return lambda: time.perf_counter() - start
