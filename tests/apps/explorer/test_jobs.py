"""Jobs: stopped, killed or left alone, what they made is whole, and they go on where they were."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from apps.explorer.server.jobs import Job, JobError, Jobs
from apps.explorer.server.process_lock import FOLDER, at_work, lock_of
from circuits.dataset.scan_results import read_scan
from circuits.dataset.scan_store import StoreError
from tests.apps.explorer.conftest import Open, scan_files, texts

SCAN = {"model": "scenes", "images": "scenes:400", "layers": ["mixed3b"]}


def wait(jobs: Jobs, job: Job, until: Callable[[Job], bool], seconds: float = 90) -> Job:
    """The job once it is as wanted."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        job = jobs.get(job.id)
        if until(job):
            return job
        time.sleep(0.05)
    raise AssertionError(
        f"{job.state}: {job.progress_text} {job.error} {(jobs.folder / job.id / 'log.txt').read_text()[-800:]}"
    )


@pytest.mark.slow
def test_a_job_scans_and_makes_thumbnails(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = jobs.start("scan", {"model": "scenes", "images": "scenes:40", "layers": ["mixed3b"]})
    assert wait(jobs, job, lambda j: j.state != "running").state == "done"
    from apps.explorer.resources import thumbnails

    scan = read_scan(tmp_path, "scenes")
    thumbs = thumbnails.stored(scan, "mixed3b")
    assert scan.count == 40 and thumbs is not None and len(thumbs) == 48


@pytest.mark.slow
def test_a_stopped_scan_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole, parts = Jobs(tmp_path / "whole"), Jobs(tmp_path / "parts")
    job = parts.start("scan", SCAN)
    wait(parts, job, lambda j: j.done >= 64 and j.doing.startswith("scanning"))
    parts.cancel(job.id)
    stopped = wait(parts, job, lambda j: j.state != "running")
    assert stopped.state == "stopped" and not at_work(parts.folder / job.id)
    with pytest.raises(StoreError):
        read_scan(tmp_path / "parts", "scenes")
    assert parts.resume(job.id).id == job.id
    assert wait(parts, job, lambda j: j.state != "running").state == "done"
    other = whole.start("scan", SCAN)
    assert wait(whole, other, lambda j: j.state != "running").state == "done"
    same, again = scan_files(tmp_path / "whole"), scan_files(tmp_path / "parts")
    assert {n: b for n, b in same.items() if "manifest" not in n} == {
        n: b for n, b in again.items() if "manifest" not in n
    }


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process by its number")
def test_a_killed_job_is_interrupted_and_can_go_on(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = jobs.start("scan", SCAN)
    working = wait(jobs, job, lambda j: j.done >= 64)
    os.kill(working.pid, signal.SIGKILL)
    assert wait(jobs, job, lambda j: j.state != "running").state == "interrupted"
    jobs.resume(job.id)
    assert wait(jobs, job, lambda j: j.state != "running").state == "done"
    assert read_scan(tmp_path, "scenes").count == 400


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process by its number")
def test_when_the_explorer_is_killed_its_jobs_end_and_can_go_on(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom apps.explorer.server.jobs import Jobs\n"
        "from apps.explorer.session.labels import Label, Labels\n"
        f"job = Jobs(Path(sys.argv[1])).start('scan', {SCAN!r})\nprint(job.id, flush=True)\n"
        "i = 0\nwhile True:\n    Labels(Path(sys.argv[1])).save(Label(f'scenes/mixed4a:{i}', 'ann', 'x'))\n    i += 1\n"
    )
    explorer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert explorer.stdout is not None
    identity = explorer.stdout.readline().strip()
    jobs = Jobs(tmp_path)
    job = wait(jobs, jobs.get(identity), lambda j: j.done >= 64)
    explorer.kill()
    explorer.communicate()
    assert wait(jobs, job, lambda j: j.state != "running").state == "interrupted"
    from apps.explorer.session.labels import Labels

    labels = Labels(tmp_path).all()
    assert labels and all(label.name == "x" for label in labels)
    jobs.resume(identity)
    assert wait(jobs, job, lambda j: j.state != "running").state == "done"
    assert read_scan(tmp_path, "scenes").unit("scenes/mixed3b:39").images == 400


def test_the_same_job_twice_is_one(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = jobs.start("scan", SCAN)
    assert jobs.start("scan", SCAN).id == job.id
    jobs.cancel(job.id)
    wait(jobs, job, lambda j: j.state != "running")
    jobs.forget(job.id)
    assert jobs.all() == []


@pytest.mark.slow
def test_visualizations_are_rendered_and_shown(store: Path, opened: Open, settings: Callable[..., None]) -> None:
    jobs = Jobs(store)
    options = {"address": "scenes/mixed3b:39", "kinds": ["positive", "negative"], "steps": 4}
    job = jobs.start("visualize", options)
    assert wait(jobs, job, lambda j: j.state != "running").state == "done"
    settings(store, allow_write=True)
    at = opened("unit", unit="scenes/mixed3b:39")
    assert "suppressing" in texts(at) and "Render diverse" in [b.label for b in at.button]


def test_the_page_of_a_unit_follows_the_job_that_renders_it(
    store: Path, opened: Open, settings: Callable[..., None]
) -> None:
    folder = store / FOLDER / "20260101-000000-abcdef"
    folder.mkdir(parents=True)
    job = {"kind": "visualize", "asked": {"address": "scenes/mixed3b:39", "kinds": ["positive"]}, "begun": 1.0}
    (folder / "job.json").write_text(json.dumps(job))
    settings(store, allow_write=True)

    def progress(state: str, **more: object) -> None:
        (folder / "progress.json").write_text(json.dumps({"state": state, "done": 1, "total": 4, **more}))

    with lock_of(folder, 5):
        progress("running", doing="rendering positive visualizations")
        at = opened("unit", unit="scenes/mixed3b:39", settle=False)
        assert [bar.proto.text for bar in at.get("progress")] == ["rendering positive visualizations, 1 of 4"]
        assert "Render" not in [b.label for b in at.button]
    progress("failed", error="the disk is full")
    at.run()
    assert not at.get("progress") and "the disk is full" in at.error[0].value
    assert "Render" in [b.label for b in at.button]
    progress("done")
    at.run()
    assert not at.get("progress") and not at.error, "an ended job is not shown as starting"


@pytest.mark.slow
def test_a_failed_job_shows_its_error(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = jobs.start("scan", {"model": "scenes", "images": str(tmp_path / "nowhere")})
    failed = wait(jobs, job, lambda j: j.state != "running")
    assert failed.state == "failed" and "nowhere" in failed.error
    with pytest.raises(JobError, match="no job"):
        jobs.get("20260101-000000-abcdef")
    with pytest.raises(JobError, match="there are begin"):
        jobs.start("rm", {})


def test_jobs_cannot_be_started_from_a_browser_that_may_not_write(opened: Open) -> None:
    at = opened("jobs")
    assert "job_start" not in [b.key for b in at.button]
    assert "circuits scan scenes" in texts(at)
