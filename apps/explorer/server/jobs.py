"""Work of minutes, in processes of its own: scans and sweeps. A stopped job can be resumed.

STORE/.jobs/ID/job.json       kind and options; never changed once written
               progress.json  its progress; written by the process of the job
               lock           held by that process: a job is running as long as it is held
               log.txt        output of the process

Scans and sweeps of the library resume where they were stopped, so resuming a job is starting it again.
"""

from __future__ import annotations

import contextlib
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
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

from apps.explorer.server.process_lock import FOLDER, at_work
from apps.explorer.server.security import checked_name
from apps.processes import child_environment
from circuits.errors import CircuitsError, shorten
from zoo.common.files import write_text_atomically
from zoo.common.reading import Count, fits, read_json

KINDS = ("begin", "scan", "visualize", "thumbs", "dictionary")
State = Literal["running", "done", "failed", "stopped", "interrupted"]
MOST = 2
"""Largest number of running jobs."""
PATIENCE = 20.0
"""Seconds for a process to start and take its lock."""
MEMORY = 200
"""Number of jobs that are listed."""


_BYTES = 1 << 20
"""Size of a job's files at most."""


_Options = TypedDict("_Options", {"asked": dict[str, Any]})  # noqa: UP013 - a key of files, which is no name here


class JobDocument(_Options):
    """What `job.json` says: the kind of work, its options, and when it was begun, in seconds since 1970."""

    kind: Literal["begin", "scan", "visualize", "thumbs", "dictionary"]
    begun: Annotated[float, Meta(ge=0, le=1e11)]


class _Progress(TypedDict):
    state: NotRequired[State]
    done: NotRequired[Count]
    total: NotRequired[Count]
    doing: NotRequired[str]
    error: NotRequired[str]
    pid: NotRequired[Annotated[int, Meta(ge=0, le=1 << 31)]]


class JobError(CircuitsError):
    """A job that does not exist, or cannot be started."""


@dataclass(frozen=True)
class Job:
    """A piece of work.

    Attributes:
        id: name of its folder; kind: one of `KINDS`; options: of the work; begun: time of its start.
        state: "interrupted" where its process ended without writing a state.
        done, total: its progress; doing: the current step; error: why it failed.
        pid: of its process.
    """

    id: str
    kind: str
    options: Mapping[str, Any]
    begun: float
    state: State
    done: int = 0
    total: int = 0
    doing: str = ""
    error: str = ""
    pid: int = 0

    @property
    def share(self) -> float:
        """Its progress from 0 to 1."""
        return 1.0 if self.state == "done" else min(1.0, self.done / self.total) if self.total else 0.0

    @property
    def progress_text(self) -> str:
        """Its progress in words."""
        count = f", {self.done:,} of {self.total:,}" if self.total else ""
        return f"{self.doing or 'starting'}{count}"

    @property
    def title(self) -> str:
        """Kind and subject in words."""
        subject = self.options.get("address") or self.options.get("model")
        images = f" on {self.options['images']}" if self.options.get("images") else ""
        return f"{self.kind} {subject}{images}"


class Jobs:
    """The jobs of a store."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.folder = store / FOLDER

    def all(self) -> list[Job]:
        """All jobs, newest first."""
        if not self.folder.is_dir():
            return []
        jobs = [self._read(path.parent) for path in self.folder.glob("*/job.json")]
        return sorted((job for job in jobs if job is not None), key=lambda job: -job.begun)

    def get(self, identity: str) -> Job:
        """One job.

        Raises:
            JobError: there is none.
        """
        job = self._read(self.folder / checked_name(identity))
        if job is None:
            raise JobError(f"there is no job {shorten(identity, 40)}")
        return job

    def start(self, kind: str, options: Mapping[str, Any]) -> Job:
        """Start a job; one of the same kind and options that is not done is resumed instead.

        Raises:
            JobError: an unknown kind, or too many running jobs. FileError: the store cannot be written.
        """
        if kind not in KINDS:
            raise JobError(f"there is no kind of job {shorten(kind)!r}; there are {', '.join(KINDS)}")
        for job in self.all():
            if job.kind == kind and dict(job.options) == dict(options) and job.state != "done":
                return job if job.state == "running" else self.resume(job.id)
        identity = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self._check_room()
        document = {"kind": kind, "asked": dict(options), "begun": time.time()}
        write_text_atomically(self.folder / identity / "job.json", json.dumps(document))
        self._tidy()
        return self._launch(identity)

    def resume(self, identity: str) -> Job:
        """Resume a job that is not running.

        Raises:
            JobError: there is none, or too many are running.
        """
        job = self.get(identity)
        if job.state == "running":
            return job
        self._check_room()
        return self._launch(job.id)

    def cancel(self, identity: str) -> None:
        """Stop a job; its work so far is saved.

        Raises:
            JobError: there is none.
        """
        job = self.get(identity)
        if job.state == "running" and job.pid:
            # its lock is held, so the pid is still that of its process
            os.kill(job.pid, signal.SIGTERM)

    def forget(self, identity: str) -> None:
        """Remove a job from the list; its results stay."""
        job = self.get(identity)
        if job.state != "running":
            _remove(self.folder / job.id)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _check_room(self) -> None:
        running = sum(job.state == "running" for job in self.all())
        if running >= MOST:
            raise JobError(f"{running} jobs are running already: wait for one, or stop one")

    def _launch(self, identity: str) -> Job:
        folder = self.folder / identity
        command = [sys.executable, "-m", "apps.explorer.server.worker", str(self.store), identity, str(os.getpid())]
        environment = child_environment(OMP_WAIT_POLICY="PASSIVE")
        with (folder / "log.txt").open("ab") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, start_new_session=True
            )
        _CHILDREN.append(process)
        state = {"state": "interrupted", "doing": "starting", "pid": process.pid}
        write_text_atomically(folder / "progress.json", json.dumps(state))
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and process.poll() is None and not at_work(folder):
            time.sleep(0.02)
        return self.get(identity)

    def _read(self, folder: Path) -> Job | None:
        for old in [p for p in _CHILDREN if p.poll() is not None]:
            _CHILDREN.remove(old)  # reaps the process
        try:
            document = read_job(folder)
        except JobError:
            return None
        alive = at_work(folder)
        progress: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            read = read_json(folder / "progress.json", _BYTES)
            fits(read, _Progress)
            progress = read
        state: State = "running" if alive else progress.get("state", "interrupted")
        if not alive and state == "running":
            state = "interrupted"
        fields = {k: progress[k] for k in ("done", "total", "doing", "error", "pid") if k in progress}
        return Job(folder.name, document["kind"], document["asked"], document["begun"], state, **fields)

    def _tidy(self) -> None:
        for job in self.all()[MEMORY:]:
            if job.state != "running":
                _remove(self.folder / job.id)


def read_job(folder: Path) -> JobDocument:
    """What the job of a folder is.

    Raises:
        JobError: there is none, or its file is damaged.
    """
    try:
        document: JobDocument = read_json(folder / "job.json", _BYTES)
        fits(document, JobDocument)
    except (OSError, ValueError) as error:
        raise JobError(
            f"the job {shorten(folder.name, 40)} cannot be read ({shorten(error)}): start another"
        ) from error
    return document


_CHILDREN: list[subprocess.Popen[bytes]] = []


def _remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink(missing_ok=True)
    folder.rmdir()
