"""Figures made: several at once, each whole or not at all, and no figure twice."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import logging
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from apps.documents import plain
from apps.figures.context import FigureContext, NotHere, Settings
from apps.figures.figure import Drawn, Figure
from apps.processes import spread
from zoo.common.files import write_text_atomically
from zoo.errors import CircuitsError, shorten

log = logging.getLogger(__name__)

SCHEMA = 1
DOCUMENT = "figure.json"
SHARED = "shared"
PACKAGE = "vision-circuits"
OF = "settings.json"
FORMATS = ("png", "svg")


@dataclass(frozen=True)
class Made:
    """What became of a figure.

    Attributes:
        id: of the figure; status: "made", "kept" (it was there), "missing" (this model or these pictures will not
            do; `why` says what is), "failed" (`why` has the last line of the error).
        seconds: taken; claims_failed: claims that do not hold here.
    """

    id: str
    status: str
    why: str = ""
    seconds: float = 0.0
    claims_failed: tuple[str, ...] = field(default=())


def make(
    figures: Sequence[Figure],
    settings: Settings,
    out: Path,
    *,
    command: str = "",
    jobs: int = 1,
    again: bool = False,
    context: FigureContext | None = None,
    done: Callable[[Made], None] | None = None,
) -> list[Made]:
    """Make figures into a folder: `<out>/<id>/` has the pictures and `figure.json`, `<out>/shared` what they share.

    A figure that is there, of the same settings, pictures, weights and script, is kept. Each is written whole, so what
    is done when the run is stopped stays done.

    Args:
        figures: to be made; the longest are begun first.
        settings: model, pictures, effort, seed.
        out: folder.
        command: how the figures are made again, for the gallery.
        jobs: processes at once. With 1 they are made in this one.
        again: make also what is there.
        context: instead of a new one, in this process.
        done: called after each.

    Raises:
        CircuitsError: the folder holds figures of another model, or cannot be written.
    """
    _claim_folder(out, settings)
    order = sorted(figures, key=lambda f: -f.cost)
    found: dict[str, Made] = {}

    def finish(made: Made) -> None:
        found[made.id] = made
        if done is not None:
            done(made)

    if jobs <= 1 or len(order) <= 1:
        context = context or FigureContext(settings, out / SHARED / settings.digest)
        for one in order:
            finish(_one(one, context, out, command, again))
    else:
        begin = (settings, out, command, again)
        for _, made in spread(_in_worker, [f.id for f in order], min(jobs, len(order)), begin=_begin, arguments=begin):
            finish(made)
    return [found[one.id] for one in figures if one.id in found]


def _claim_folder(out: Path, settings: Settings) -> None:
    """A folder is of one model: its figures and gallery are read as such."""
    file = out / OF
    try:
        held = json.loads(file.read_text(encoding="utf-8"))["model"]
    except FileNotFoundError:
        held = settings.model
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CircuitsError(f"{shorten(file, 200)} cannot be read ({error}): give another --out") from error
    if held != settings.model:
        raise CircuitsError(f"{shorten(out, 200)} holds figures of {held}: give another --out for {settings.model}")
    write_text_atomically(file, json.dumps({"schema": SCHEMA, **asdict(settings)}, indent=1) + "\n")


_BENCH: FigureContext
_MAKE: tuple[Path, str, bool]


def _begin(settings: Settings, out: Path, command: str, again: bool) -> None:
    global _BENCH, _MAKE
    _BENCH = FigureContext(settings, out / SHARED / settings.digest)
    _MAKE = (out, command, again)


def _in_worker(id: str) -> Made:
    from apps.figures.registry import chosen

    return _one(chosen([id])[0], _BENCH, *_MAKE)


def _one(one: Figure, context: FigureContext, out: Path, command: str, again: bool) -> Made:
    folder = out / one.id
    started = time.perf_counter()
    try:
        key = _key(one, context)
        before = read_document(folder)
        if before is not None and before["key"] == key and not again:
            return Made(one.id, "kept", claims_failed=_failed(before))
        drawn = one.draw(context)
        seconds = time.perf_counter() - started
        document = _document(one, context, drawn, key, command, seconds)
        _write(folder, drawn, document)
        return Made(one.id, "made", seconds=seconds, claims_failed=_failed(document))
    except NotHere as error:
        return _without(one, folder, "missing", str(error), started)
    except CircuitsError as error:
        # a model of its own may lack what a script asks for: that is this figure's fate, not the run's
        return _without(one, folder, "missing", str(error), started)
    except Exception as error:  # noqa: BLE001 - a fault in one script must not take the others with it
        log.debug("figure %s", one.id, exc_info=True)
        where = traceback.extract_tb(error.__traceback__)[-1]
        why = f"{type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"
        return _without(one, folder, "failed", why, started)


def _without(one: Figure, folder: Path, status: str, why: str, started: float) -> Made:
    """A figure that there is none of: an older one that would pass for it goes."""
    shutil.rmtree(folder, ignore_errors=True)
    return Made(one.id, status, why, time.perf_counter() - started)


def _key(one: Figure, context: FigureContext) -> str:
    """Of all that a figure depends on: it is kept while this stays."""
    parts: list[Any] = [
        SCHEMA,
        one.id,
        asdict(context.settings),
        _code(one.module),
        importlib.metadata.version(PACKAGE),
    ]
    if one.fits in ("vision", "inception"):
        parts.append(context.model.digest)
        with contextlib.suppress(NotHere):
            parts.append(context.images.digest)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@functools.cache
def _code(module: str) -> str:
    """Digest of a script, as this process read it, and of what scripts share. Of the library the version counts."""
    script = getattr(sys.modules.get(module), "__file__", None)
    here = Path(__file__).parent
    shared = [file for file in sorted(here.rglob("*.py")) if here / "scripts" not in file.parents]
    files = [*shared, *([Path(script)] if script else [])]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _document(
    one: Figure, context: FigureContext, drawn: Drawn, key: str, command: str, seconds: float
) -> dict[str, Any]:
    from circuits.common.provenance import provenance

    about: dict[str, Any] = {"seed": context.seed, "effort": context.effort}
    data = ""
    if one.fits in ("vision", "inception"):
        about |= {"model": context.model.name, "weights": context.model.digest}
        data = f" Model: {context.model.name}."
        with contextlib.suppress(NotHere):
            about |= {
                "images": context.images.name,
                "n_images": len(context.images),
                "images_digest": context.images.digest,
            }
            data += f" Data: {context.images.name}, n = {len(context.images)}."
    published = [asdict(check) for check in one.published(context)] if one.published and context.published else []
    return {
        "schema": SCHEMA,
        "key": key,
        "id": one.id,
        "also": list(one.also),
        "name": one.name,
        "title": one.title,
        "paper": one.paper,
        "shows": one.shows,
        "caption": f"{drawn.caption.strip()}{data} Seed {context.seed}.",
        "pictures": [f"{_stem(one, name)}.png" for name in drawn.pictures],
        "claims": [asdict(claim) for claim in drawn.claims],
        "published": published,
        "has_published": one.published is not None,
        "numbers": plain(drawn.numbers, 6),
        "command": command,
        "seconds": round(seconds, 2),
        "provenance": provenance(**about),
    }


def _write(folder: Path, drawn: Drawn, document: dict[str, Any]) -> None:
    from circuits.plot import save_figure

    (folder / DOCUMENT).unlink(missing_ok=True)  # what is without it is not whole
    for name, stem in zip(drawn.pictures, (p.removesuffix(".png") for p in document["pictures"]), strict=True):
        for kind in FORMATS:
            save_figure(drawn.pictures[name], folder / f"{stem}.{kind}")
    write_text_atomically(folder / DOCUMENT, json.dumps(document, indent=1, allow_nan=False) + "\n")


def _stem(one: Figure, name: str) -> str:
    return f"{one.name}-{name}" if name else one.name


def read_document(folder: Path) -> dict[str, Any] | None:
    """What is written of a figure, or None where it is not whole."""
    try:
        document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or "key" not in document:
        return None
    return document if all((folder / one).is_file() for one in document["pictures"]) else None


def _failed(document: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(claim["what"]) for claim in document["claims"] if not claim["holds"])
