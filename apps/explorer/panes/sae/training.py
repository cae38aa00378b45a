"""Training of the SAE of the built-in language model, once, in a job."""

from __future__ import annotations

import time

import streamlit as st

from apps.explorer.resources import language_models
from apps.explorer.resources.language_models import LanguageLocation
from apps.explorer.server.jobs import Jobs
from apps.explorer.server.security import plain
from apps.explorer.server.settings import settings
from zoo.networks.language import LanguageModel
from zoo.networks.own import command_line


def wait_for(lm: LanguageModel) -> None:
    """Show the progress of the training, and start it if needed. The page runs again once the SAE is ready.

    Raises:
        JobError: too many jobs are running. FileError: the store cannot be written.
    """
    jobs = Jobs(settings().store)
    options = {"address": f"{lm.name}/{language_models.SITE}", "weights": lm.digest}
    job = next(
        (
            candidate
            for candidate in jobs.all()
            if candidate.kind == "dictionary" and dict(candidate.options) == options
        ),
        None,
    )
    if job is None or job.state in ("stopped", "interrupted", "done"):
        job = jobs.start("dictionary", options)
    _progress(job.id)


@st.fragment(run_every=0.7)
def _progress(identity: str) -> None:
    job = Jobs(settings().store).get(identity)
    if job.state == "done":
        st.rerun()
    st.markdown("Training a small sparse autoencoder on the built-in language model. This happens once.")
    if job.state == "failed":
        st.error(plain(f"The training failed: {job.error}"))
    else:
        st.progress(job.share, text=plain(job.progress_text))
        st.caption(f"{time.time() - job.begun:.0f} seconds; the SAE is saved in the store")


def show_command(at: LanguageLocation) -> None:
    """Show the commands that train an SAE of a language model without one."""
    st.info(f"There is no SAE of {plain(at.lm.name)}. Train one on texts, and start the explorer with it:")
    out = ("--out", "saes/words")
    st.code(
        command_line("sae", "train", at.site.address, "--text", "FILE", "--latents", 8 * at.site.d, "--k", 16, *out)
        + "\n"
        + command_line("explore", "--lm", at.lm.name.removeprefix("hf:"), "--sae", "saes/words"),
        language="sh",
        wrap_lines=True,
    )
