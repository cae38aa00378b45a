"""A folder of images with what is known of each: `manifest.json`, written for drawn scenes and read back."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NotRequired, Protocol, TypedDict

import numpy as np
import numpy.typing as npt
from PIL import Image

from zoo.common.files import ASIDE, INVENTORY, LOCK, move_files, scratch, write_text_atomically
from zoo.common.reading import fits, parse_json, read_bytes
from zoo.errors import ImageError, shorten

if TYPE_CHECKING:
    from zoo.scenes.generate import Scene

log = logging.getLogger(__name__)

FILENAME = "manifest.json"
SCHEMA = 1
KIND = "vision-circuits images"


class _Part(TypedDict):
    name: str
    box: tuple[int, int, int, int]


class _Row(TypedDict):
    file: str
    label: str
    parts: NotRequired[list[_Part]]
    arrangement: NotRequired[str]


class _Document(TypedDict):
    name: str
    classes: list[str]
    images: list[_Row]
    unfinished: NotRequired[list[str]]


class AnnotatedPart(Protocol):
    """A part that an image shows: its name, box `(x0, y0, x1, y1)` in pixels (end exclusive), and mask where known."""

    @property
    def name(self) -> str: ...
    @property
    def box(self) -> tuple[int, int, int, int]: ...
    @property
    def mask(self) -> npt.NDArray[np.bool_] | None: ...


@dataclass(frozen=True)
class PartBox:
    """A part that can be seen: its name, box `(x0, y0, x1, y1)` in pixels (end exclusive), and mask where known."""

    name: str
    box: tuple[int, int, int, int]
    mask: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Annotation:
    """What is drawn in an image: the class, how the parts are arranged, and the parts."""

    label: str
    parts: tuple[AnnotatedPart, ...]
    arrangement: str = ""


@dataclass(frozen=True)
class Entry:
    """One image of a manifest: its file, relative to the manifest, and what is known of it."""

    file: str
    label: str
    annotation: Annotation


@dataclass(frozen=True)
class Manifest:
    """A manifest as read: a name, the classes in order, and the images."""

    name: str
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]

    @property
    def labels(self) -> list[int]:
        """The class index of each image."""
        order = {name: index for index, name in enumerate(self.classes)}
        return [order[entry.label] for entry in self.entries]

    @property
    def annotations(self) -> list[Annotation]:
        """What is drawn in each image."""
        return [entry.annotation for entry in self.entries]


def annotate(scene: Scene) -> Annotation:
    """What is known of a drawn scene, masks included."""
    parts = tuple(PartBox(part.name, part.box, part.mask) for part in scene.parts)
    return Annotation(scene.label, parts, scene.arrangement)


def _inside(name: str, path: Path) -> str:
    """A file name of a manifest: a stranger's may not have files elsewhere read, or removed."""
    file = PurePosixPath(name)
    if file.is_absolute() or ".." in file.parts or "\\" in name or ":" in name:
        raise ImageError(f"{path} names an image outside its folder: {shorten(name)!r}")
    return str(file)


def _entry(row: Any, path: Path, classes: tuple[str, ...]) -> Entry:
    file = _inside(row["file"], path)
    if row["label"] not in classes:
        raise ImageError(f"{path} has an unknown label: {shorten(row['label'])!r}")
    parts = []
    for part in row.get("parts", []):
        x0, y0, x1, y1 = part["box"]
        parts.append(PartBox(part["name"], (x0, y0, x1, y1)))
    return Entry(file, row["label"], Annotation(row["label"], tuple(parts), row.get("arrangement", "")))


def read(path: Path) -> Manifest | None:
    """The manifest at `path`; None when there is none, or a JSON file of another kind.

    Raises:
        ImageError: one of ours, but damaged, of a later schema, of images that are not all there, or naming files
            outside its folder.
    """
    manifest, unfinished = _read(path)
    if unfinished:
        raise ImageError(f"{shorten(path, 200)}: drawing was stopped before the end; run `circuits images` again")
    return manifest


def _read(path: Path) -> tuple[Manifest | None, list[str]]:
    """The manifest, and the names of the files of which some may be missing where drawing was stopped."""
    if not os.path.isfile(path):
        return None, []
    try:
        content = read_bytes(path)
        data = parse_json(content)
    except OSError:
        return None, []
    except ValueError as error:
        if KIND.encode() not in content:
            return None, []  # of another program
        raise ImageError(f"{shorten(path, 200)} is damaged: {shorten(error)}") from error
    if not isinstance(data, dict) or data.get("kind") != KIND:
        return None, []
    if data.get("schema") != SCHEMA:
        raise ImageError(f"{path} has schema {shorten(data.get('schema'))}; this version reads {SCHEMA}")
    try:
        fits(data, _Document)
        classes = tuple(data["classes"])
        entries = tuple(_entry(row, path, classes) for row in data["images"])
        if not entries:
            raise ImageError(f"{path} lists no images")
        unfinished = [_inside(name, path) for name in data.get("unfinished", [])]
        return Manifest(str(data["name"]), classes, entries), unfinished
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(f"{path} is damaged: {type(error).__name__} {shorten(error, 60)}") from error


def export_scenes(n: int, out: str | os.PathLike[str], seed: int = 0) -> Path:
    """Draw `n` scenes into the folder `out` as PNGs with a manifest of labels and part boxes.

    The folder appears only when all is written; one that this function made before is replaced, as long as nothing
    was added to it.

    Args:
        n: how many, each class in turn.
        out: a folder that does not exist, is empty, or was made by this function.
        seed: of the generator; `scenes:N@SEED` are the same images.

    Returns:
        The path of the manifest.

    Raises:
        ImageError: a bad number, or a folder with other things in it.
    """
    if n < 1:
        raise ImageError(f"at least one scene is drawn, not {n}")
    folder = Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ImageError(f"{folder} is a file; give a folder")
    if folder.is_dir() and (others := _others(folder)):
        raise ImageError(
            f"{folder} has other things in it ({shorten(others[0], 60)}); give a new or an empty folder, or move them"
        )
    try:
        with scratch(folder.absolute().parent) as staging:
            _draw(n, staging / "new", seed)
            _swap(staging / "new", folder)
    except OSError as error:
        raise ImageError(f"cannot write {folder}: {error.strerror}") from error
    log.info("%d scenes in %s", n, folder)
    return folder / FILENAME


def drawn_files(folder: Path) -> set[str]:
    """Names of the files there that `export_scenes` wrote.

    Raises:
        ImageError: the manifest there is damaged.
    """
    described, unfinished = _read(folder / FILENAME)
    if described is None or not described.name.startswith("scenes:"):
        return set()
    return {FILENAME, *(entry.file for entry in described.entries), *unfinished}


def _others(folder: Path) -> list[str]:
    """Names in a folder that `export_scenes` did not write."""
    return sorted({path.name for path in folder.iterdir()} - drawn_files(folder) - {ASIDE, INVENTORY, LOCK})


def _draw(n: int, folder: Path, seed: int) -> None:
    from zoo.scenes.generate import CLASSES, dataset

    folder.mkdir()
    rows = []
    for index, scene in enumerate(dataset(n, seed)):
        file = f"{index:06d}-{scene.label}.png"
        Image.fromarray(scene.image).save(folder / file)
        rows.append(
            {
                "file": file,
                "label": scene.label,
                "label_index": scene.label_index,
                "arrangement": scene.arrangement,
                "kind": scene.kind,
                "seed": scene.seed,
                "parts": [{"name": part.name, "box": [int(v) for v in part.box]} for part in scene.parts],
            }
        )
    described = {"schema": SCHEMA, "kind": KIND, "name": f"scenes:{n}@{seed}", "classes": list(CLASSES), "images": rows}
    with (folder / FILENAME).open("w", encoding="utf-8") as file_:
        json.dump(described, file_, indent=1)
        file_.flush()
        os.fsync(file_.fileno())


def _swap(drawn: Path, folder: Path) -> None:
    """Put the images of `drawn` in the place of those in `folder`; stopped in between, the next run goes on."""
    if not folder.exists():
        drawn.rename(folder)
        return
    old, new = drawn_files(folder), {path.name for path in drawn.iterdir()}
    document = parse_json(read_bytes(drawn / FILENAME)) | {"unfinished": sorted(old | new)}
    write_text_atomically(folder / FILENAME, json.dumps(document))
    for name in old - new:
        (folder / name).unlink(missing_ok=True)
    move_files(drawn, folder, last=FILENAME)
