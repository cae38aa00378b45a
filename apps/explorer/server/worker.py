"""The process of one job: `python -m apps.explorer.server.worker STORE JOB`; it stops when the explorer is gone."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import Timeout

from apps.explorer.server.process_lock import FOLDER, lock_of

_EVERY = 0.3
"""Seconds between two notes of progress."""
PARTS_AUTHOR = "part masks"


class Stopped(BaseException):
    """Somebody stopped the job, or the explorer that began it is gone."""

    def __init__(self, state: str) -> None:
        super().__init__(state)
        self.state = state


class Notes:
    """Writes how far the job is, and ends it when it should stop."""

    def __init__(self, place: Path) -> None:
        self.path = place / "progress.json"
        self._parent, self._written, self._stop = os.getppid(), 0.0, ""
        self.doing, self.done, self.total = "", 0, 0
        signal.signal(signal.SIGTERM, self._stopped)
        signal.signal(signal.SIGINT, self._stopped)

    def _stopped(self, _signal: int, _frame: FrameType | None) -> None:
        self._stop = "stopped"

    def say(self, doing: str) -> None:
        """What is being done from now on."""
        self.doing = doing
        self(0, 0)
        self.write("running")

    def __call__(self, done: int, total: int) -> None:
        if os.getppid() != self._parent:
            self._stop = self._stop or "interrupted"
        if self._stop:
            raise Stopped(self._stop)
        self.done, self.total = done, total
        if time.monotonic() - self._written > _EVERY:
            self.write("running")

    def write(self, state: str, error: str = "") -> None:
        """Note it."""
        from zoo.common.files import write_text_atomically

        said = {"state": state, "done": self.done, "total": self.total, "doing": self.doing, "error": error}
        write_text_atomically(self.path, json.dumps({**said, "pid": os.getpid()}))
        self._written = time.monotonic()


def main(store: Path, identity: str) -> int:
    """Do a job; 0 where it is done."""
    place = store / FOLDER / identity
    try:
        with lock_of(place, 5):  # before anything heavy is imported, so that the job is seen to be at work
            return _work(store, place)
    except Timeout:
        return 3  # another process is at it


def _work(store: Path, place: Path) -> int:
    from circuits.errors import CircuitsError

    notes = Notes(place)
    try:
        notes.say("starting")
        said = json.loads((place / "job.json").read_text(encoding="utf-8"))
        _DO[said["kind"]](store, said["asked"], notes)
        notes.write("done")
        return 0
    except Stopped as stopped:
        notes.write(stopped.state)
        return 2
    except CircuitsError as error:
        notes.write("failed", str(error))
        return 2
    except Exception as error:
        notes.write("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        raise


def _scan(store: Path, asked: Mapping[str, Any], notes: Notes) -> None:
    from apps.pictures import open_pictures
    from circuits.dataset.scan import scan
    from circuits.network.model import load

    model = load(str(asked["model"]))
    pictures = open_pictures((str(asked["images"]),), asked.get("limit"), 0)
    notes.say(f"looking at all units of {model.name}")
    layers = asked.get("layers") or None
    scan(model, pictures, store, layers=layers, replace=bool(asked.get("replace")), progress=notes)
    _thumbs(store, asked, notes)


def _thumbs(store: Path, asked: Mapping[str, Any], notes: Notes) -> None:
    from apps.explorer.resources import thumbnails
    from circuits.dataset.scan_results import read_scan

    found = read_scan(store, str(asked["model"]))
    notes.say("cutting small pictures")
    missing = [layer for layer in found.layers if thumbnails.stored(found, layer) is None]
    if missing:
        thumbnails.make(found, found.pictures(check=False), missing, notes)


def _visualize(store: Path, asked: Mapping[str, Any], notes: Notes) -> None:
    from apps.explorer.resources import rendered_units
    from circuits.dataset.scan_store import folder_of
    from circuits.network.address import Unit
    from circuits.network.model import load
    from circuits.visualization.sweeps.sweep import sweep

    at = Unit.parse(str(asked["address"]))
    model = load(str(at.model))
    options: dict[str, Any] = {"steps": int(asked.get("steps", 128))}
    for kind in asked.get("kinds", ["positive"]):
        notes.say(f"making {kind} pictures of {at.short}")
        further: dict[str, Any] = {"positive": {}, "negative": {"optimum": "negative"}, "diverse": {"variants": 4}}
        place = folder_of(store, model.name) / rendered_units.FOLDER / rendered_units.sweep_name(at, kind)
        sweep(model, str(at), place, progress=notes, batch_size=16, **options, **further[kind])


def _begin(store: Path, asked: Mapping[str, Any], notes: Notes) -> None:
    """The small store of the first start: a scan, small pictures, and names of the units that were taught a part."""
    _scan(store, asked, notes)
    from apps.explorer.session.labels import Label, Labels
    from circuits.dataset.part_labels import part_labels
    from circuits.network.model import load
    from zoo.images.sources import open_images

    model = load(str(asked["model"]))
    notes.say("naming units by the parts they answer to")
    labels = Labels(store)
    for layer in ("mixed3b",):
        for found in part_labels(model, layer, open_images("scenes:260"), at_least=0.9):
            evidence = f"AUC {found.auc:.3f} for {found.part} by the masks of 260 drawn scenes"
            labels.save(Label(found.unit, PARTS_AUTHOR, found.part, evidence=evidence, weights=model.digest))
            notes(0, 0)


def _dictionary(store: Path, asked: Mapping[str, Any], notes: Notes) -> None:
    """The SAE of the built-in language model, for the Language page."""
    from apps.explorer.resources import language_models

    notes.say(f"training an SAE of {asked['address']}")
    language_models.train(store, notes)


_DO: dict[str, Callable[[Path, Mapping[str, Any], Notes], None]] = {
    "begin": _begin,
    "scan": _scan,
    "thumbs": _thumbs,
    "visualize": _visualize,
    "dictionary": _dictionary,
}

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
