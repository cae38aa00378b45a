"""Concepts that units can be searched for: classes and parts of labeled pictures, and folders of photographs."""

from __future__ import annotations

from pathlib import Path

from apps.explorer.server.security import UploadError, safe_join
from apps.explorer.session import state
from apps.explorer.session.state import Here
from zoo.errors import ImageError
from zoo.images.decoding import SUFFIXES
from zoo.images.sources import Images, open_images

FOLDER = "folder: "
MOST_FOLDERS = 500


def known(at: Here) -> list[str]:
    """Names of the concepts: those that the scanned pictures show, and folders of the folder of photographs."""
    names: set[str] = set()
    if at.scan is not None:
        scanned = state.pictures_of(at)
        names |= {scanned.classes[i] for i in set(scanned.labels or ())} if scanned.classes else set()
        names |= {part.name for one in scanned.annotations or () for part in one.parts}
    return [*sorted(names), *(f"{FOLDER}{name}" for name in folders(at.settings.images))]


def folders(root: Path | None) -> list[str]:
    """Folders of pictures right inside of the folder that the server was given."""
    if root is None or not root.is_dir():
        return []
    found = sorted(p for p in root.iterdir() if p.is_dir() and not p.is_symlink() and not p.name.startswith("."))
    return [p.name for p in found[:MOST_FOLDERS] if any(f.suffix.lower() in SUFFIXES for f in p.iterdir())]


def pictures(at: Here, name: str, limit: int = 300) -> tuple[Images, Images]:
    """Pictures with a concept, and pictures without it: the rest of the scanned ones.

    Raises:
        UploadError: no such concept. ImageError: no pictures with it, or none without.
    """
    from apps.cli.output.part_names import concept

    if not name.startswith(FOLDER):
        return concept(state.pictures_of(at), name)
    folder = name.removeprefix(FOLDER)
    if at.settings.images is None or folder not in folders(at.settings.images):
        raise UploadError(f"there is no folder of that name; there are {', '.join(folders(at.settings.images))}")
    positive = open_images(safe_join(at.settings.images, folder), limit=limit)
    scanned = state.pictures_of(at)
    ids = set(positive.ids)
    others = [i for i, one in enumerate(scanned.ids) if one not in ids and one.rpartition("/")[2] not in ids]
    if not others:
        raise ImageError(f"all scanned pictures are in {folder}: there is nothing to tell it from")
    step = max(1, len(others) // limit)
    return positive, scanned.subset(others[::step][:limit])
