"""A store: a folder that holds what scans found, each layer in a file of its own, whole or not there.

STORE/MODEL/manifest.json        what was scanned, how, and the digest of every other file
            images.json          names and labels of the images
            layers/LAYER.safetensors
            samples/LAYER.safetensors
            partial/             what a scan that has not ended has counted so far
            next/                a scan that is being put together: it takes the place of the one before as a whole
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

from filelock import FileLock, Timeout

from circuits.errors import CircuitsError
from circuits.network.model import Model
from zoo.common.reading import Count, Positive
from zoo.common.stored import Stored, named
from zoo.networks.own import options_of

SCHEMA = 1
KIND = "vision-circuits scan"
MANIFEST, IMAGES, LAYERS, SAMPLES, PARTIAL = "manifest.json", "images.json", "layers", "samples", "partial"
NEXT, LOCK = "next", ".lock"


class StoreError(CircuitsError):
    """A store that is not there, is damaged, or holds something else than was asked for."""


class _Layer(TypedDict):
    units: Count
    size: tuple[Positive, Positive]
    signed: bool


class _Images(TypedDict):
    name: str
    digest: str
    origin: dict[str, Any] | None


_Request = TypedDict("_Request", {"asked": dict[str, Any]})  # noqa: UP013 - a key of files, which is no name here


class _Manifest(_Request):
    model: str
    weights: str
    input: dict[str, Any]
    images: _Images
    count: Positive
    plan: dict[str, Count]
    layers: dict[str, _Layer]
    files: dict[str, str]
    digest: str


SCANS = Stored(
    "the manifest of a scan",
    "Scan again with --replace, or give another store",
    StoreError,
    SCHEMA,
    mark={"kind": KIND},
    shape=_Manifest,
)


def folder_of(store: str | Path, model: str) -> Path:
    """Where a store keeps the scan of a model."""
    return Path(store).expanduser() / model.replace("/", "--").replace(":", "--")


def models_in(store: str | Path) -> list[str]:
    """Names of the models whose scans a store holds; a damaged scan does not hide the others."""
    names = []
    for path in sorted(Path(store).expanduser().glob(f"*/{MANIFEST}")):
        try:
            data = SCANS.read_json(path)
        except StoreError:
            continue
        if isinstance(data, dict) and data.get("kind") == KIND:
            names.append(str(data.get("model")))
    return names


def own_model_options(store: str | Path, model: str) -> list[str]:
    """The options that open a model of the user's own whose scan a store holds; none for any other model.

    The input is among them where no card file beside the code has it.
    """
    try:
        manifest = read_manifest(folder_of(store, model))
    except StoreError:
        return []
    card = None if manifest is None else manifest.get("card")
    return [] if manifest is None or not isinstance(card, dict) else options_of(card, manifest.get("input", {}))


def own_card(model: Model) -> dict[str, Any] | None:
    """What a file keeps of a model of the user's own, so that it can be opened again; None of any other."""
    if model.card is None or not model.card.own:
        return None
    card: dict[str, Any] = {"own": model.card.own, "weights": model.source, "classes": model.classes}
    card |= {} if model.output is None else {"output": model.output}
    file = Path(model.source.rpartition(" (")[0])  # "w.pth (as given)"
    return card | {"weights_file": str(file.absolute())} if file.is_file() else card


def own_card_and_input(model: Model) -> dict[str, Any] | None:
    """The same with how it is fed, for files that do not say that elsewhere."""
    card = own_card(model)
    return None if card is None else {**card, "input": asdict(model.input)}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What a finished scan says of itself; None where there is none.

    Raises:
        StoreError: damaged, of another version, or of something else.
    """
    if (folder / NEXT / MANIFEST).is_file():  # its writer was killed while it moved files, or is at it
        with contextlib.suppress(Timeout, OSError), FileLock(folder / LOCK, timeout=0):
            move_next(folder)
    path = folder / MANIFEST
    manifest = SCANS.read_document(path)
    if manifest is not None and manifest.get("digest") != digest_of_manifest(manifest):
        raise SCANS.damaged(path, "it was changed since it was written")
    return manifest


def check_links(folder: Path) -> None:
    """Refuse to write where a folder of a scan is a link, by which a stranger has files elsewhere moved or removed.

    Raises:
        StoreError: which it is.
    """
    for name in (LAYERS, SAMPLES, PARTIAL, NEXT, f"{NEXT}/{LAYERS}", f"{NEXT}/{SAMPLES}"):
        if (folder / name).is_symlink():
            raise StoreError(
                f"{named(folder / name)} is a link to another folder, and a scan writes and removes files in its own "
                "only. Put the folder itself there, or give another store"
            )


def move_next(folder: Path) -> None:
    """Put the finished scan in `next` in the place of the one before; called again it goes on where it was killed.

    The manifest comes last. Only files below `next` are moved, whatever its manifest lists, and of the scan before only
    those are removed that its own manifest lists.
    """
    check_links(folder)
    aside = folder / NEXT
    coming = SCANS.read_document(aside / MANIFEST)
    if coming is None:
        return
    try:
        before = SCANS.read_document(folder / MANIFEST) or {"files": {}}
    except StoreError:
        before = {"files": {}}
    for part in (LAYERS, SAMPLES):
        (folder / part).mkdir(exist_ok=True)
        for path in sorted((folder / part).glob("*.safetensors")):
            if f"{part}/{path.name}" in before["files"].keys() - coming["files"].keys():
                path.unlink()
        for path in sorted((aside / part).glob("*.safetensors")):
            path.replace(folder / part / path.name)
    for name in (IMAGES, MANIFEST):
        if (aside / name).is_file():
            (aside / name).replace(folder / name)
    shutil.rmtree(aside, ignore_errors=True)


def digest_of_manifest(data: Mapping[str, Any]) -> str:
    """SHA-256 of all that a manifest says but this."""
    entries = {name: value for name, value in data.items() if name != "digest"}
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def check_file(folder: Path, name: str, files: Mapping[str, Any]) -> Path:
    """The path of a scan's file, after a look whether it is the one that the scan wrote.

    Raises:
        StoreError: it is missing or was changed.
    """
    if name not in files:
        raise SCANS.damaged(folder / MANIFEST, f"it does not list {name}")
    return SCANS.check_digest(folder / name, files[name])
