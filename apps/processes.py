"""Work spread over processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from apps import memory

In = TypeVar("In")
Out = TypeVar("Out")


_WATCHED = 1.0
"""Seconds between two looks whether the parent lives."""


def child_environment(**more: str) -> dict[str, str]:
    """The environment of a Python that we start: it finds our packages, and imports nothing from the current folder.

    Without PYTHONSAFEPATH a `selectors.py` that lies where somebody starts the explorer would run.
    """
    root = str(Path(__file__).resolve().parent.parent)
    paths = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
    return {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1", **more}


def in_child(function: Callable[[], Out]) -> Out:
    """What a function gives; it runs in a process of its own, so that what it imports does not stay in memory.

    In this process where torch is here already, whose threads a fork would not have, and on systems without forks.
    """
    if sys.platform != "linux" or "torch" in sys.modules:
        return function()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        return pool.submit(function).result()


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
    # spawned processes have our environment, and import from the current folder without this
    os.environ["PYTHONSAFEPATH"] = "1"
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(os.getpid(), threads, begin, arguments),
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


def _begin(parent: int, threads: int, begin: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends its processes
    # the parent says who it is: one that is gone while this process starts has left it to another
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    import torch

    memory.reuse()
    torch.set_num_threads(threads)
    if begin is not None:
        begin(*arguments)


def _end_with(parent: int) -> None:
    """End this process once its parent is gone, however that ended."""
    while os.getppid() == parent:
        time.sleep(_WATCHED)
    os._exit(1)
