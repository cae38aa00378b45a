"""Tuning curves and maps of the unit."""

from __future__ import annotations

from markupsafe import Markup

from circuits.plot.drawing.canvas import embedded
from circuits.plot.drawing.html_page import render
from circuits.plot.drawing.wording import number, short
from circuits.plot.units.section_renderers import Sheet, renderer
from circuits.plot.units.tuning import tuning_curves, tuning_map
from circuits.tuning import Tuning
from circuits.units.dossier.sections.tuning import Tunings


@renderer("tuning")
def _tuning(tunings: Tunings, sheet: Sheet) -> Markup:
    rows: list[tuple[str, tuple[str, ...] | None]] = []
    for name, tuning in tunings.by.items():
        row = tuning.rows()[0]
        if row.peak <= 0:
            rows.append((name, None))
            continue
        at = ", ".join(f"{a} {v:g}" if isinstance(v, float) else f"{a} {v}" for a, v in row.describe()["at"].items())
        width = "" if row.width is None else f"{row.width:.0f}\N{DEGREE SIGN}"
        echo = "" if row.echo is None else f"{row.echo:.2f}"
        rows.append((name, (number(row.peak), at, width, echo)))
    best = next(iter(tunings.by.values()))
    return render("sections/tuning.html", rows=rows, figures=[] if best.rows()[0].peak <= 0 else _figures(best))


def _figures(tuning: Tuning) -> list[Markup]:
    name = short(tuning.units[0])
    parts = [embedded(tuning_curves(tuning), f"Tuning of {name} to orientation")]
    if sum(len(axis) > 1 and not axis.average for axis in tuning.axes) > 1:
        parts.append(embedded(tuning_map(tuning, tuning.units[0]), f"Tuning of {name} along two axes"))
    return parts
