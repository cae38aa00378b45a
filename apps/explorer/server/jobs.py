"""Work of minutes, in processes of its own: scans and pictures. What was done is kept, whoever is stopped.

STORE/.jobs/ID/job.json       what is asked, by whom never changed once written
               progress.json  how far it is; written by the process that does it
               lock           held by that process: a job is at work as long as it is
               log.txt        what it said

The library's scans and sweeps go on where they were stopped, so resuming a job is starting it again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import apps
from apps.explorer.server.process_lock import FOLDER, at_work
from apps.explorer.server.security import checked_name
from circuits.errors import CircuitsError, shorten
from zoo.common.files import write_text_atomically

KINDS = ("begin", "scan", "visualize", "thumbs", "dictionary")
State = Literal["running", "done", "failed", "stopped", "interrupted"]
MOST = 2
"""Jobs at work at once."""
PATIENCE = 20.0
"""Seconds for a process to begin: it takes its lock first of all."""
MEMORY = 200
"""Jobs remembered."""


class JobError(CircuitsError):
    """A job that is not there, or that cannot be done as asked."""


@dataclass(frozen=True)
class Job:
    """A piece of work.

    Attributes:
        id: its name; kind: one of `KINDS`; asked: what of; begun: when, in seconds since 1970.
        state: "interrupted" where its process ended without a word.
        done, total: how far it is; doing: what with; error: why it failed.
        pid: of its process.
    """

    id: str
    kind: str
    asked: Mapping[str, Any]
    begun: float
    state: State
    done: int = 0
    total: int = 0
    doing: str = ""
    error: str = ""
    pid: int = 0

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1."""
        return 1.0 if self.state == "done" else min(1.0, self.done / self.total) if self.total else 0.0

    @property
    def words(self) -> str:
        """How far it is, in words."""
        count = f", {self.done:,} of {self.total:,}" if self.total else ""
        return f"{self.doing or 'starting'}{count}"

    @property
    def title(self) -> str:
        """What it does, in words."""
        what = self.asked.get("address") or self.asked.get("model")
        of = f" on {self.asked['images']}" if self.asked.get("images") else ""
        return f"{self.kind} {what}{of}"


class Jobs:
    """The jobs of a store."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.folder = store / FOLDER

    def all(self) -> list[Job]:
        """All jobs, newest first."""
        if not self.folder.is_dir():
            return []
        found = [self._read(path.parent) for path in self.folder.glob("*/job.json")]
        return sorted((job for job in found if job is not None), key=lambda job: -job.begun)

    def get(self, identity: str) -> Job:
        """One job.

        Raises:
            JobError: there is none.
        """
        job = self._read(self.folder / checked_name(identity))
        if job is None:
            raise JobError(f"there is no job {shorten(identity, 40)}")
        return job

    def start(self, kind: str, asked: Mapping[str, Any]) -> Job:
        """Begin a job; the same one again, where it is at work or was stopped, is that one.

        Raises:
            JobError: unknown, or too many at work. FileError: the store cannot be written.
        """
        if kind not in KINDS:
            raise JobError(f"there is no job {shorten(kind)!r}; there are {', '.join(KINDS)}")
        for job in self.all():
            if job.kind == kind and dict(job.asked) == dict(asked) and job.state != "done":
                return job if job.state == "running" else self.resume(job.id)
        identity = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self._check_room()
        said = {"kind": kind, "asked": dict(asked), "begun": time.time()}
        write_text_atomically(self.folder / identity / "job.json", json.dumps(said))
        self._tidy()
        return self._launch(identity)

    def resume(self, identity: str) -> Job:
        """Go on with a job that is not at work.

        Raises:
            JobError: there is none, or too many are at work.
        """
        job = self.get(identity)
        if job.state == "running":
            return job
        self._check_room()
        return self._launch(job.id)

    def cancel(self, identity: str) -> None:
        """Stop a job; what it did so far is kept.

        Raises:
            JobError: there is none.
        """
        job = self.get(identity)
        if job.state == "running" and job.pid:
            # its lock is held, so the number is still that process's own
            os.kill(job.pid, signal.SIGTERM)

    def forget(self, identity: str) -> None:
        """Take a job off the list; what it made stays."""
        job = self.get(identity)
        if job.state != "running":
            _remove(self.folder / job.id)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _check_room(self) -> None:
        running = sum(job.state == "running" for job in self.all())
        if running >= MOST:
            raise JobError(f"{running} jobs are at work already: wait for one, or stop one")

    def _launch(self, identity: str) -> Job:
        place = self.folder / identity
        command = [sys.executable, "-m", "apps.explorer.server.worker", str(self.store), identity]
        root = Path(apps.__file__).resolve().parent.parent
        paths = os.pathsep.join(p for p in (str(root), os.environ.get("PYTHONPATH", "")) if p)
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_WAIT_POLICY": "PASSIVE"}
        with (place / "log.txt").open("ab") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, start_new_session=True
            )
        _CHILDREN.append(process)
        begun = {"state": "interrupted", "doing": "starting", "pid": process.pid}
        write_text_atomically(place / "progress.json", json.dumps(begun))
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and process.poll() is None and not at_work(place):
            time.sleep(0.02)
        return self.get(identity)

    def _read(self, place: Path) -> Job | None:
        for old in [p for p in _CHILDREN if p.poll() is not None]:
            _CHILDREN.remove(old)  # no zombies
        try:
            said = json.loads((place / "job.json").read_text(encoding="utf-8"))
            kind, asked, begun = str(said["kind"]), dict(said["asked"]), float(said["begun"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        alive = at_work(place)
        try:
            now = json.loads((place / "progress.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            now = {}
        state: State = "running" if alive else now.get("state", "interrupted")
        if not alive and state == "running":
            state = "interrupted"
        known = {k: now[k] for k in ("done", "total", "doing", "error", "pid") if k in now}
        return Job(place.name, kind, asked, begun, state, **known)

    def _tidy(self) -> None:
        for job in self.all()[MEMORY:]:
            if job.state != "running":
                _remove(self.folder / job.id)


_CHILDREN: list[subprocess.Popen[bytes]] = []


def _remove(place: Path) -> None:
    for file in place.iterdir():
        file.unlink(missing_ok=True)
    place.rmdir()
