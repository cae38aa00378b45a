"""A sum, step by step: sources with their pictures and kernels, and bars that run from where the last one ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from apps.explorer.components import asset
from apps.explorer.components.wires import kernel_uri
from apps.explorer.session import links
from circuits.plot.circuit.waterfall import Step
from circuits.plot.drawing import palette
from circuits.plot.drawing.wording import decimals, minus, short

_mount = st.components.v2.component(
    "explorer_steps",
    html='<div class="steps"></div>',
    css=asset("base.css") + asset("steps.css"),
    js=asset("made.js") + asset("steps.js"),
)


def steps(shown: Sequence[Step], pictures: Mapping[str, str | None], names: Mapping[str, str], *, key: str) -> None:
    """The element; a click on a source opens it.

    Args:
        shown: of `circuits.plot.circuit.waterfall`; pictures: of units, by address; names: of units;
            key: of the element.
    """
    scale = palette.shared_scale(step.edge.kernel for step in shown if step.edge is not None)
    digits = decimals(step.value for step in shown)
    ends = [0.0, *(v for step in shown for v in (step.start, step.end))]
    rows = []
    for step in shown:
        edge = step.edge
        rows.append(
            {
                "name": step.name if edge is None else names.get(edge.source, ""),
                "address": None if edge is None else short(edge.source),
                "unit": None if edge is None else edge.source,
                "href": None if edge is None else links.unit_path(edge.source),
                "src": None if edge is None else pictures.get(edge.source),
                "kernel": None if edge is None else kernel_uri(edge.kernel, scale),
                "number": minus(f"{step.value:+.{digits}f}"),
                "start": step.start,
                "end": step.end,
                "kind": step.kind,
                "sign": 1 if step.value > 0 else -1 if step.value < 0 else 0,
            }
        )
    found = _mount(key=key, data={"rows": rows, "low": min(ends), "high": max(ends)}, on_open_change=lambda: None)
    if found.open:
        links.go("unit", keep=("tour", "step"), unit=found.open)
