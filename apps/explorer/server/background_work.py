"""Work of seconds, in threads beside the pages: submitted by key, done once, its result cached for a while.

A page that ran long computations itself would block its session. It submits them here, draws what is ready and runs
again later. Work of minutes is a job (`apps.explorer.server.jobs`), which outlives the browser.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from circuits.errors import CircuitsError
from zoo.progress import Progress

log = logging.getLogger(__name__)
T = TypeVar("T")

REMEMBERED = 96
"""Number of cached results; the least recently used is dropped first."""
WAITING = 40
"""Tasks that may be unfinished; more are refused, so that one visitor cannot fill the memory."""


class Busy(CircuitsError):
    """Too many tasks are unfinished."""


class Cancelled(CircuitsError):
    """A task that was stopped."""


@dataclass
class Task(Generic[T]):
    """One piece of work.

    Attributes:
        description: in a few words; done, total: its progress (0 of 0: unknown).
    """

    description: str
    done: int = 0
    total: int = 0
    _future: Future[T] = field(default_factory=Future, repr=False)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def finished(self) -> bool:
        """Whether it has ended, with a result or an error."""
        return self._future.done()

    def wait(self, seconds: float) -> bool:
        """Wait for at most `seconds`; whether it has ended."""
        try:
            self._future.exception(timeout=seconds)
        except NotYet:
            return False
        return True

    def result(self) -> T:
        """Its result; its error is raised."""
        return self._future.result()

    def cancel(self) -> None:
        """Stop it at its next report of progress."""
        self._stop.set()

    def report(self, done: int, total: int) -> None:
        """The `progress` of its function."""
        if self._stop.is_set():
            raise Cancelled(f"{self.description}: stopped")
        self.done, self.total = done, total

    def _run(self, function: Callable[[Progress], T]) -> None:
        try:
            self.report(0, 0)
            self._future.set_result(function(self.report))
        except BaseException as error:  # raised again by `result`
            if not isinstance(error, CircuitsError):
                log.exception("%s", self.description)
            self._future.set_exception(error)


class Executor:
    """Runs tasks in a pool of threads, and caches their results."""

    def __init__(self, workers: int = 1) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="explorer")
        self._lock = threading.Lock()
        self._tasks: OrderedDict[Hashable, Task[Any]] = OrderedDict()

    def submit(self, key: Hashable, description: str, function: Callable[[Progress], T]) -> Task[T]:
        """The task of that key: an earlier one, or a new one.

        Args:
            key: everything that the result depends on; description: of the task.
            function: computes the result, given `progress`.

        Raises:
            Busy: too many tasks are unfinished.
        """
        with self._lock:
            task = self._tasks.get(key)
            if task is None:
                self._make_room()
                task = self._tasks[key] = Task(description)
                self._pool.submit(task._run, function)
            self._tasks.move_to_end(key)
            return task

    def forget(self, key: Hashable) -> None:
        """Stop the task of that key and drop its result; the next `submit` runs it again."""
        with self._lock:
            task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()

    def __len__(self) -> int:
        return len(self._tasks)

    def _make_room(self) -> None:
        waiting = sum(not t.finished for t in self._tasks.values())
        if waiting >= WAITING:
            raise Busy(f"{waiting} tasks are unfinished: try again in a moment")
        for key in [k for k, t in self._tasks.items() if t.finished][: max(0, len(self._tasks) - REMEMBERED + 1)]:
            del self._tasks[key]
