"""Scans and feature visualizations that run in the background: their progress, and buttons to stop and resume."""

from __future__ import annotations

import time
from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.pages import Entry
from apps.explorer.server.jobs import Job, Jobs
from apps.explorer.server.security import UploadError, guarded, plain
from apps.explorer.server.settings import BUILT_IN
from apps.explorer.session import concepts
from apps.explorer.session.state import Location, models
from circuits.errors import CircuitsError

PAGE = Entry("Jobs", ":material/pending_actions:", "scans and visualizations that run in the background", order=100)
ICONS = {"running": "progress_activity", "done": "check", "failed": "error", "stopped": "stop", "interrupted": "pause"}


def main() -> None:
    """The page."""
    at = page_frame.location()
    page_frame.header(
        "jobs", "Jobs", about="Work of minutes, in processes of its own. A stopped job resumes where it was."
    )
    if at.settings.allow_write:
        with st.container(border=True), guarded():
            _new(at)
    else:
        st.info("Jobs can be started here with: circuits explore --allow-write. The same from a shell:")
        sweep = f"{at.folder}/sweeps/{at.unit.layer}.positive"
        st.code(
            at.command("scan", at.model.name, "--images", _sources(at)[0], "--store", at.settings.store)
            + "\n"
            + at.command("visualize", f"{at.model.name}/{at.unit.layer}", "--out", sweep),
            language="sh",
        )
    _list(at)


def _sources(at: Location) -> list[str]:
    """Images that a scan may run on: rendered scenes, and the folders that the server was given."""
    folders = (
        [] if at.settings.images is None else [f"{concepts.FOLDER}{f}" for f in concepts.folders(at.settings.images)]
    )
    scenes = ["scenes:500", "scenes:2000"]
    return [*scenes, *folders] if at.model.name == BUILT_IN else [*folders, *scenes]


def _new(at: Location) -> None:
    sure = True
    first, middle, last = st.columns([3, 5, 2], vertical_alignment="bottom")
    kind = first.selectbox("New job", ["Scan", "Visualize a layer", "Visualize a unit"], key="job_kind")
    options: dict[str, Any]
    if kind == "Scan":
        source = middle.selectbox("Images", _sources(at), key="job_images")
        name = at.model.name if at.model.name in models(at.settings) else BUILT_IN
        options = {"model": name, "images": _source_path(at, str(source)), "replace": at.scan is not None}
        if at.scan is not None:
            sure = st.checkbox("Replace the present scan", key="job_replace")
    else:
        steps = middle.select_slider("Steps", [32, 64, 128, 192, 256, 512], 128, key="job_steps")
        space = at.unit.channel if kind == "Visualize a unit" and at.unit.index is not None else at.unit.space
        address = str(space) if "/" in str(space) else f"{at.model.name}/{space}"
        options = {"address": address, "kinds": ["positive"], "steps": int(steps)}
    if last.button("Start", key="job_start", type="primary", width="stretch", disabled=not sure):
        Jobs(at.settings.store).start("scan" if kind == "Scan" else "visualize", options)
        st.rerun()
    subject = (
        options.get("address")
        or f"{options['model']}, replacing the present scan" * (at.scan is not None)
        or options["model"]
    )
    st.caption(plain(f"of {subject}"))


def _source_path(at: Location, source: str) -> str:
    if not source.startswith(concepts.FOLDER):
        return source
    name = source.removeprefix(concepts.FOLDER)
    if at.settings.images is None or name not in concepts.folders(at.settings.images):
        raise UploadError("there is no such folder of images")
    return str(at.settings.images / name)


def _list(at: Location) -> None:
    """The jobs, watched while one is running; a page on which nothing happens does no work."""
    running = any(job.state == "running" for job in Jobs(at.settings.store).all())
    st.fragment(run_every=1.0 if running else None)(_listed)(at, running)


def _listed(at: Location, watched: bool) -> None:
    jobs = Jobs(at.settings.store)
    listed = jobs.all()
    if watched and not any(job.state == "running" for job in listed):
        st.rerun()
    if not listed:
        st.caption("No job has been started in this store.")
    for job in listed[:30]:
        with st.container(border=True):
            _job(jobs, job, at.settings.allow_write)


def _job(jobs: Jobs, job: Job, write: bool) -> None:
    text_column, bar, buttons = st.columns([5, 4, 3], vertical_alignment="center")
    begun = time.strftime("%d %b, %H:%M", time.localtime(job.begun))
    text_column.markdown(f":material/{ICONS[job.state]}: **{plain(job.title)}**")
    text_column.caption(plain(f"{job.state}, started {begun}"))
    if job.state == "running":
        bar.progress(job.share, text=plain(job.progress_text))
    elif job.error:
        bar.caption(plain(job.error))
    elif job.state != "done":
        bar.caption(plain(f"stopped at: {job.progress_text}"))
    if not write:
        return
    with buttons.container(horizontal=True, horizontal_alignment="right"):
        try:
            if job.state == "running":
                if st.button("Stop", key=f"stop-{job.id}"):
                    jobs.cancel(job.id)
            else:
                if job.state != "done" and st.button("Resume", key=f"resume-{job.id}"):
                    jobs.resume(job.id)
                    st.rerun()
                if st.button("Remove", key=f"forget-{job.id}", type="tertiary"):
                    jobs.forget(job.id)
                    st.rerun(scope="fragment")
        except CircuitsError as error:
            st.error(plain(error))


main()
