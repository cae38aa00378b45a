"""Files that results are kept in: each whole or not there, known by its schema, checked by its digest.

One `Stored` per kind of result (scans, atlases, sweeps, activations, checkpoints) says how its files are recognized
and what to do when one is damaged; the reading and writing is the same for all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from zoo.common.files import write_atomically, write_text_atomically
from zoo.errors import CircuitsError, shorten

_UNFINISHED = re.compile(r"\..+\.[a-z]+\.[^.]+\.tmp")
"""What `write_atomically` calls a file that is not whole yet."""
_ABOUT = "about"
"""Key of the one entry in a tensor file's head: several entries have no fixed order in the file."""


@dataclass(frozen=True)
class Stored:
    """How the files of one kind of result are read and written.

    Attributes:
        what: the kind, for errors: "the index of a sweep".
        again: what to do about a damaged file, as a sentence: "Run the sweep again, or give another folder".
        error: class of the errors raised.
        schema: version that is written, and the only one that is read.
        mark: entries that a document of this kind has, such as {"kind": "vision-circuits scan"}.
        required: entries that a document must have -> their type.
    """

    what: str
    again: str
    error: type[CircuitsError] = CircuitsError
    schema: int = 1
    mark: Mapping[str, Any] = field(default_factory=dict)
    required: Mapping[str, type] = field(default_factory=dict)

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
            return json.loads(path.read_text(encoding="utf-8"))
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
        wrong = [name for name, kind in self.required.items() if not isinstance(document.get(name), kind)]
        if wrong:
            raise self.damaged(path, f"{', '.join(wrong)} missing or of the wrong kind")
        checked: dict[str, Any] = document
        return checked

    @contextlib.contextmanager
    def parsing(self, path: Path) -> Any:
        """Entries of a document are taken apart inside: what is missing or of the wrong kind makes the file damaged."""
        try:
            yield
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise self.damaged(path, f"an entry is missing or of the wrong kind: {error}") from error

    # -- tensors -------------------------------------------------------------------------------------

    def write_tensors(self, path: Path, tensors: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> None:
        """Write tensors or numpy arrays as safetensors, whole or not at all; `about` goes into the head as JSON.

        Raises:
            FileError: the disk does not take it; what was there before still is.
        """
        metadata = None if about is None else {_ABOUT: json.dumps(about, ensure_ascii=False, sort_keys=True)}
        write_atomically(path, lambda temporary: _save(tensors, temporary, metadata))

    def read_tensors(self, path: Path, *, prefix: str = "", framework: Literal["pt", "numpy"] = "pt") -> dict[str, Any]:
        """The tensors of a file whose names start with `prefix`, named without it.

        Raises:
            CircuitsError: it is not there, or damaged.
        """
        with self._opened(path, framework) as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (not a dict)
            return {name[len(prefix) :]: file.get_tensor(name) for name in names}

    def read_about(self, path: Path) -> dict[str, Any]:
        """What `write_tensors` wrote into a file's head.

        Raises:
            CircuitsError: it is not there, or damaged.
        """
        with self._opened(path, "numpy") as file:
            about = json.loads((file.metadata() or {}).get(_ABOUT, "null"))
        if not isinstance(about, dict):
            raise self.foreign(path)
        return about

    @contextlib.contextmanager
    def _opened(self, path: Path, framework: Literal["pt", "numpy"]) -> Iterator[Any]:
        try:
            with safe_open(path, framework=framework) as file:
                yield file
        except FileNotFoundError as error:
            raise self.missing(path) from error
        except (SafetensorError, OSError, ValueError) as error:
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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def named(path: Path) -> str:
    """A path as errors show it."""
    return shorten(path, 200)


def tidy(folder: Path) -> None:
    """Remove what a run that was killed in the middle of writing a file has left in a folder."""
    for left_over in folder.glob(".*.tmp"):
        if _UNFINISHED.fullmatch(left_over.name):
            left_over.unlink(missing_ok=True)


def _save(tensors: Mapping[str, Any], path: Path, metadata: dict[str, str] | None) -> None:
    import numpy as np

    if all(isinstance(values, np.ndarray) for values in tensors.values()):
        from safetensors.numpy import save_file as save_arrays

        save_arrays({name: np.ascontiguousarray(values) for name, values in tensors.items()}, path, metadata)
        return
    from safetensors.torch import save_file

    save_file({name: values.detach().cpu().contiguous() for name, values in tensors.items()}, path, metadata)
