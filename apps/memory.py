"""Memory of a process that runs networks: freed memory is used again, and in servers goes back to the system.

glibc maps every large block anew and unmaps it when it is freed, so that the system clears each tensor of a loop page
by page: measured, up to half of the time of a trace. And it gives each thread an arena of its own, up to eight for
every core, in which what was freed stays: a server that runs every view in a new thread grows with the views.

Python's collector looks at all objects to find those that only refer to each other. Most of them belong to imported
modules, which stay; Streamlit asks for a full collection after every run of a page.
"""

from __future__ import annotations

import atexit
import gc
import sys
import threading
import time
from typing import Any

_OPTIONS = {-8: 1, -3: 1 << 30, -1: (1 << 31) - 1, -2: 1 << 26}
"""Options of glibc's malloc.h: `M_ARENA_MAX`, one arena for all threads; `M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD`,
blocks below 1 GiB are not mapped one by one, and freed ones are given back by `give_back` alone; `M_TOP_PAD`, how much
more than needed is taken from the system at once."""
EVERY = 5.0
"""Seconds between two times that free memory is given back."""
_lock = threading.Lock()
_last = 0.0
_settled = 0


def _libc() -> Any:
    """glibc; None where the C library is another one."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes  # takes longer than all else that `circuits --help` does here

    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def reuse() -> bool:
    """Use freed memory again instead of giving it back, from now on; whether the C library can.

    To be called before threads begin: those that have an arena keep it. Measured over 200 views of the explorer: it
    grew by 190 to 360 MB with the arenas of threads that had begun before, by 60 MB without.
    """
    library = _libc()
    return library is not None and all([library.mallopt(option, value) for option, value in _OPTIONS.items()])


def give_back() -> None:
    """Give free memory back to the system, at most every few seconds."""
    global _last
    with _lock:
        now = time.monotonic()
        if now - _last < EVERY:
            return
        _last = now
    library = _libc()
    if library is not None:
        library.malloc_trim(0)


def settle() -> bool:
    """Take the objects of all modules that were imported out of garbage collections, from now on.

    Measured: 600,000 objects with the explorer's pages, 170 ms of every collection, while no other thread runs Python.

    Returns:
        Whether there were other modules than at the last call.
    """
    global _settled
    with _lock:
        if len(sys.modules) == _settled:
            return False
        if not _settled:
            atexit.register(gc.unfreeze)  # at the end extension modules complain of objects that were not freed
        _settled = len(sys.modules)
    gc.collect()  # what is garbage now would never be freed
    gc.freeze()
    return True
