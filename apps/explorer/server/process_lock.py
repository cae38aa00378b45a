"""The lock that the process of a job holds from its start. Nothing heavy is imported here."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

FOLDER = ".jobs"


def lock_of(folder: Path, seconds: float) -> FileLock:
    """The lock of a job; entering it waits for at most `seconds`."""
    return FileLock(folder / "lock", timeout=seconds)


def at_work(folder: Path) -> bool:
    """Whether a process holds the lock of a job."""
    try:
        with lock_of(folder, 0):
            return False
    except Timeout:
        return True
    except OSError:
        return False
