"""Files that results are kept in: each whole or not there, known by its schema, checked by its digest.

One `Stored` per kind of result (scans, atlases, sweeps, activations, checkpoints) says how its files are recognized
and what to do when one is damaged; the reading and writing is the same for all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from zoo.common import reading
from zoo.common.files import write_atomically, write_text_atomically
from zoo.common.reading import Expected
from zoo.errors import CircuitsError, shorten

_ABOUT = "about"
"""Key of the one entry in a tensor file's head: several entries have no fixed order in the file."""
_DIGESTS = "digests"
"""Key, in that entry, of name -> digest of each tensor."""


@dataclass(frozen=True)
class Stored:
    """How the files of one kind of result are read and written.

    Attributes:
        what: the kind, for errors: "the index of a sweep".
        again: what to do about a damaged file, as a sentence: "Run the sweep again, or give another folder".
        error: class of the errors raised.
        schema: version that is written, and the only one that is read.
        mark: entries that a document of this kind has, such as {"kind": "vision-circuits scan"}.
        shape: a TypedDict that a document must fit, see `zoo.common.reading.fits`; None for any.
    """

    what: str
    again: str
    error: type[CircuitsError] = CircuitsError
    schema: int = 1
    mark: Mapping[str, Any] = field(default_factory=dict)
    shape: Any = None

    # -- errors --------------------------------------------------------------------------------------

    def damaged(self, path: Path, how: object) -> CircuitsError:
        """The error for a file that is not what was written."""
        return self.error(f"{named(path)} is damaged: {shorten(how, 120)}. {self.again}")

    def missing(self, path: Path) -> CircuitsError:
        """The error for a file that should be there."""
        return self.error(f"{named(path)} is missing. {self.again}")

    def foreign(self, path: Path) -> CircuitsError:
        """The error for a file of something else."""
        return self.error(f"{named(path)} is not {self.what}: give another path")

    # -- documents -----------------------------------------------------------------------------------

    def write_json(self, path: Path, document: Mapping[str, Any]) -> None:
        """Write a JSON file, whole or not at all. Numbers that are not finite are refused.

        Raises:
            FileError: the disk does not take it; what was there before still is.
        """
        write_text_atomically(path, json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False))

    def read_json(self, path: Path) -> Any:
        """What a JSON file holds; None where there is no file.

        Raises:
            CircuitsError: it cannot be read, or is no JSON.
        """
        try:
            return reading.read_json(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.error(f"{named(path)} cannot be read: {error.strerror or error}") from error
        except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are
            raise self.damaged(path, f"it is no JSON ({error})") from error

    def read_document(self, path: Path) -> dict[str, Any] | None:
        """The JSON document of this kind in a file; None where there is no file.

        Raises:
            CircuitsError: it cannot be read, is of another kind or schema, or lacks a required entry.
        """
        document: Any = self.read_json(path)
        return None if document is None and not path.exists() else self.check(path, document)

    def check(self, path: Path, document: Any) -> dict[str, Any]:
        """`document`, read from `path`, when it is of this kind.

        Raises:
            CircuitsError: it is of another kind or schema, or lacks a required entry.
        """
        marks = {"schema": document.get("schema"), **self.mark} if isinstance(document, dict) else {}
        if not marks or any(key not in document or document[key] != value for key, value in marks.items()):
            raise self.foreign(path)
        if document.get("schema") != self.schema:
            raise self.error(
                f"{named(path)} has schema {shorten(document.get('schema'), 20)}; this version reads {self.schema}. "
                f"{self.again}"
            )
        if self.shape is not None:
            with self.parsing(path):
                reading.fits(document, self.shape)
        checked: dict[str, Any] = document
        return checked

    @contextlib.contextmanager
    def parsing(self, path: Path) -> Any:
        """Entries of a document are taken apart inside: what is missing or of the wrong kind makes the file damaged."""
        try:
            yield
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise self.damaged(path, f"an entry is missing or of the wrong kind: {error}") from error

    # -- tensors -------------------------------------------------------------------------------------

    def write_tensors(self, path: Path, tensors: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> None:
        """Write tensors or numpy arrays as safetensors, whole or not at all; `about` goes into the head as JSON.

        So do the digests of the tensors, by which reading finds a byte that has changed since.

        Raises:
            FileError: the disk does not take it; what was there before still is.
        """
        plain = {name: _contiguous(values) for name, values in tensors.items()}
        head = {**(about or {}), _DIGESTS: {name: _digest(values) for name, values in plain.items()}}
        metadata = {_ABOUT: json.dumps(head, ensure_ascii=False, sort_keys=True, allow_nan=False)}
        write_atomically(path, lambda temporary: _save(plain, temporary, metadata))

    def read_tensors(
        self,
        path: Path,
        *,
        prefix: str = "",
        framework: Literal["pt", "numpy"] = "pt",
        expected: Mapping[str, Expected] | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> dict[str, Any]:
        """The tensors of a file whose names start with `prefix`, named without it.

        `expected` and `sizes` are what `zoo.common.reading.check_arrays` takes.

        Raises:
            CircuitsError: it is not there, damaged, or holds something else.
        """
        with self._opened(path, framework) as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (not a dict)
            tensors = {name[len(prefix) :]: file.get_tensor(name) for name in names}
            digests = self._about_in(file).get(_DIGESTS, {})  # none in files of earlier versions
            for name, values in tensors.items():
                if prefix + name in digests and digests[prefix + name] != _digest(values):
                    raise ValueError(f"{prefix + name} was changed since it was written")
            reading.check_arrays(tensors, expected or {}, sizes)
            return tensors

    def read_about(self, path: Path) -> dict[str, Any]:
        """What `write_tensors` wrote into a file's head.

        Raises:
            CircuitsError: it is not there, or damaged.
        """
        with self._opened(path, "numpy") as file:
            about = self._about_in(file)
        written = {name: value for name, value in about.items() if name != _DIGESTS}
        if not written:
            raise self.foreign(path)
        return written

    @staticmethod
    def _about_in(file: Any) -> dict[str, Any]:
        about = reading.parse_json((file.metadata() or {}).get(_ABOUT, "null"))
        return about if isinstance(about, dict) and isinstance(about.get(_DIGESTS, {}), dict) else {}

    @contextlib.contextmanager
    def _opened(self, path: Path, framework: Literal["pt", "numpy"]) -> Iterator[Any]:
        try:
            reading.check_regular(path)
            with safe_open(path, framework=framework) as file:
                yield file
        except FileNotFoundError as error:
            raise self.missing(path) from error
        except (SafetensorError, OSError, ValueError, TypeError) as error:
            raise self.damaged(path, error) from error

    # -- digests -------------------------------------------------------------------------------------

    def check_digest(self, path: Path, digest: object) -> Path:
        """`path`, when the file there has this SHA-256.

        Raises:
            CircuitsError: it is missing, or was changed since it was written.
        """
        try:
            same = sha256(path) == digest
        except FileNotFoundError as error:
            raise self.missing(path) from error
        except OSError as error:
            raise self.error(f"{named(path)} cannot be read: {error.strerror or error}") from error
        if not same:
            raise self.damaged(path, "its digest is not the one that was written down")
        return path

    # -- folders -------------------------------------------------------------------------------------

    def check_writable(self, folder: Path) -> None:
        """Whether files can be written into a folder, or it can be made; nothing is made yet.

        Raises:
            CircuitsError: it is a file, or nothing can be written there.
        """
        reason = None
        with contextlib.suppress(OSError, ValueError):
            nearest = folder.absolute()
            if not nearest.is_dir():
                if nearest.exists():
                    raise self.error(f"{named(folder)} is a file; give a folder")
                nearest = next(parent for parent in nearest.parents if parent.exists())
                reason = None if nearest.is_dir() else f"{named(nearest)} is a file"
            if reason is None and os.access(nearest, os.W_OK | os.X_OK):
                return
        raise self.error(f"cannot write into {named(folder)}: {reason or 'not permitted'}")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with reading.open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def named(path: Path) -> str:
    """A path as errors show it."""
    return shorten(path, 200)


def _save(tensors: Mapping[str, Any], path: Path, metadata: dict[str, str] | None) -> None:
    if all(isinstance(values, np.ndarray) for values in tensors.values()):
        from safetensors.numpy import save_file as save_arrays

        save_arrays(dict(tensors), path, metadata)
        return
    from safetensors.torch import save_file

    save_file(dict(tensors), path, metadata)


def _contiguous(values: Any) -> Any:
    return np.ascontiguousarray(values) if isinstance(values, np.ndarray) else values.detach().cpu().contiguous()


def _digest(values: Any) -> str:
    """BLAKE2b of the bytes of an array or a tensor, 128 bits in hex: twice as quick as SHA-256."""
    if not isinstance(values, np.ndarray):  # by torch, which knows types that NumPy has not (bfloat16)
        values = values.reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16).hexdigest()
