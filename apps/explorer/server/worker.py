"""The process of one job: `python -m apps.explorer.server.worker STORE JOB PARENT`; it stops when its parent ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from apps import memory
from apps.explorer.server.process_lock import FOLDER, lock_of

if TYPE_CHECKING:
    from circuits.network.model import Model

_EVERY = 0.3
"""Seconds between two writes of the progress."""


class Stopped(BaseException):
    """The job was stopped, or the explorer that started it has ended."""

    def __init__(self, state: str) -> None:
        super().__init__(state)
        self.state = state


class ProgressFile:
    """Writes the progress of the job, and raises `Stopped` when it should stop."""

    def __init__(self, folder: Path, parent: int) -> None:
        self.path = folder / "progress.json"
        self._parent, self._written, self._stop = parent, 0.0, ""
        self.doing, self.done, self.total = "", 0, 0
        signal.signal(signal.SIGTERM, self._stopped)
        signal.signal(signal.SIGINT, self._stopped)

    def _stopped(self, _signal: int, _frame: FrameType | None) -> None:
        self._stop = "stopped"

    def begin(self, doing: str) -> None:
        """Start a step of the job."""
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
        """Write state and progress."""
        from zoo.common.files import write_text_atomically

        document = {"state": state, "done": self.done, "total": self.total, "doing": self.doing, "error": error}
        write_text_atomically(self.path, json.dumps({**document, "pid": os.getpid()}))
        self._written = time.monotonic()


def main(store: Path, identity: str, parent: int) -> int:
    """Run a job while `parent` lives; 0 where it is done."""
    memory.reuse()
    folder = store / FOLDER / identity
    try:
        with lock_of(folder, 5):  # before any heavy import, so that the job counts as running
            return _run(store, folder, parent)
    except Timeout:
        return 3  # another process runs it


def _run(store: Path, folder: Path, parent: int) -> int:
    from apps.explorer.server.jobs import read_job
    from circuits.errors import CircuitsError

    progress = ProgressFile(folder, parent)
    try:
        progress.begin("starting")
        document = read_job(folder)
        _KINDS[document["kind"]](store, document["asked"], progress)
        progress.write("done")
        return 0
    except Stopped as stopped:
        progress.write(stopped.state)
        return 2
    except CircuitsError as error:
        progress.write("failed", str(error))
        return 2
    except Exception as error:
        progress.write("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        raise


def _load(name: str) -> Model:
    """A model as the explorer has it."""
    from apps.explorer.server.settings import settings
    from circuits.network.model import load

    return load(name, weights=settings().weights_of(name))


def _scan(store: Path, options: Mapping[str, Any], progress: ProgressFile) -> None:
    from apps.images import open_sources
    from circuits.dataset.scan import scan

    model = _load(str(options["model"]))
    images = open_sources((str(options["images"]),), options.get("limit"), 0)
    progress.begin(f"scanning all units of {model.name}")
    layers = options.get("layers") or None
    scan(model, images, store, layers=layers, replace=bool(options.get("replace")), progress=progress)
    _thumbs(store, options, progress)


def _thumbs(store: Path, options: Mapping[str, Any], progress: ProgressFile) -> None:
    from apps.explorer.resources import thumbnails
    from circuits.dataset.scan_results import read_scan

    scanned = read_scan(store, str(options["model"]))
    progress.begin("making thumbnails")
    missing = [layer for layer in scanned.layers if thumbnails.stored(scanned, layer) is None]
    if missing:
        thumbnails.make(scanned, scanned.images(check=False), missing, progress)


def _visualize(store: Path, options: Mapping[str, Any], progress: ProgressFile) -> None:
    from apps.explorer.resources import rendered_units
    from circuits.dataset.scan_store import folder_of
    from circuits.network.address import Unit
    from circuits.visualization.sweeps.sweep import sweep

    at = Unit.parse(str(options["address"]))
    model = _load(str(at.model))
    settings: dict[str, Any] = {"steps": int(options.get("steps", 128))}
    for kind in options.get("kinds", ["positive"]):
        progress.begin(f"rendering {kind} visualizations of {at.short}")
        variants: dict[str, Any] = {"positive": {}, "negative": {"optimum": "negative"}, "diverse": {"variants": 4}}
        folder = folder_of(store, model.name) / rendered_units.FOLDER / rendered_units.sweep_name(at, kind)
        sweep(model, str(at), folder, progress=progress, batch_size=16, **settings, **variants[kind])


def _begin(store: Path, options: Mapping[str, Any], progress: ProgressFile) -> None:
    """The small store of the first start: a scan, thumbnails, and labels of the part detectors."""
    _scan(store, options, progress)
    from apps.explorer.session.labels import PARTS_AUTHOR, Label, Labels
    from circuits.dataset.part_labels import part_labels
    from zoo.images.sources import open_images

    model = _load(str(options["model"]))
    progress.begin("labeling part detectors")
    labels = Labels(store)
    for layer in ("mixed3b",):
        for label in part_labels(model, layer, open_images("scenes:260"), at_least=0.9):
            evidence = f"AUC {label.auc:.3f} for {label.part} by the masks of 260 rendered scenes"
            labels.save(Label(label.unit, PARTS_AUTHOR, label.part, evidence=evidence, weights=model.digest))
            progress(0, 0)


def _dictionary(store: Path, options: Mapping[str, Any], progress: ProgressFile) -> None:
    """The SAE of the built-in language model, for the Language page."""
    from apps.explorer.resources import language_models

    progress.begin(f"training an SAE of {options['address']}")
    language_models.train(store, progress)


_KINDS: dict[str, Callable[[Path, Mapping[str, Any], ProgressFile], None]] = {
    "begin": _begin,
    "scan": _scan,
    "thumbs": _thumbs,
    "visualize": _visualize,
    "dictionary": _dictionary,
}

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
