"""Files that are either the old one or the whole new one."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath

from filelock import FileLock, Timeout
from platformdirs import user_cache_path
from safetensors import SafetensorError

from zoo.errors import FileError, shorten

HOME_VARIABLE = "CIRCUITS_HOME"


def home() -> Path:
    """The folder for what this project keeps between runs: `$CIRCUITS_HOME` or the platform's user cache."""
    if chosen := os.environ.get(HOME_VARIABLE):
        return Path(chosen).expanduser()
    return user_cache_path("vision-circuits", appauthor=False)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk and rename it into place.

    Raises:
        FileError: the folder cannot be made or written, or the disk is full; what was there before still is.
    """
    try:
        _write(path, write)
    except (OSError, SafetensorError) as error:
        raise FileError(f"cannot write {shorten(path, 200)}: {getattr(error, 'strerror', None) or error}") from error


def write_text_atomically(path: Path, text: str) -> None:
    """Like `write_atomically`, for text, as UTF-8.

    Bytes of file names that are no UTF-8, which Python has as lone surrogates, become `\\udce9`: in JSON that is the
    escape which reads back as the same name.

    Raises:
        FileError: as there.
    """
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="backslashreplace"))


def tidy(folder: Path) -> None:
    """Remove what a run that was killed in the middle of writing a file has left in a folder."""
    for left_over in folder.glob(".*.tmp"):
        if _UNFINISHED.fullmatch(left_over.name):
            left_over.unlink(missing_ok=True)


def _write(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(new_file_mode())  # mkstemp makes files that only their owner can read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


_UNFINISHED = re.compile(r"\..+\.[a-z]+\.[^.]+\.tmp")
"""What `write_atomically` calls a file that is not whole yet."""
INVENTORY = ".vision-circuits.json"
"""Name of the file in which a folder of results says what of it was written by us."""
LOCK = ".vision-circuits.lock"
"""Name of the file that is in a folder of results while somebody writes there."""
ASIDE = ".vision-circuits.aside"
"""Name of the folder in one of results for files that may be replaced, while a command runs."""
_SCRATCH = ".circuits-"
_OWNER = ".owner"
_BEGINNING = 60
"""Seconds after which a scratch folder that is empty has no owner who is about to say so."""


@contextlib.contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A hidden folder in `parent` to write into, removed at the end; so are those of runs that were killed.

    Whose owner lives is known by a lock on a file in it, which the system drops when a process ends.

    Raises:
        OSError: nothing can be written there.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for other in parent.glob(f"{_SCRATCH}{'?' * 8}"):
        with contextlib.suppress(Timeout, OSError):
            if (other / _OWNER).is_file():
                with FileLock(other / _OWNER, timeout=0):
                    _remove_scratch(other)
            elif time.time() - other.stat().st_mtime > _BEGINNING:
                other.rmdir()  # of a run that was killed as it made it, or removed it; not if it holds anything
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=_SCRATCH))
    try:
        with FileLock(folder / _OWNER):
            yield folder
    finally:
        _remove_scratch(folder)


def _remove_scratch(folder: Path) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name != _OWNER:  # goes last, so that one whose removal is killed is still known as ours
            remove_tree(path)
    remove_tree(folder)


def remove_tree(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it, as far as that is there and may be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def only_writer(folder: Path, seconds: float = 0) -> Iterator[None]:
    """Inside, no other process and no other thread writes into a folder; one that is killed holds nothing.

    Args:
        folder: that is there.
        seconds: how long to wait for another one.

    Raises:
        FileError: another one is writing there. OSError: nothing can be written there.
    """
    lock = FileLock(folder / LOCK, is_singleton=True)  # one of a path, so that it may be held twice
    try:
        lock.acquire(timeout=seconds)
    except Timeout as error:
        raise FileError(
            f"another run is writing {shorten(folder, 200)}; wait for it, or give another folder"
        ) from error
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            with contextlib.suppress(OSError):
                (folder / LOCK).unlink()  # while it is held: one that waits sees that its file is gone
        lock.release()


def move_files(folder: Path, into: Path, last: str = "") -> None:
    """Move all files of a `scratch` folder into another, with their subfolders, each in one step; `last` comes last.

    Raises:
        OSError: one cannot be moved; before any is, where one would go through a link into another folder.
    """
    files = staged_files(folder)
    for file in files:
        if (name := linked(into, file.relative_to(folder))) is not None:
            raise OSError(errno.ELOOP, f"{shorten(name)} there is a link to another folder")
    for file in sorted(files, key=lambda path: path.name == last):
        target = into / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.chmod(new_file_mode())
        file.replace(target)


def linked(folder: Path, name: PurePath) -> PurePath | None:
    """The folder on the way from `folder` to what it calls `name` that is a link; None where there is none."""
    return next((parent for parent in list(name.parents)[:-1] if (folder / parent).is_symlink()), None)


def staged_files(folder: Path) -> list[Path]:
    """The files that were written into a `scratch` folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _OWNER)


def new_file_mode() -> int:
    """The permissions that a new file gets here."""
    mask = os.umask(0o022)  # there is no way to read the mask but to set it
    os.umask(mask)
    return 0o666 & ~mask
