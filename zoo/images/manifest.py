"""A folder of images with what is known of each: `manifest.json`, written for drawn scenes and read back."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from zoo.errors import ImageError, shorten

if TYPE_CHECKING:
    from zoo.scenes.generate import Scene

log = logging.getLogger(__name__)

FILENAME = "manifest.json"
SCHEMA = 1
KIND = "vision-circuits images"


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


def _entry(row: Any, path: Path, classes: tuple[str, ...]) -> Entry:
    file = PurePosixPath(row["file"])
    if file.is_absolute() or ".." in file.parts or "\\" in row["file"] or ":" in row["file"]:
        raise ImageError(f"{path} names an image outside its folder: {shorten(row['file'])!r}")
    if row["label"] not in classes:
        raise ImageError(f"{path} has an unknown label: {shorten(row['label'])!r}")
    parts = []
    for part in row.get("parts", []):
        x0, y0, x1, y1 = (int(v) for v in part["box"])
        parts.append(PartBox(str(part["name"]), (x0, y0, x1, y1)))
    return Entry(str(file), row["label"], Annotation(row["label"], tuple(parts), str(row.get("arrangement", ""))))


def read(path: Path) -> Manifest | None:
    """The manifest at `path`; None when there is none, or a JSON file of another kind.

    Raises:
        ImageError: one of ours, but damaged, of a later schema, or naming files outside its folder.
    """
    if not os.path.isfile(path):
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or data.get("kind") != KIND:
        return None
    if data.get("schema") != SCHEMA:
        raise ImageError(f"{path} has schema {shorten(data.get('schema'))}; this version reads {SCHEMA}")
    try:
        classes = tuple(str(name) for name in data["classes"])
        entries = tuple(_entry(row, path, classes) for row in data["images"])
        if not entries:
            raise ImageError(f"{path} lists no images")
        return Manifest(str(data["name"]), classes, entries)
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(f"{path} is damaged: {type(error).__name__} {shorten(error, 60)}") from error


def export_scenes(n: int, out: str | os.PathLike[str], seed: int = 0) -> Path:
    """Draw `n` scenes into the folder `out` as PNGs with a manifest of labels and part boxes.

    The folder appears only when all is written; one that this function made before is replaced.

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
    if folder.is_dir() and any(folder.iterdir()) and read(folder / FILENAME) is None:
        raise ImageError(f"{folder} has other things in it; give a new or an empty folder")
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=folder.absolute().parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise ImageError(f"cannot write into {folder.absolute().parent}: {error.strerror}") from error
    try:
        _draw(n, staging, seed)
        staging.chmod(0o777 & ~_umask())
        _swap(staging, folder)
    except OSError as error:
        raise ImageError(f"cannot write {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    log.info("%d scenes in %s", n, folder)
    return folder / FILENAME


def _draw(n: int, folder: Path, seed: int) -> None:
    from zoo.scenes.generate import CLASSES, dataset

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


def _umask() -> int:
    # There is no way to read the mask but to set it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _swap(staging: Path, folder: Path) -> None:
    """Put `made` in the place of `folder`."""
    if folder.exists():
        old = staging.with_name(staging.name + ".old")
        folder.rename(old)
        try:
            staging.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        staging.rename(folder)
