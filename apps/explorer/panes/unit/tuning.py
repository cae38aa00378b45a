"""Tuning curves: activations on synthetic stimuli over their parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose
from apps.explorer.session import figures
from apps.explorer.session.figures import screen_figure
from apps.explorer.session.state import Location
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


def chosen_kind() -> str:
    """The kind of stimuli that the page shows."""
    kind = str(st.session_state.get("stimuli"))
    return kind if kind in KINDS else next(iter(KINDS))


def show(at: Location) -> None:
    """Tuning curves of one kind of stimuli, and the position of the maximum."""
    kinds = [k for k in KINDS if k != "colors" or at.model.input.channels == 3]
    kind = choose("Stimuli", {k: KINDS[k][0] for k in kinds}, "stimuli")
    model, unit = at.model, at.unit.channel

    # the network runs on the stimuli as long for one unit as for all of its layer: the next unit's are there
    layer = page_frame.background_result(
        ("layer tuning", model.digest, at.unit.space, kind),
        f"activations of {at.unit.space} on {KINDS[kind][0].lower()}",
        lambda progress: tune(model, at.unit.space, stimuli=KINDS[kind][1](), progress=progress),
        model=model,
        folder=at.results,
    )
    if layer is None:
        return

    def draw(progress: Progress) -> dict[str, Any]:
        index = layer.units.index(str(unit))
        curves = replace(
            layer, units=(str(unit),), responses=layer.responses[[index]], baseline=layer.baseline[[index]]
        )
        row = curves.rows()[0]
        figure = screen_figure(lambda: plot.tuning_curves(curves)) if row.peak > 0 else None
        return {"figure": figure, "row": row.describe()}

    result = page_frame.background_result(
        ("tune", model.digest, str(unit), kind), "drawing its tuning curves", draw, folder=at.results
    )
    if result is None:
        return
    row = result["row"]
    if result["figure"] is None:
        st.caption("None of these stimuli activates it.")
        return
    position = ", ".join(f"{axis} {v:g}" if isinstance(v, float) else f"{axis} {v}" for axis, v in row["at"].items())
    st.caption(f"Maximum {minus(format(row['peak'], '.3g'))} at {position}.")
    figures.show(result["figure"], f"Tuning of {unit.short} to {KINDS[kind][0].lower()}", 760)
