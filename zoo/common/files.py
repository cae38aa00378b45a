"""Files that are either the old one or the whole new one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from zoo.errors import FileError, shorten


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


def new_file_mode() -> int:
    """The permissions that a new file gets here."""
    mask = os.umask(0o022)  # there is no way to read the mask but to set it
    os.umask(mask)
    return 0o666 & ~mask
