"""Pictures made by optimization: what drives a unit, several that differ, and what keeps it down."""

from __future__ import annotations

import streamlit as st

from apps.explorer.components.gallery import gallery, tile
from apps.explorer.server.jobs import Jobs
from apps.explorer.server.security import plain
from apps.explorer.session import state
from apps.explorer.session.state import Here
from circuits.plot.drawing.wording import number

WORDS = {"positive": "drives it", "diverse": "drives it, too", "negative": "keeps it down"}


def show(at: Here) -> None:
    """The pictures that the store has, or how to have them made."""
    found = state.looks_of(at).get(str(at.unit.channel), ())
    order = {kind: i for i, kind in enumerate(WORDS)}
    tiles = []
    for look in sorted(found, key=lambda one: (order[one.kind], one.result.variant))[:9]:
        words = WORDS[look.kind]
        src = state.shown(look)
        alt = f"{words}: made by optimization, seed {look.result.seed}, {look.result.steps} steps"
        note = "" if src is None else number(look.result.response)
        tiles.append(tile(None, src, alt=alt if src else "no picture makes it answer", name=words, note=note))
    if tiles:
        gallery(tiles, "looks", size=118 if len(tiles) > 1 else 180, label=f"what {at.unit.short} looks for")
    kinds = {look.kind for look in found}
    missing = [kind for kind in WORDS if kind not in kinds]
    if missing:
        _offer(at, missing, bool(tiles))


def _offer(at: Here, missing: list[str], some: bool) -> None:
    command = f"circuits visualize {at.unit.channel} --out {at.folder}/sweeps/{at.unit.layer}-{at.unit.index}.positive"
    if not some:
        st.caption("No picture has been made by optimization yet.")
    if at.settings.allow_write:
        label = "Make pictures" if not some else f"Make {' and '.join(missing)} ones"
        if st.button(label, key="make-looks", icon=":material/auto_awesome:"):
            asked = {"address": str(at.unit.channel), "kinds": missing, "steps": 192}
            Jobs(at.settings.store).start("visualize", asked)
            st.toast("Being made; the Jobs page shows how far it is.")
    elif not some:
        st.code(command, language="sh", wrap_lines=True)
    for job in Jobs(at.settings.store).all()[:5]:
        if job.state == "running" and job.asked.get("address") == str(at.unit.channel):
            st.caption(plain(job.words))
