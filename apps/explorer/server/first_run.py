"""The first start: without any store, a small one of the built-in model is made, while its progress is shown."""

from __future__ import annotations

import streamlit as st

from apps.explorer.server.jobs import Job, Jobs
from apps.explorer.server.security import plain
from apps.explorer.server.settings import BUILT_IN, Settings
from circuits.dataset.scan_store import models_in
from circuits.errors import CircuitsError

PICTURES = "scenes:500"


def ready(chosen: Settings) -> bool:
    """Whether there is something to look at; else what is being done about it is shown."""
    if models_in(chosen.store):
        return True
    try:
        job = _begun(chosen)
    except CircuitsError as error:
        st.error(plain(error))
        return False
    if chosen.model not in (None, BUILT_IN):
        return True  # that model's pages say how it is scanned
    _progress(chosen, job.id)
    return False


def _begun(chosen: Settings) -> Job:
    """The job that makes the store: the one at work, or a new one."""
    jobs = Jobs(chosen.store)
    for job in jobs.all():
        if job.kind == "begin":
            return job if job.state in ("running", "failed") else jobs.resume(job.id)
    return jobs.start("begin", {"model": BUILT_IN, "images": PICTURES})


@st.fragment(run_every=0.7)
def _progress(chosen: Settings, identity: str) -> None:
    job = Jobs(chosen.store).get(identity)
    if models_in(chosen.store):
        st.rerun()
    st.title("Circuits", anchor=False)
    st.markdown("Looking at every unit of the built-in network on 500 drawn scenes. This happens once.")
    if job.state == "failed":
        st.error(plain(f"That went wrong: {job.error}"))
        return
    st.progress(job.share, text=plain(job.words))
