"""A store: a folder that holds what scans found, each layer in a file of its own, whole or not there.

STORE/MODEL/manifest.json        what was scanned, how, and the digest of every other file
            images.json          names and labels of the pictures
            layers/LAYER.safetensors
            samples/LAYER.safetensors
            partial/             what a scan that has not ended has counted so far
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from circuits.errors import CircuitsError, shorten
from zoo.common.files import write_atomically, write_text_atomically

SCHEMA = 1
KIND = "vision-circuits scan"
MANIFEST, IMAGES, LAYERS, SAMPLES, PARTIAL = "manifest.json", "images.json", "layers", "samples", "partial"


class StoreError(CircuitsError):
    """A store that is not there, is damaged, or holds something else than was asked for."""


def folder_of(store: str | Path, model: str) -> Path:
    """Where a store keeps the scan of a model."""
    return Path(store).expanduser() / model.replace("/", "--").replace(":", "--")


def models_in(store: str | Path) -> list[str]:
    """Names of the models whose scans a store holds."""
    found = []
    for path in sorted(Path(store).expanduser().glob(f"*/{MANIFEST}")):
        data = read_json(path)
        if isinstance(data, dict) and data.get("kind") == KIND:
            found.append(str(data.get("model")))
    return found


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    text = json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False)
    write_text_atomically(path, text)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any] | None = None) -> None:
    """Write arrays as safetensors, whole or not at all; `about` goes into the file's head as JSON."""
    ready = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    # one entry only: several have no fixed order in the file
    metadata = None if about is None else {"about": json.dumps(about, ensure_ascii=False, sort_keys=True)}
    write_atomically(path, lambda temporary: save_file(ready, temporary, metadata))


def read_arrays(path: Path, *, prefix: str = "") -> dict[str, NDArray[Any]]:
    """The arrays of a file whose names start with `prefix`, named without it.

    Raises:
        StoreError: it is not there, or damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return {name[len(prefix) :]: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}
    except FileNotFoundError as error:
        raise StoreError(f"{named(path)} is missing; scan again") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, str(error)) from error


def read_about(path: Path) -> dict[str, Any]:
    """What `write_arrays` was told to write into a file's head.

    Raises:
        StoreError: it is damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get("about", "null"))
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(about, dict):
        raise damaged(path, "its head is missing")
    return about


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What a finished scan says of itself; None where there is none.

    Raises:
        StoreError: damaged, of another version, or of something else.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    data = read_json(path)
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise StoreError(f"{named(path)} is not the manifest of a scan: give another store")
    if data.get("schema") != SCHEMA:
        raise StoreError(
            f"{named(path)} has schema {shorten(data.get('schema'), 20)}; this version reads {SCHEMA}: scan again"
        )
    kinds = {"model": str, "weights": str, "images": dict, "layers": dict, "files": dict, "plan": dict, "count": int}
    wrong = [name for name, kind in kinds.items() if not isinstance(data.get(name), kind)]
    if wrong:
        raise damaged(path, f"{', '.join(wrong)} missing or of the wrong kind")
    if data.get("digest") != digest_of_manifest(data):
        raise damaged(path, "it was changed since it was written")
    return data


def digest_of_manifest(data: Mapping[str, Any]) -> str:
    """SHA-256 of all that a manifest says but this."""
    said = {name: value for name, value in data.items() if name != "digest"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def check_file(folder: Path, name: str, files: Mapping[str, Any]) -> Path:
    """The path of a scan's file, after a look whether it is the one that the scan wrote.

    Raises:
        StoreError: it is missing or was changed.
    """
    path = folder / name
    if name not in files:
        raise damaged(folder / MANIFEST, f"it does not list {name}")
    try:
        found = digest_of(path)
    except FileNotFoundError as error:
        raise StoreError(f"{named(path)} is missing; scan again") from error
    if found != files[name]:
        raise damaged(path, "its digest is not the one in the manifest")
    return path


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """What a JSON file says.

    Raises:
        StoreError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{named(path)} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise damaged(path, f"it is no JSON ({error})") from error


def damaged(path: Path, how: str) -> StoreError:
    """The error for a file that is not what was written."""
    return StoreError(
        f"{named(path)} is damaged: {shorten(how, 120)}. Scan again with --replace, or give another store"
    )


def named(path: Path) -> str:
    """A path as errors show it."""
    return shorten(path, 200)
