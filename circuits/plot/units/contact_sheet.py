"""Contact sheets: crops of units, one row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from circuits.plot.circuit.kernels import draw_unit
from circuits.plot.drawing import canvas
from circuits.plot.drawing.crops import Crops
from circuits.plot.drawing.wording import short
from circuits.tracing.circuit import Circuit

TILE, GAP, NAMES = 84, 4, 170


def contact_sheet(
    images: Crops,
    units: Sequence[str] | Circuit | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    columns: int = 6,
) -> Figure:
    """Rows of crops, one for each unit, its name beside them.

    Args:
        images: unit address -> crops; a unit without any gets a gray tile.
        units: which, in order; a circuit gives its nodes and their labels; default all of `images`.
        labels: unit address -> a name.
        columns: at most so many crops a row.
    """
    names = dict(labels or {})
    if isinstance(units, Circuit):
        names = {**{n.unit: n.label for n in units.nodes if n.label}, **names}
        units = [n.unit for n in units.nodes]
    rows = list(images) if units is None else list(units)
    step = TILE + 14
    width = 24 + NAMES + columns * (TILE + GAP) - GAP + 24
    figure, axes = canvas.page(width, 24 + max(1, len(rows)) * step + 10)
    for i, unit in enumerate(rows):
        y = 24 + i * step
        label = names.get(unit)
        if label:
            canvas.write(axes, 24, y + 32, label, size=13, bold=True, limit=20)
        below = y + (52 if label else 44)
        canvas.note(axes, 24, below, short(unit), size=11, mono=True, limit=22)
        draw_unit(axes, unit, images, 24 + NAMES, y, columns=columns, tile=TILE)
    if not rows:
        canvas.note(axes, 24, 60, "no units", size=12)
    return figure
