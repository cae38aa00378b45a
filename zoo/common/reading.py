"""Files from outside: only regular ones are opened, of bounded size; what they hold is checked before it is used.

A name in a folder may be a pipe or a device, which waits for ever or never ends; a document may be nested until the
parser gives up, or hold text where a number belongs. Everything that reads a file which somebody else may have
written goes through here: bytes, then JSON, then `fits` for documents and `check_arrays` for arrays.
"""

from __future__ import annotations

import json
import math
import os
import stat
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from io import BufferedReader
from typing import Annotated, Any, TypeVar

import msgspec

DOCUMENT_BYTES = 1 << 28
"""Largest document that is read whole: 256 MB; the index of a sweep of ten thousand units takes 60."""

_TABLE_BYTES = 1 << 23
"""Largest table of tensors in a PyTorch file: a tensor takes some 100 bytes of it, and read, a byte may take 500."""

_DIGITS = 40
"""Of whole numbers in documents; ones of thousands of digits would come back in errors."""

T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
"""A whole number of at least 0."""
Positive = Annotated[int, msgspec.Meta(ge=1, le=1 << 62)]
"""A whole number of at least 1."""
LARGEST_WEIGHT = 1e18
"""Largest size of a weight that is loaded: the squares of larger ones are infinite in float32."""
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
"""SHA-256 in hex."""


def open_file(path: str | os.PathLike[str], most: int | None = None) -> BufferedReader:
    """A regular file, opened to read its bytes; a pipe, a device or a socket is refused without waiting for it.

    Raises:
        OSError: there is none, it cannot be read, is no regular file (`strerror` says so), or has more bytes than
            `most`.
    """
    try:
        # without O_NONBLOCK, opening a pipe waits for somebody to write into it
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a NUL in the name
        raise FileNotFoundError(2, "no file can have this name", str(path)) from error
    try:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(21, "it is a folder", str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(22, "it is a pipe or a device, not a file", str(path))
        if most is not None and status.st_size > most:
            raise OSError(27, f"it has {status.st_size / 1e6:,.0f} MB, at most {most / 1e6:,.0f} are read", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise where another library is about to open something that is no regular file.

    Raises:
        OSError: as `open_file` does.
    """
    open_file(path).close()


def check_archive(file: BufferedReader) -> None:
    """Refuse a PyTorch file that asks for far more memory than it has bytes: 10 KB of compressed marks took 5 GB.

    Raises:
        ValueError: a part is compressed, which `torch.save` does not do, or the table of tensors is too large.
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for part in archive.infolist():
                if part.compress_type != zipfile.ZIP_STORED:
                    raise ValueError("its parts are compressed")
                if part.filename.endswith(".pkl") and part.file_size > _TABLE_BYTES:
                    raise ValueError(f"its table of tensors has {part.file_size / 1e6:.0f} MB")
    file.seek(0)


def read_bytes(path: str | os.PathLike[str], most: int = DOCUMENT_BYTES) -> bytes:
    """The content of a regular file of at most so many bytes.

    Raises:
        OSError: as `open_file` does.
    """
    with open_file(path, most) as file:
        return file.read(most + 1)[:most]


def read_text(path: str | os.PathLike[str], most: int = DOCUMENT_BYTES) -> str:
    """The content of a regular file of at most so many bytes, as UTF-8.

    Raises:
        OSError: as `open_file` does. ValueError: it is no UTF-8.
    """
    return read_bytes(path, most).decode("utf-8")


def parse_json(text: str | bytes) -> Any:
    """What a JSON document says; NaN, Infinity and numbers beyond every float are refused, as JSON has none.

    Raises:
        ValueError: it is no JSON, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=bounded_int)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path: str | os.PathLike[str], most: int = DOCUMENT_BYTES) -> Any:
    """What a JSON file says.

    Raises:
        OSError: as `open_file` does. ValueError: it is no JSON.
    """
    return parse_json(read_bytes(path, most))


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def bounded_int(text: str) -> int:
    """A whole number of a document; raises `ValueError` where it has more digits than any that is meant."""
    if len(text) > _DIGITS:
        raise ValueError(f"{text[:20]}... is too large a number: {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def fits(document: Any, kind: Any, hook: Callable[[Any, Any], Any] | None = None) -> Any:
    """A document as a type: a TypedDict, a list of one, `Count`; entries it does not name may be anything.

    Args:
        document: from JSON.
        kind: what it must be.
        hook: `(type, entry) -> value` for types that JSON has not, such as arrays.

    Raises:
        ValueError: an entry is missing, or of another type; the message says which.

    >>> fits({"unit": "a", "steps": 1.5}, dict[str, str])
    Traceback (most recent call last):
    ValueError: Expected `str`, got `float` - at `$[...]`
    """
    try:
        return msgspec.convert(document, kind, dec_hook=hook)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_as(document: Any, kind: type[T], hook: Callable[[Any, Any], Any] | None = None) -> T:
    """A document as a dataclass, whose fields may be dataclasses; unlike `fits`, refuses entries that no field has.

    Raises:
        ValueError: as `fits`.

    >>> @dataclass
    ... class Peak:
    ...     unit: str
    ...     value: float
    >>> read_as({"unit": "a", "value": 1}, Peak)
    Peak(unit='a', value=1.0)
    """
    value: T = fits(document, kind, hook)
    _refuse_unknown(document, value)
    return value


def _refuse_unknown(document: Any, value: Any) -> None:
    if isinstance(value, tuple):
        for entry, part in zip(document, value, strict=True):
            _refuse_unknown(entry, part)
    elif is_dataclass(value):
        names = {f.name for f in fields(value)}
        if unknown := document.keys() - names:
            raise ValueError(f"{type(value).__name__} has no {min(unknown)}")
        for name in names & document.keys():
            _refuse_unknown(document[name], getattr(value, name))


@dataclass(frozen=True)
class Expected:
    """What an array of a file must be.

    Attributes:
        kind: "whole" or "real" numbers, or one type of them ("torch.float32"); real ones are finite unless `gaps`.
        shape: its sizes; a name stands for a size that all arrays with that name share.
        low, high: between which all values lie.
        gaps: whether NaN stands for what was not measured.
    """

    kind: str
    shape: tuple[int | str, ...]
    low: float | None = None
    high: float | None = None
    gaps: bool = False


def check_arrays(
    arrays: Mapping[str, Any], expected: Mapping[str, Expected], sizes: Mapping[str, int] | None = None
) -> None:
    """Check NumPy arrays or torch tensors of a file; others than those expected may be among them.

    Args:
        arrays: name -> array.
        expected: name -> what it must be.
        sizes: sizes that are known.

    Raises:
        ValueError: one is missing, or is something else; the message names it.

    >>> check_arrays({"a": np.zeros((2, 3))}, {"a": Expected("real", ("units", 4))})
    Traceback (most recent call last):
    ValueError: a has shape (2, 3), not (units, 4)
    """
    known = dict(sizes or {})
    for name, want in expected.items():
        if name not in arrays:
            raise ValueError(f"it holds no {name}")
        array = arrays[name]
        shape, kind = tuple(array.shape), _kind(str(array.dtype))
        if want.kind not in (kind, str(array.dtype)):
            raise ValueError(f"{name} holds {array.dtype}, not {want.kind} numbers")
        if len(shape) != len(want.shape) or any(
            size != (known.setdefault(should, size) if isinstance(should, str) else should)
            for size, should in zip(shape, want.shape, strict=True)
        ):
            wanted = ", ".join(f"{s} = {known[s]}" if s in known else str(s) for s in want.shape)
            raise ValueError(f"{name} has shape {shape}, not ({wanted})")
        if 0 in shape:
            continue
        low, high = float(array.min()), float(array.max())  # NaN where there is one
        if not want.gaps and not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{name} has values that are not finite")
        if (want.low is not None and low < want.low) or (want.high is not None and high > want.high):
            bounds = " to ".join("any" if bound is None else f"{bound:g}" for bound in (want.low, want.high))
            raise ValueError(f"{name} spans {low:g} to {high:g}, not {bounds}")


def _kind(dtype: str) -> str:
    if "complex" in dtype or "bool" in dtype:
        return dtype
    return "real" if "float" in dtype else "whole" if "int" in dtype else dtype
