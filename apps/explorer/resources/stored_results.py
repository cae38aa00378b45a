"""Results of background work, kept beside the scan: a restarted explorer gives them at once.

STORE/MODEL/results/DIGEST.safetensors, named after what the result depends on, which is also written into it. A file
that is damaged, or of another version, is computed again; the folder has a bounded size.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from circuits.common.kept_activations import bound
from circuits.common.provenance import provenance
from circuits.errors import CircuitsError
from zoo.common import result_files

T = TypeVar("T")

FOLDER = "results"
MOST = 256 * 2**20
"""Bytes of all files of a model; those that were read least recently are removed first."""


def stored(folder: Path, key: tuple[Any, ...], make: Callable[[], T]) -> T:
    """The result of a key: what its file holds, or what `make` gives, which is then written.

    Args:
        folder: of the model in the store; key: everything that the result depends on, as text and numbers.
        make: computes it. A result that no file keeps, or that the disk does not take, is given all the same.
    """
    name = json.dumps([_version(), provenance()["versions"], key], default=str)
    path = folder / FOLDER / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.safetensors"
    with contextlib.suppress(CircuitsError, OSError):
        written, result = result_files.read(path)
        if written == name:
            os.utime(path)
            there: T = result
            return there
    result = make()
    with contextlib.suppress(CircuitsError, OSError):
        result_files.write(path, (name, result))
        bound(path.parent, MOST)
    return result


def _version() -> str:
    """The version of this package: another one may compute otherwise."""
    try:
        return version("vision-circuits")
    except PackageNotFoundError:
        return "source"
