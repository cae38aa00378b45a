"""Incoming and outgoing weights."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from circuits.plot.drawing.html_page import render
from circuits.plot.drawing.svg import kernel_svg
from circuits.plot.drawing.wording import decimals, kernel_effect, minus, short
from circuits.plot.units.section_renderers import Sheet, note, renderer, thumb
from circuits.units.dossier import Wires

_KERNEL = 56


@renderer("inputs")
def _inputs(wires: Wires, sheet: Sheet) -> Markup:
    start = "" if wires.start == wires.layer else f", measured from {wires.start}"
    text = (
        f"The {len(wires.rows)} strongest of {wires.count} kernels from {wires.layer}{start}; "
        "a share is one of all squared weights. Expanded weights: ReLUs between are taken as linear."
    )
    rest = Markup("")
    if wires.rest is not None and wires.count > len(wires.rows):
        total = minus(f"{float(wires.rest.sum()):+.3g}")
        rest = note(f"The {wires.count - len(wires.rows)} others add up to {total}.")
    return note(text) + _weights(wires, sheet) + rest


@renderer("outputs")
def _outputs(wires: Wires, sheet: Sheet) -> Markup:
    text = (
        f"The {len(wires.rows)} units of {wires.layer} with the strongest kernels from this unit, of {wires.count}; "
        "a share is one of all squared incoming weights of that unit."
    )
    return note(text) + _weights(wires, sheet)


def _weights(wires: Wires, sheet: Sheet) -> Markup:
    scale = max((float(np.abs(w.kernel).max()) for w in wires.rows), default=1.0) or 1.0
    digits = decimals([w.weight for w in wires.rows])
    rows = [
        (
            thumb(wire.unit, sheet),
            kernel_svg(wire.kernel, scale, _KERNEL, f"{short(wire.unit)} kernel"),
            short(wire.unit),
            f"{minus(f'{wire.weight:+.{digits}f}')}, {100 * wire.share:.2g} %",
            kernel_effect(wire.kernel),
        )
        for wire in wires.rows
    ]
    return render("sections/weights.html", rows=rows)
