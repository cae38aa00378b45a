"""Scans and pictures, made in the background: how far they are, and how to stop them or go on."""

from __future__ import annotations

import time
from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.server.jobs import Job, Jobs
from apps.explorer.server.security import UploadError, guarded, plain
from apps.explorer.server.settings import BUILT_IN
from apps.explorer.session import concepts
from apps.explorer.session.state import Here, models
from circuits.errors import CircuitsError

ICONS = {"running": "progress_activity", "done": "check", "failed": "error", "stopped": "stop", "interrupted": "pause"}


def main() -> None:
    """The page."""
    at = page_frame.opened()
    page_frame.show(
        "jobs", "Jobs", about="Work of minutes, in processes of its own. What is done stays, whoever is stopped."
    )
    if at.settings.allow_write:
        with st.container(border=True), guarded():
            _new(at)
    else:
        st.info("Jobs can be started here with: circuits explore --allow-write. The same from a shell:")
        st.code(
            f"circuits scan {at.model.name} --images {_sources(at)[0]} --store {at.settings.store}\n"
            f"circuits visualize {at.model.name}/{at.unit.layer} --out {at.folder}/sweeps/{at.unit.layer}.positive",
            language="sh",
        )
    _list(at)


def _sources(at: Here) -> list[str]:
    """Pictures that a scan may look at: drawn ones, and the folders that the server was given."""
    given = (
        [] if at.settings.images is None else [f"{concepts.FOLDER}{f}" for f in concepts.folders(at.settings.images)]
    )
    drawn = ["scenes:500", "scenes:2000"]
    return [*drawn, *given] if at.model.name == BUILT_IN else [*given, *drawn]


def _new(at: Here) -> None:
    sure = True
    one, two, three = st.columns([3, 5, 2], vertical_alignment="bottom")
    kind = one.selectbox("New job", ["Scan", "Pictures of a layer", "Pictures of a unit"], key="job_kind")
    asked: dict[str, Any]
    if kind == "Scan":
        source = two.selectbox("Pictures", _sources(at), key="job_images")
        name = at.model.name if at.model.name in models(at.settings) else BUILT_IN
        asked = {"model": name, "images": _place(at, str(source)), "replace": at.scan is not None}
        if at.scan is not None:
            sure = st.checkbox("Replace the scan that is there", key="job_replace")
    else:
        steps = two.select_slider("Steps", [32, 64, 128, 192, 256, 512], 128, key="job_steps")
        space = at.unit.channel if kind == "Pictures of a unit" and at.unit.index is not None else at.unit.space
        address = str(space) if "/" in str(space) else f"{at.model.name}/{space}"
        asked = {"address": address, "kinds": ["positive"], "steps": int(steps)}
    if three.button("Start", key="job_start", type="primary", width="stretch", disabled=not sure):
        Jobs(at.settings.store).start("scan" if kind == "Scan" else "visualize", asked)
        st.rerun()
    what = (
        asked.get("address")
        or f"{asked['model']}, in place of the scan that is there" * (at.scan is not None)
        or asked["model"]
    )
    st.caption(plain(f"of {what}"))


def _place(at: Here, source: str) -> str:
    if not source.startswith(concepts.FOLDER):
        return source
    name = source.removeprefix(concepts.FOLDER)
    if at.settings.images is None or name not in concepts.folders(at.settings.images):
        raise UploadError("there is no such folder of pictures")
    return str(at.settings.images / name)


@st.fragment(run_every=1.0)
def _list(at: Here) -> None:
    jobs = Jobs(at.settings.store)
    found = jobs.all()
    if not found:
        st.caption("No job has been started in this store.")
    for job in found[:30]:
        with st.container(border=True):
            _job(jobs, job, at.settings.allow_write)


def _job(jobs: Jobs, job: Job, write: bool) -> None:
    words, bar, buttons = st.columns([5, 4, 3], vertical_alignment="center")
    begun = time.strftime("%d %b, %H:%M", time.localtime(job.begun))
    words.markdown(f":material/{ICONS[job.state]}: **{plain(job.title)}**")
    words.caption(plain(f"{job.state}, begun {begun}"))
    if job.state == "running":
        bar.progress(job.share, text=plain(job.words))
    elif job.error:
        bar.caption(plain(job.error))
    elif job.state != "done":
        bar.caption(plain(f"was {job.words}"))
    if not write:
        return
    with buttons.container(horizontal=True, horizontal_alignment="right"):
        try:
            if job.state == "running":
                if st.button("Stop", key=f"stop-{job.id}"):
                    jobs.cancel(job.id)
            else:
                if job.state != "done" and st.button("Go on", key=f"resume-{job.id}"):
                    jobs.resume(job.id)
                    st.rerun(scope="fragment")
                if st.button("Forget", key=f"forget-{job.id}", type="tertiary"):
                    jobs.forget(job.id)
                    st.rerun(scope="fragment")
        except CircuitsError as error:
            st.error(plain(error))


main()
