"""Memory of the server: freed memory goes back to the system.

glibc gives each thread an arena of its own, up to eight for every core, and what is freed in one stays with it.
Streamlit runs every view in a new thread, so that a server that frees all it takes still grows with the views.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time

_ARENAS_OPTION, ARENAS = -8, 2
"""`M_ARENA_MAX` of glibc's malloc.h, and how many arenas all threads share."""
EVERY = 5.0
"""Seconds between two times that free memory is given back."""
_lock = threading.Lock()
_last = 0.0


def _libc() -> ctypes.CDLL | None:
    """glibc; None where the C library is another one."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def limit_arenas() -> bool:
    """Let all threads that start from now on share a few arenas; whether the C library can."""
    library = _libc()
    return library is not None and bool(library.mallopt(_ARENAS_OPTION, ARENAS))


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
