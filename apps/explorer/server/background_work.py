"""Work of seconds, in threads beside the pages: submitted by key, done once, its result cached for a while.

A page that ran long computations itself would block its session. It submits them here, draws what is ready and runs
again later. Work belongs to the sessions that wait for it: it stops when none does any more, whether they went to
another view or closed the browser. Work of minutes is a job (`apps.explorer.server.jobs`), which outlives the browser.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError as NotYet
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from apps import memory
from apps.explorer.server.byte_cache import size_of
from circuits.errors import CircuitsError
from zoo.progress import Progress, stoppable

log = logging.getLogger(__name__)
T = TypeVar("T")

MOST = 64 * 2**20
"""Bytes of the results that are cached; the least recently used is dropped first."""
REMEMBERED = 400
"""Number of cached results."""
WAITING = 40
"""Tasks that may be unfinished; more are refused, so that one visitor cannot fill the memory."""
PATIENCE = 2.0
"""Seconds for which a task goes on that nobody waits for: reloading a page takes about one."""
_LOOKS = 0.25
"""Seconds between two looks whether somebody waits."""


class Busy(CircuitsError):
    """Too many tasks are unfinished."""


class Cancelled(CircuitsError):
    """A task that was stopped."""


def everyone(_waiter: Hashable) -> bool:
    """All who ever asked are still there."""
    return True


@dataclass
class Task(Generic[T]):
    """One piece of work.

    Attributes:
        description: in a few words; done, total: its progress (0 of 0: unknown).
        waiters: who waits for it. A task that was submitted for nobody in particular is never abandoned.
        present: whether one who waits is still there.
        size: bytes of its result.
    """

    description: str
    done: int = 0
    total: int = 0
    waiters: set[Hashable] = field(default_factory=set)
    present: Callable[[Hashable], bool] = everyone
    size: int = 0
    _owned: bool = False
    _alone_since: float | None = None
    _looked: float = 0.0
    _future: Future[T] = field(default_factory=Future, repr=False)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def finished(self) -> bool:
        """Whether it has ended, with a result or an error."""
        return self._future.done()

    @property
    def stopped(self) -> bool:
        """Whether it was stopped, or soon will be."""
        return self._stop.is_set()

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
        """Stop it at its next report of progress, or the next operation of a network."""
        self._stop.set()

    def join(self, waiter: Hashable) -> None:
        """Let one more wait for it."""
        self._owned = True
        self._alone_since = None
        self.waiters.add(waiter)

    def check(self) -> None:
        """Raises Cancelled where it was stopped, or nobody has waited for it for a while."""
        now = time.monotonic()
        if self._owned and now - self._looked >= _LOOKS:
            self._looked = now
            if any(self.present(waiter) for waiter in tuple(self.waiters)):
                self._alone_since = None
            elif self._alone_since is None:
                self._alone_since = now
            elif now - self._alone_since >= PATIENCE:
                self._stop.set()
        if self._stop.is_set():
            raise Cancelled(f"{self.description}: stopped")

    def report(self, done: int, total: int) -> None:
        """The `progress` of its function."""
        self.check()
        self.done, self.total = done, total

    def _run(self, function: Callable[[Progress], T]) -> None:
        try:
            with stoppable(self.check):
                self.report(0, 0)
                result = function(self.report)
            self.size = size_of(result)
            self._future.set_result(result)
        except BaseException as error:  # raised again by `result`
            if not isinstance(error, CircuitsError):
                log.exception("%s", self.description)
            self._future.set_exception(error)
        memory.give_back()


class Executor:
    """Runs tasks in a pool of threads, and caches their results.

    Attributes:
        present: whether one who waited is still there; by default all are.
    """

    def __init__(self, workers: int = 1, present: Callable[[Hashable], bool] = everyone, most: int = MOST) -> None:
        self.present, self._most = present, most
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="explorer")
        self._lock = threading.Lock()
        self._tasks: OrderedDict[Hashable, Task[Any]] = OrderedDict()
        self._closed = False
        # the end of a process waits for the threads of its pools, and these take no more work: before that
        register = getattr(threading, "_register_atexit", None)
        if register is not None:
            register(self.close)

    def close(self) -> None:
        """Stop all tasks, and take no more."""
        self._closed = True
        with self._lock:
            tasks = [task for task in self._tasks.values() if not task.finished]
        for task in tasks:
            task.cancel()

    def submit(
        self, key: Hashable, description: str, function: Callable[[Progress], T], waiter: Hashable = None
    ) -> Task[T]:
        """The task of that key: an earlier one, or a new one.

        Args:
            key: everything that the result depends on; description: of the task.
            function: computes the result, given `progress`.
            waiter: the session that waits for it; None for work that is never abandoned.

        Raises:
            Busy: too many tasks are unfinished. Cancelled: the process ends.
        """
        with self._lock:
            task = self._tasks.get(key)
            if self._closed and (task is None or not task.finished):  # a page may outlive the server by a moment
                raise Cancelled(f"{description}: the explorer is closing")
            if task is None or task.stopped:
                self._make_room()
                task = self._tasks[key] = Task(description, present=self.present)
                if waiter is not None:
                    task.join(waiter)
                self._pool.submit(task._run, function)
            elif waiter is not None and not task.finished and task._owned:
                task.join(waiter)
            self._tasks.move_to_end(key)
            return task

    def keep(self, waiter: Hashable, keys: Collection[Hashable]) -> None:
        """Let one wait for the tasks of these keys alone: what else it asked for is of a view that it left."""
        with self._lock:
            for key, task in self._tasks.items():
                if key not in keys:
                    task.waiters.discard(waiter)

    def forget(self, key: Hashable, waiter: Hashable = None) -> None:
        """Stop the task of that key and drop its result, unless others than `waiter` wait for it.

        The next `submit` runs it again.
        """
        with self._lock:
            task = self._tasks.get(key)
            if task is None:
                return
            task.waiters.discard(waiter)
            if waiter is not None and not task.finished and any(map(self.present, task.waiters)):
                return
            del self._tasks[key]
        task.cancel()

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def size(self) -> int:
        """Bytes of all results."""
        return sum(task.size for task in self._tasks.values())

    def _make_room(self) -> None:
        waiting = sum(not t.finished and not t.stopped for t in self._tasks.values())
        if waiting >= WAITING:
            raise Busy(f"{waiting} tasks are unfinished: try again in a moment")
        size = self.size
        for key in [k for k, t in self._tasks.items() if t.finished]:
            if len(self._tasks) < REMEMBERED and size <= self._most:
                break
            size -= self._tasks.pop(key).size
