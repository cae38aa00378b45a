"""Units that are similar, by each measure."""

from __future__ import annotations

from markupsafe import Markup

from circuits.plot.drawing.html_page import join, tag
from circuits.plot.drawing.wording import minus
from circuits.plot.units.section_renderers import Sheet, note, renderer, unit_grid
from circuits.units.dossier.sections.similar_units import SimilarUnits


@renderer("neighbors")
def _neighbors(similar: SimilarUnits, sheet: Sheet) -> Markup:
    parts = []
    for name, measure in similar.by.items():
        parts.append(tag("h4", f"By {name}"))
        chance = minus(f"{measure.chance:.2f}")
        parts.append(note(f"{measure.measure}; 99 of 100 pairs of units lie below {chance}, and are faint here"))
        rows = [(unit, minus(f"{value:.2f}"), value <= measure.chance) for unit, value in measure.rows]
        parts.append(note("It has nothing to compare.") if measure.silent else unit_grid(rows, sheet))
    return join(parts)
