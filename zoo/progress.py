"""Progress of long work: a bar, a function of the caller's, or nothing; and work that can be stopped on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
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


_CHECK: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)


@contextmanager
def stoppable(check: Callable[[], None]) -> Iterator[None]:
    """Work that ends early when `check` raises: it is called before every operation of a network, in this thread.

    What the work holds (hooks, edits, locks) is given up as after any other error.
    """
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


def check_stopped() -> None:
    """Raises what the `check` of `stoppable` raises; does nothing outside of it."""
    check = _CHECK.get()
    if check is not None:
        check()
