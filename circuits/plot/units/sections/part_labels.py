"""The parts that a unit detects, as a table."""

from __future__ import annotations

from markupsafe import Markup

from circuits.plot.drawing.html_page import join, table, tag
from circuits.plot.units.section_renderers import Sheet, renderer
from circuits.units.dossier.sections.part_labels import DetectedParts


@renderer("parts")
def _parts(detected: DetectedParts, _sheet: Sheet) -> Markup:
    rows = [
        (
            row.part,
            f"{row.auc:.3f}",
            "" if row.low is None or row.high is None else f"{row.low:.3f} to {row.high:.3f}",
            f"{row.control:.3f}",
            f"{row.iou:.3f}",
        )
        for row in detected.rows
    ]
    best = f"It detects {detected.name}: " if detected.name else "It detects no part better than the controls: "
    text = (
        f"{best}AUC and IoU over pixels of half of the {detected.images['count']} images of "
        f"{detected.images['name']}; the other half chose the order and the thresholds. The control is the best of as "
        "many random directions in the layer, of the untrained network and of the masks of other images."
    )
    return join([tag("p", text), table(("part", "AUC", "95 % interval", "best control", "IoU"), rows)])
