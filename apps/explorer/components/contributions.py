"""Contributions to a pre-activation as a waterfall: sources with their kernels, and bars that add up to the value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from apps.explorer.components import component
from apps.explorer.components.weights import kernel_uri
from apps.explorer.session import links
from circuits.plot.circuit.waterfall import Step
from circuits.plot.drawing import palette
from circuits.plot.drawing.wording import decimals, minus, short

_mount = component("contributions")


def contributions(
    steps: Sequence[Step], images: Mapping[str, str | None], labels: Mapping[str, str], *, key: str
) -> None:
    """Show the waterfall; a click on a source opens its page.

    Args:
        steps: of the waterfall; images: data URIs of units by address; labels: of units by address.
        key: of the element.
    """
    scale = palette.shared_scale(step.edge.kernel for step in steps if step.edge is not None)
    digits = decimals(step.value for step in steps)
    ends = [0.0, *(v for step in steps for v in (step.start, step.end))]
    rows = []
    for step in steps:
        row = {
            "name": step.name,
            "unit": None,
            "number": minus(f"{step.value:+.{digits}f}"),
            "start": step.start,
            "end": step.end,
            "kind": step.kind,
            "sign": 1 if step.value > 0 else -1 if step.value < 0 else 0,
        }
        if step.edge is not None:
            unit = step.edge.source
            row |= {"name": labels.get(unit, ""), "address": short(unit), "unit": unit, "href": links.unit_path(unit)}
            row |= {"src": images.get(unit), "kernel": kernel_uri(step.edge.kernel, scale)}
        rows.append(row)
    state = _mount(key=key, data={"rows": rows, "low": min(ends), "high": max(ends)}, on_open_change=lambda: None)
    links.open_unit(state.open)
