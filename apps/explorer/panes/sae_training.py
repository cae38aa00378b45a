"""The SAE of the built-in language model while it is being made, once, by a job beside the page."""

from __future__ import annotations

import time

import streamlit as st

from apps.explorer.resources import language_models
from apps.explorer.server.jobs import Jobs
from apps.explorer.server.security import plain
from apps.explorer.server.settings import settings
from zoo.networks.language import LanguageModel


def wait_for(lm: LanguageModel) -> None:
    """Show how far it is; it is begun where nobody has. The page is run again once it is there.

    Raises:
        JobError: too many jobs are at work. FileError: the store cannot be written.
    """
    jobs = Jobs(settings().store)
    asked = {"address": f"{lm.name}/{language_models.SITE}", "weights": lm.digest}
    found = next((job for job in jobs.all() if job.kind == "dictionary" and dict(job.asked) == asked), None)
    if found is None or found.state in ("stopped", "interrupted", "done"):
        found = jobs.start("dictionary", asked)
    _shown(found.id)


@st.fragment(run_every=0.7)
def _shown(identity: str) -> None:
    job = Jobs(settings().store).get(identity)
    if job.state == "done":
        st.rerun()
    st.markdown("Training a small sparse autoencoder on the built-in language model. This happens once.")
    if job.state == "failed":
        st.error(plain(f"That went wrong: {job.error}"))
    else:
        st.progress(job.share, text=plain(job.words))
        st.caption(f"{time.time() - job.begun:.0f} seconds; what comes out is kept in the store")
