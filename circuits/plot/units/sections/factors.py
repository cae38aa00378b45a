"""Factors of the unit's incoming weights."""

from __future__ import annotations

from markupsafe import Markup

from circuits.plot.drawing.canvas import embedded
from circuits.plot.units.section_renderers import Sheet, note, renderer
from circuits.plot.units.weight_factors import factor_figure
from circuits.units.weight_factors import Factors


@renderer("factors")
def _factors(factors: Factors, sheet: Sheet) -> Markup:
    text = (
        f"Non-negative factors of its incoming weights: groups of channels, and where each excites and inhibits it. "
        f"They explain {100 * factors.explained:.0f} % of its squared weights; "
        f"{100 * max(factors.shuffled, default=0.0):.0f} % where channels are shuffled."
    )
    crops = {unit: [crop] for unit, crop in sheet.thumbs.items()}
    return note(text) + embedded(factor_figure(factors, crops), "Factors of the weights")
