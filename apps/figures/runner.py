"""Makes figures: several at once, each completely or not at all, and none twice."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from apps.figures.context import FigureContext, NotApplicable, Settings
from apps.figures.figure import Figure, FigureResult
from apps.processes import spread
from zoo.common.files import move_files, scratch, write_text_atomically
from zoo.common.reading import fits, read_json
from zoo.common.results import plain
from zoo.errors import CircuitsError, FileError, shorten

log = logging.getLogger(__name__)

SCHEMA = 1
DOCUMENT = "figure.json"
SHARED = "shared"
PACKAGE = "vision-circuits"
OF = "settings.json"
FORMATS = ("png", "svg")


class _Settings(TypedDict):
    model: str


class _Claim(TypedDict):
    what: str
    holds: bool


_Written = TypedDict("_Written", {"pictures": list[str]})  # noqa: UP013 - a key of files, which is no name here


class _Document(_Written):
    settings: NotRequired[dict[str, Any]]
    schema: int
    key: str
    id: str
    name: str
    title: str
    caption: str
    claims: list[_Claim]


@dataclass(frozen=True)
class FigureOutcome:
    """How making a figure ended.

    Attributes:
        id: of the figure; status: "made", "kept" (the file was up to date), "missing" (not applicable to this model or
            these images; `why` has the reason), "failed" (`why` has the last line of the error).
        seconds: of work; claims_failed: claims that do not hold here.
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
    on_done: Callable[[FigureOutcome], None] | None = None,
) -> list[FigureOutcome]:
    """Make figures into a folder: `<out>/<id>/` has the drawings and `figure.json`, `<out>/shared` shared results.

    A figure of the same settings, images, weights and script that the folder has already is not made again. Each
    figure is written completely, so a run that was stopped continues where it was.

    Args:
        figures: to be made; the longest are begun first.
        settings: model, images, effort, seed.
        out: folder.
        command: options that make the figures again, for the gallery.
        jobs: number of processes; 1 makes them in this one.
        again: make also figures that are up to date.
        context: instead of a new one, in this process.
        on_done: called after each figure.

    Raises:
        CircuitsError: the folder holds figures of another model, or one of `figures` with other settings (and not
            `again`), or cannot be written.
    """
    _claim_folder(out, settings, () if again else figures)
    order = sorted(figures, key=lambda f: -f.cost)
    outcomes: dict[str, FigureOutcome] = {}

    def finish(outcome: FigureOutcome) -> None:
        outcomes[outcome.id] = outcome
        if on_done is not None:
            on_done(outcome)

    if jobs <= 1 or len(order) <= 1:
        context = context or FigureContext(settings, out / SHARED / settings.digest)
        for figure in order:
            finish(_make(figure, context, out, command, again))
    else:
        begin = (settings, out, command, again)
        workers = spread(_in_worker, [f.id for f in order], min(jobs, len(order)), begin=_begin, arguments=begin)
        for _, outcome in workers:
            finish(outcome)
    return [outcomes[figure.id] for figure in figures if figure.id in outcomes]


def _claim_folder(out: Path, settings: Settings, unchanged: Sequence[Figure]) -> None:
    """A folder holds figures of one model, since its gallery is read as such; those of other settings stay unasked."""
    file = out / OF
    try:
        document = read_json(file)
        fits(document, _Settings)
        model = document["model"]
    except FileNotFoundError:
        model = settings.model
    except (OSError, ValueError) as error:
        raise CircuitsError(f"{shorten(file, 200)} cannot be read ({shorten(error)}): give another --out") from error
    if model != settings.model:
        raise CircuitsError(
            f"{shorten(out, 200)} holds figures of {shorten(model)}: give another --out for {settings.model}"
        )
    _check_settings(unchanged, settings, out)
    write_text_atomically(file, json.dumps({"schema": SCHEMA, **asdict(settings)}, indent=1) + "\n")


def _check_settings(figures: Sequence[Figure], settings: Settings, out: Path) -> None:
    """A figure of other images or of another effort is not replaced unasked."""
    wanted = plain(asdict(settings))
    for figure in figures:
        former = (read_document(out / figure.id) or {}).get("settings", {})
        other = [
            f"{name}={shorten(former[name], 40)}, not {shorten(wanted[name], 40)}"
            for name in ("weights", "images", "limit", "effort", "seed")
            if name in former and former[name] != wanted[name]
        ]
        if other:
            raise CircuitsError(
                f"{shorten(out, 200)} holds {figure.id} made with {'; '.join(other)}: give another --out, or --again "
                "to make it again"
            )


_CONTEXT: FigureContext
_OPTIONS: tuple[Path, str, bool]


def _begin(settings: Settings, out: Path, command: str, again: bool) -> None:
    global _CONTEXT, _OPTIONS
    _CONTEXT = FigureContext(settings, out / SHARED / settings.digest)
    _OPTIONS = (out, command, again)


def _in_worker(id: str) -> FigureOutcome:
    from apps.figures.figure import FIGURES

    return _make(FIGURES[id], _CONTEXT, *_OPTIONS)


def _make(figure: Figure, context: FigureContext, out: Path, command: str, again: bool) -> FigureOutcome:
    folder = out / figure.id
    started = time.perf_counter()
    try:
        key = _key(figure, context)
        before = read_document(folder)
        if before is not None and before["key"] == key and not again:
            return FigureOutcome(figure.id, "kept", claims_failed=_failed(before))
        result = figure.draw(context)
        seconds = time.perf_counter() - started
        document = _document(figure, context, result, key, command, seconds)
        _write(folder, result, document)
        return FigureOutcome(figure.id, "made", seconds=seconds, claims_failed=_failed(document))
    except FileError as error:
        return FigureOutcome(figure.id, "failed", str(error), time.perf_counter() - started)
    except CircuitsError as error:
        # the script does not apply, or a model of the user's own lacks what it needs: the run goes on
        return _without(figure, folder, "missing", str(error), started)
    except Exception as error:  # noqa: BLE001 - an error in one script must not stop the others
        log.debug("figure %s", figure.id, exc_info=True)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        why = f"{type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno})"
        return _without(figure, folder, "failed", why, started)


def _without(figure: Figure, folder: Path, status: str, why: str, started: float) -> FigureOutcome:
    """The outcome of a figure that was not made. An older version is deleted, since it would pass for a new one."""
    _remove(folder)
    return FigureOutcome(figure.id, status, why, time.perf_counter() - started)


def _key(figure: Figure, context: FigureContext) -> str:
    """Digest of everything that a figure depends on: while it stays the same, the figure is up to date."""
    parts: list[Any] = [
        SCHEMA,
        figure.id,
        asdict(context.settings),
        _code(figure.module),
        importlib.metadata.version(PACKAGE),
    ]
    if figure.fits in ("vision", "inception"):
        parts.append(context.model.digest)
        with contextlib.suppress(NotApplicable):
            parts.append(context.images.digest)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@functools.cache
def _code(module: str) -> str:
    """Digest of a script and of the files that all scripts share; the library counts by its version."""
    script = getattr(sys.modules.get(module), "__file__", None)
    here = Path(__file__).parent
    shared = [file for file in sorted(here.rglob("*.py")) if here / "scripts" not in file.parents]
    files = [*shared, *([Path(script)] if script else [])]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _document(
    figure: Figure, context: FigureContext, result: FigureResult, key: str, command: str, seconds: float
) -> dict[str, Any]:
    from circuits.common.provenance import provenance

    about: dict[str, Any] = {"seed": context.seed, "effort": context.effort}
    data = ""
    if figure.fits in ("vision", "inception"):
        about |= {"model": context.model.name, "weights": context.model.digest}
        data = f" Model: {context.model.name}."
        with contextlib.suppress(NotApplicable):
            about |= {
                "images": context.images.name,
                "n_images": len(context.images),
                "images_digest": context.images.digest,
            }
            data += f" Data: {context.images.name}, n = {len(context.images)}."
    published = [asdict(check) for check in figure.published(context)] if figure.published and context.published else []
    return {
        "schema": SCHEMA,
        "key": key,
        "id": figure.id,
        "also": list(figure.also),
        "name": figure.name,
        "title": figure.title,
        "paper": figure.paper,
        "shows": figure.shows,
        "caption": f"{result.caption.strip()}{data} Seed {context.seed}.",
        "pictures": [f"{_stem(figure, name)}.png" for name in result.drawings],
        "claims": [claim.describe() for claim in result.claims],
        "published": published,
        "has_published": figure.published is not None,
        "numbers": plain(result.numbers, 6),
        "command": command,
        "settings": asdict(context.settings),
        "seconds": round(seconds, 2),
        "provenance": provenance(**about),
    }


def _write(folder: Path, result: FigureResult, document: dict[str, Any]) -> None:
    from circuits.plot import save_figure

    try:
        with scratch(folder.parent) as staging:
            for name, stem in zip(result.drawings, (p.removesuffix(".png") for p in document["pictures"]), strict=True):
                for kind in FORMATS:
                    save_figure(result.drawings[name], staging / f"{stem}.{kind}")
            write_text_atomically(staging / DOCUMENT, json.dumps(document, indent=1, allow_nan=False) + "\n")
            _remove(folder)  # now that the new version is whole on the disk
            move_files(staging, folder, last=DOCUMENT)
    except OSError as error:  # the staging folder itself; what was there before still is
        raise FileError(f"cannot write {shorten(folder, 200)}: {error.strerror or error}") from error


def _remove(folder: Path) -> None:
    """Delete a figure: what its document names, and nothing that somebody added."""
    document = read_document(folder)
    names = [] if document is None else [Path(name).stem for name in document["pictures"]]
    for name in [DOCUMENT, *(f"{stem}.{kind}" for stem in names for kind in FORMATS)]:
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _stem(figure: Figure, name: str) -> str:
    return f"{figure.name}-{name}" if name else figure.name


def read_document(folder: Path) -> dict[str, Any] | None:
    """The document of a figure, or None where the figure is missing or incomplete."""
    try:
        document: dict[str, Any] = read_json(folder / DOCUMENT)
        fits(document, _Document)
    except (OSError, ValueError):
        return None
    present = all(os.path.isfile(folder / name) for name in document["pictures"])
    return document if present and document["schema"] == SCHEMA else None


def _failed(document: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(claim["what"]) for claim in document["claims"] if not claim["holds"])
