"""Work spread over processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def spread(
    work: Callable[[In], Out],
    items: Iterable[In],
    jobs: int,
    *,
    begin: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[tuple[In, Out]]:
    """Do something with each item in one of several processes; what is done comes back first.

    The cores are divided among the processes. When the loop over the results is left early, or interrupted, the
    processes end with it.

    Args:
        work: a function of a module; items: begun in this order.
        jobs: processes at once.
        begin: called in each process before its first item, with `arguments`.
        arguments: for `begin`.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(threads, begin, arguments),
    )
    finished = False
    try:
        pending: dict[Future[Out], In] = {pool.submit(work, item): item for item in items}
        waiting = set(pending)
        while waiting:
            ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready:
                yield pending[future], future.result()
        finished = True
    finally:
        if not finished:
            for process in list((getattr(pool, "_processes", None) or {}).values()):
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(threads: int, begin: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends its processes
    torch.set_num_threads(threads)
    if begin is not None:
        begin(*arguments)
