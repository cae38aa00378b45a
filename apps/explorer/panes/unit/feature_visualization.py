"""Feature visualizations of a unit: one that activates it, a diverse set, and one that suppresses it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import streamlit as st

from apps.explorer.components.gallery import gallery, tile
from apps.explorer.server.jobs import Job, Jobs
from apps.explorer.server.security import plain
from apps.explorer.session import state
from apps.explorer.session.state import Location
from circuits.plot.drawing.wording import number

TITLES = {"positive": "activating", "diverse": "activating, diverse", "negative": "suppressing"}


def show(at: Location) -> None:
    """The visualizations of the store, or the command that renders them."""
    stored = state.visualizations_of(at).get(str(at.unit.channel), ())
    order = {kind: i for i, kind in enumerate(TITLES)}
    tiles = []
    for visualization in sorted(stored, key=lambda item: (order[item.kind], item.result.variant))[:9]:
        title = TITLES[visualization.kind]
        src = state.visualization_uri(visualization)
        alt = f"{title}: feature visualization, seed {visualization.result.seed}, {visualization.result.steps} steps"
        note = "" if src is None else number(visualization.result.response)
        tiles.append(tile(None, src, alt=alt if src else "no image activates it", name=title, note=note))
    if tiles:
        size = 118 if len(tiles) > 1 else 180
        gallery(tiles, "visualizations", size=size, label=f"feature visualizations of {at.unit.short}")
    kinds = {visualization.kind for visualization in stored}
    missing = [kind for kind in TITLES if kind not in kinds]
    if missing:
        _offer(at, missing, bool(tiles))


def _offer(at: Location, missing: list[str], any_yet: bool) -> None:
    folder = f"{at.folder}/sweeps/{at.unit.layer}-{at.unit.index}.positive"
    sae = dict(at.settings.saes).get(at.unit.basis or "")
    attached = () if sae is None else ("--sae", f"{at.unit.basis}={sae}")
    command = at.command("visualize", at.unit.channel, *attached, "--out", folder)
    if not any_yet:
        st.caption("Not rendered yet.")
    job = _latest_job(at)
    if job is not None and job.state == "running":
        _progress(at.settings.store, job.id)
    elif at.settings.allow_write:
        if job is not None and job.error:
            st.error(plain(f"Rendering failed: {job.error}"))
        label = "Render" if not any_yet else f"Render {' and '.join(missing)}"
        if st.button(label, key="visualize", icon=":material/auto_awesome:"):
            options = {"address": str(at.unit.channel), "kinds": missing, "steps": 192}
            Jobs(at.settings.store).start("visualize", options)
            st.rerun()
    elif not any_yet:
        st.code(command, language="sh", wrap_lines=True)


def _latest_job(at: Location) -> Job | None:
    """The job that renders this unit, or its layer, and was started last."""
    addresses = {str(at.unit.channel), str(replace(at.unit, index=None, at=None))}
    jobs = (job for job in Jobs(at.settings.store).all() if job.kind == "visualize")
    return next((job for job in jobs if job.options.get("address") in addresses), None)


@st.fragment(run_every=1.0)
def _progress(store: Path, identity: str) -> None:
    """The progress of a job; the page runs again once it has ended, and shows what was rendered or what failed."""
    job = Jobs(store).get(identity)
    if job.state != "running":
        st.rerun()
    st.progress(job.share, text=plain(job.progress_text))
