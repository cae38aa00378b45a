"""Concepts that units can be searched for: classes and parts of labeled images, and folders of images."""

from __future__ import annotations

from pathlib import Path

from apps.explorer.server.security import UploadError
from apps.explorer.session import state
from apps.explorer.session.state import Location
from zoo.errors import ImageError
from zoo.images.decoding import SUFFIXES
from zoo.images.sources import Images, hidden, open_images

FOLDER = "folder: "
MOST_FOLDERS = 500


def concept_names(at: Location) -> list[str]:
    """Names of the concepts: classes and parts of the scanned images, and folders of the server's image folder."""
    names: set[str] = set()
    if at.scan is not None:
        scanned = state.images_of(at)
        names |= {scanned.classes[i] for i in set(scanned.labels or ())} if scanned.classes else set()
        names |= {part.name for annotation in scanned.annotations or () for part in annotation.parts}
    return [*sorted(names), *(f"{FOLDER}{name}" for name in folders(at.settings.images))]


def folders(root: Path | None) -> list[str]:
    """Folders of images directly inside of the server's image folder, linked ones included; nothing that is hidden."""
    if root is None or not root.is_dir():
        return []
    paths = sorted(p for p in root.iterdir() if p.is_dir() and not hidden(p.name))
    return [p.name for p in paths[:MOST_FOLDERS] if any(f.suffix.lower() in SUFFIXES for f in p.iterdir())]


def concept_images(at: Location, name: str, limit: int = 300) -> tuple[Images, Images]:
    """Images with a concept, and images without it: the rest of the scanned ones.

    Raises:
        UploadError: no such concept. ImageError: no images with it, or none without.
    """
    from apps.cli.output.part_names import concept

    if not name.startswith(FOLDER):
        return concept(state.images_of(at), name)
    folder = name.removeprefix(FOLDER)
    if at.settings.images is None or folder not in folders(at.settings.images):
        raise UploadError(f"there is no folder of that name; there are {', '.join(folders(at.settings.images))}")
    # a name of the listing, so that a link in it is one that the server's owner made
    positive = open_images(at.settings.images / folder, limit=limit)
    scanned = state.images_of(at)
    ids = set(positive.ids)
    others = [
        i for i, identity in enumerate(scanned.ids) if identity not in ids and identity.rpartition("/")[2] not in ids
    ]
    if not others:
        raise ImageError(f"all scanned images are in {folder}: there are none without it")
    step = max(1, len(others) // limit)
    return positive, scanned.subset(others[::step][:limit])


def code(at: Location, name: str, limit: int = 300) -> str:
    """Python that gives the images of `concept_images`, from `images`, the scanned ones."""
    if not name.startswith(FOLDER):
        return (
            "names = [set() for _ in images.ids]\n"
            "for i, label in enumerate(images.labels or ()):\n"
            "    names[i].add(images.classes[label])\n"
            "for i, annotation in enumerate(images.annotations or ()):\n"
            "    names[i].update(part.name for part in annotation.parts)\n"
            f"positive = images.subset([i for i, shown in enumerate(names) if {name!r} in shown])\n"
            f"negative = images.subset([i for i, shown in enumerate(names) if {name!r} not in shown])\n"
        )
    folder = str((at.settings.images or Path()) / name.removeprefix(FOLDER))
    return (
        "import zoo\n\n"
        f"positive = zoo.open_images({folder!r}, limit={limit})\n"
        "ids = set(positive.ids)\n"
        "others = [i for i, name in enumerate(images.ids) if name not in ids and name.rpartition('/')[2] not in ids]\n"
        f"negative = images.subset(others[:: max(1, len(others) // {limit})][:{limit}])\n"
    )
