"""The first start: where there is no store, make a small one of the built-in model and show the progress."""

from __future__ import annotations

import streamlit as st

from apps.explorer.server.jobs import Job, Jobs
from apps.explorer.server.security import plain
from apps.explorer.server.settings import BUILT_IN, Settings
from circuits.dataset.scan_store import models_in
from circuits.errors import CircuitsError

IMAGES = "scenes:500"


def ready(server: Settings) -> bool:
    """Whether the store has a scan; else show the progress of the job that makes one."""
    if models_in(server.store):
        return True
    try:
        job = _job(server)
    except CircuitsError as error:
        st.error(plain(error))
        return False
    if server.model not in (None, BUILT_IN):
        return True  # the pages of that model show the command that scans it
    _progress(server, job.id)
    return False


def _job(server: Settings) -> Job:
    """The job that makes the store: the present one, or a new one."""
    jobs = Jobs(server.store)
    for job in jobs.all():
        if job.kind == "begin":
            return job if job.state in ("running", "failed") else jobs.resume(job.id)
    return jobs.start("begin", {"model": BUILT_IN, "images": IMAGES})


@st.fragment(run_every=0.7)
def _progress(server: Settings, identity: str) -> None:
    job = Jobs(server.store).get(identity)
    if models_in(server.store):
        st.rerun()
    st.title("Circuits", anchor=False)
    st.markdown("Scanning every unit of the built-in network on 500 rendered scenes. This happens once.")
    if job.state == "failed":
        st.error(plain(f"The scan failed: {job.error}"))
        return
    st.progress(job.share, text=plain(job.progress_text))
