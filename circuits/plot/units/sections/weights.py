"""Incoming and outgoing weights."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from circuits.plot.drawing.html_page import render
from circuits.plot.drawing.svg import kernel_svg
from circuits.plot.drawing.wording import decimals, kernel_effect, minus, short
from circuits.plot.units.section_renderers import Sheet, note, renderer, thumb
from circuits.units.dossier import NeighborWeights

_KERNEL = 56


@renderer("inputs")
def _inputs(weights: NeighborWeights, sheet: Sheet) -> Markup:
    start = "" if weights.start == weights.layer else f", measured from {weights.start}"
    text = (
        f"The {len(weights.rows)} strongest of {weights.count} kernels from {weights.layer}{start}; "
        "a share is one of all squared weights. Expanded weights: ReLUs between are taken as linear."
    )
    rest = Markup("")
    if weights.rest is not None and weights.count > len(weights.rows):
        total = minus(f"{float(weights.rest.sum()):+.3g}")
        rest = note(f"The {weights.count - len(weights.rows)} others add up to {total}.")
    return note(text) + _weights(weights, sheet) + rest


@renderer("outputs")
def _outputs(weights: NeighborWeights, sheet: Sheet) -> Markup:
    text = (
        f"The {len(weights.rows)} units of {weights.layer} with the strongest kernels from this unit, of "
        f"{weights.count}; "
        "a share is one of all squared incoming weights of that unit."
    )
    return note(text) + _weights(weights, sheet)


def _weights(weights: NeighborWeights, sheet: Sheet) -> Markup:
    scale = max((float(np.abs(w.kernel).max()) for w in weights.rows), default=1.0) or 1.0
    digits = decimals([w.weight for w in weights.rows])
    rows = [
        (
            thumb(neighbor.unit, sheet),
            kernel_svg(neighbor.kernel, scale, _KERNEL, f"{short(neighbor.unit)} kernel"),
            short(neighbor.unit),
            f"{minus(f'{neighbor.weight:+.{digits}f}')}, {100 * neighbor.share:.2g} %",
            kernel_effect(neighbor.kernel),
        )
        for neighbor in weights.rows
    ]
    return render("sections/weights.html", rows=rows)
