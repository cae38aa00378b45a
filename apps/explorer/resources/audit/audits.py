"""Finished audits: those given with --audit, and those of a model in the store, `STORE/MODEL/audits/NAME/`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.explorer.server.byte_cache import cached
from apps.explorer.server.settings import Settings
from circuits.dataset.audit.removal import RESULT, AuditedImages, audited_images, read_audit
from circuits.dataset.audit.results import Audit
from circuits.dataset.scan_store import folder_of
from circuits.errors import CircuitsError
from circuits.network.model import Model
from zoo.errors import ImageError

FOLDER = "audits"


@dataclass(frozen=True)
class OpenAudit:
    """An audit that a page shows.

    Attributes:
        folder: where it is; key: which it is, for what is computed of it.
        audit: itself; images: it judged on; None while they are opened, or where they are not at hand: `missing`.
    """

    folder: Path
    key: tuple[Any, ...]
    audit: Audit
    images: AuditedImages | None = None
    missing: bool = False


def folders(server: Settings, model: str) -> dict[str, Path]:
    """The audits by name: those given, of any model, and those in the store of this one."""
    stored = (folder_of(server.store, model) / FOLDER).glob(f"*/{RESULT}")
    return dict(server.audits) | {
        name: path.parent for path in sorted(stored) if (name := path.parent.name) not in dict(server.audits)
    }


def models(server: Settings) -> list[str]:
    """Models of the audits that were given; damaged ones have none."""
    named: list[str] = []
    for _, folder in server.audits:
        try:
            named.append(opened(folder).model)
        except CircuitsError:
            continue
    return list(dict.fromkeys(named))


def opened(folder: Path) -> Audit:
    """A finished audit.

    Raises:
        CircuitsError: there is none, or it is damaged.
    """
    return _opened(str(folder), stamp(folder))


def stamp(folder: Path) -> int:
    """The time of its last change; 0 where there is none."""
    path = folder / RESULT
    return path.stat().st_mtime_ns if path.is_file() else 0


@cached
def _opened(folder: str, stamp: int) -> Audit:
    return read_audit(folder)


def images_of(server: Settings, model: Model, folder: Path) -> AuditedImages:
    """The images of an audit: where they were, or in the server's folder of images.

    Raises:
        CircuitsError: of other weights, or damaged. ImageError: they are in neither place.
    """
    try:
        return audited_images(model, folder)
    except ImageError:
        if server.images is None:
            raise
        return audited_images(model, folder, server.images)
