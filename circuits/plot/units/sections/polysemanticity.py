"""Polysemanticity: the unit's examples in clusters."""

from __future__ import annotations

from markupsafe import Markup

from circuits.plot.drawing.canvas import embedded
from circuits.plot.units.polysemanticity import polysemantic_unit
from circuits.plot.units.section_renderers import Sheet, note, renderer
from circuits.units.polysemanticity import Polysemanticity


@renderer("polysemanticity")
def _polysemanticity(result: Polysemanticity, sheet: Sheet) -> Markup:
    if not result.split:
        text = "Its examples form no clusters by the units that activate it, beyond those of chance."
    else:
        text = (
            f"Its examples form {len(result.clusters)} clusters by the units that activate it (score "
            f"{result.score:.2f}; 0: one cluster, 1: clusters that share nothing)."
        )
    figure = polysemantic_unit(result, sheet.images, sheet.spec)
    return note(text) + embedded(figure, "Examples, by the units that activate it")
