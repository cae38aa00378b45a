"""What a unit is tuned to: responses to synthetic stimuli, turned step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose
from apps.explorer.session.exports import figure_bytes
from apps.explorer.session.state import Here
from circuits import plot, stimuli
from circuits.plot.drawing.wording import minus
from circuits.tuning import tune
from zoo.progress import Progress

KINDS: dict[str, tuple[str, Callable[[], Any]]] = {
    "curves": ("Arcs", stimuli.curves),
    "lines": ("Lines", stimuli.lines),
    "gratings": ("Gratings", stimuli.gratings),
    "high_low": ("High-low frequency", stimuli.high_low),
    "colors": ("Color contrast", stimuli.color_contrast),
}


def show(at: Here) -> None:
    """Curves of one kind of stimuli, and the numbers read off them."""
    kinds = [k for k in KINDS if k != "colors" or at.model.input.channels == 3]
    kind = choose("Stimuli", {k: KINDS[k][0] for k in kinds}, "stimuli")
    model, unit = at.model, at.unit.channel

    def work(progress: Progress) -> dict[str, Any]:
        found = tune(model, str(unit), stimuli=KINDS[kind][1]())
        row = found.rows()[0]
        figure = figure_bytes(lambda: plot.tuning_curves(found), "png") if row.peak > 0 else None
        return {"figure": figure, "row": row.describe()}

    made = page_frame.settled(
        ("tune", model.digest, str(unit), kind), f"showing {KINDS[kind][0].lower()}", work, model=model
    )
    if made is None:
        return
    row = made["row"]
    if made["figure"] is None:
        st.caption("It answers to none of them.")
        return
    where = ", ".join(f"{axis} {v:g}" if isinstance(v, float) else f"{axis} {v}" for axis, v in row["at"].items())
    st.caption(f"Strongest response {minus(format(row['peak'], '.3g'))} at {where}.")
    st.image(made["figure"], width=760, alt=f"Tuning of {unit.short} to {KINDS[kind][0].lower()}")
