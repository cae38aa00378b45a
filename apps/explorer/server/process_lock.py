"""Who is at a job: its process holds a lock, from its first moment on. Nothing heavy is imported here."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

FOLDER = ".jobs"


def lock_of(place: Path, seconds: float) -> FileLock:
    """The lock of a job; entering it waits for at most so long."""
    return FileLock(place / "lock", timeout=seconds)


def at_work(place: Path) -> bool:
    """Whether a process holds the lock of a job."""
    try:
        with lock_of(place, 0):
            return False
    except Timeout:
        return True
    except OSError:
        return False
