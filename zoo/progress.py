"""Progress of long work: a bar, a function of the caller's, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int], None] | bool | None
"""True for a bar on stderr, a function called with (done, total), or None. A total of 0 means unknown."""


@contextmanager
def reporter(progress: Progress, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A function of (done, total) that shows progress as asked; `unit` is "img", or "B" for bytes."""
    if callable(progress):
        yield progress
        return
    if not progress:
        yield lambda done, total: None
        return
    from tqdm import tqdm

    with tqdm(unit=unit, unit_scale=unit == "B", leave=False) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        yield report
