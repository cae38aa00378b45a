"""Work of seconds, done beside the pages: asked for by what it is, done once, remembered for a while.

Pages never compute for long themselves. They ask here, draw what is there, and look again. Work of minutes is a job
(`apps.explorer.server.jobs`), which outlives the browser.
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
"""Results kept; the one that was not asked for longest goes first."""
WAITING = 40
"""Tasks that may wait; more are refused, so that one visitor cannot fill the memory."""


class Busy(CircuitsError):
    """More is waiting than the server will do."""


class Cancelled(CircuitsError):
    """A task that somebody stopped."""


@dataclass
class Task(Generic[T]):
    """One piece of work.

    Attributes:
        what: in words; done, total: how far it is (0 of 0: not known).
    """

    what: str
    done: int = 0
    total: int = 0
    _future: Future[T] = field(default_factory=Future, repr=False)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def finished(self) -> bool:
        """Whether it has ended, well or not."""
        return self._future.done()

    def wait(self, seconds: float) -> bool:
        """Wait for at most so long; whether it has ended."""
        try:
            self._future.exception(timeout=seconds)
        except NotYet:
            return False
        return True

    def result(self) -> T:
        """What came out, or the error that did."""
        return self._future.result()

    def cancel(self) -> None:
        """Stop it at its next step."""
        self._stop.set()

    def report(self, done: int, total: int) -> None:
        """The `progress=` of what is done."""
        if self._stop.is_set():
            raise Cancelled(f"{self.what}: stopped")
        self.done, self.total = done, total

    def _run(self, function: Callable[[Progress], T]) -> None:
        try:
            self.report(0, 0)
            self._future.set_result(function(self.report))
        except BaseException as error:  # it belongs to whoever asks for the result
            if not isinstance(error, CircuitsError):
                log.exception("%s", self.what)
            self._future.set_exception(error)


class Executor:
    """Does tasks one after the other, and remembers what came out."""

    def __init__(self, workers: int = 1) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="explorer")
        self._lock = threading.Lock()
        self._tasks: OrderedDict[Hashable, Task[Any]] = OrderedDict()

    def ask(self, key: Hashable, what: str, function: Callable[[Progress], T]) -> Task[T]:
        """The task of that key: the one that was asked for before, or a new one.

        Args:
            key: everything that the result depends on.
            what: in words.
            function: does it, given a `progress=`.

        Raises:
            Busy: too much is waiting.
        """
        with self._lock:
            task = self._tasks.get(key)
            if task is None:
                self._make_room()
                task = self._tasks[key] = Task(what)
                self._pool.submit(task._run, function)
            self._tasks.move_to_end(key)
            return task

    def forget(self, key: Hashable) -> None:
        """Let the next one who asks have it done anew."""
        with self._lock:
            task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()

    def __len__(self) -> int:
        return len(self._tasks)

    def _make_room(self) -> None:
        waiting = sum(not t.finished for t in self._tasks.values())
        if waiting >= WAITING:
            raise Busy(f"{waiting} tasks are waiting already: try again in a moment")
        for key in [k for k, t in self._tasks.items() if t.finished][: max(0, len(self._tasks) - REMEMBERED + 1)]:
            del self._tasks[key]
