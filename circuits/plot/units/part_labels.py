"""The units that detect each part best, by masks, beside what random directions and an untrained network reach."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from circuits.dataset.labels.results import CONTROLS, PartLabels
from circuits.plot.drawing import canvas, palette
from circuits.plot.superposition.charts import MARGIN, head, plain
from zoo.common.checks import whole_number

WIDTH, ROW, TOP_MARGIN, FOOT = 9.8, 0.22, 0.75, 0.85
"""Width, height of a row, and of what is above and below the rows, in inches."""
MARKS = dict(zip(CONTROLS, ("x", "+", "|"), strict=True))


def part_labels_figure(labels: PartLabels, *, top: int = 3, title: str = "") -> Figure:
    """For each part its best units: AUC over pixels with the 95 % interval over images, beside the controls.

    Units are chosen on one half of the images; all that is drawn is of the other. A unit is filled where its whole
    interval lies above every control. Controls are those of the unit's layer.

    Args:
        labels: of `circuits.label`.
        top: units for each part.
        title: default the model.
    """
    whole_number("top", top)
    rows = [(part, unit) for part in labels.parts for unit in labels.best(part, top=top)]
    height = TOP_MARGIN + FOOT + ROW * max(1, len(rows))
    figure = Figure(figsize=(WIDTH, height), dpi=canvas.DPI, facecolor=palette.PAPER)
    axes = figure.add_axes((0.40, FOOT / height, 0.36, ROW * max(1, len(rows)) / height))
    about = "AUC of the best units for each part, with 95 % intervals, on images that did not choose them"
    head(figure, title or labels.model, about)
    beside = blended_transform_factory(figure.transFigure, axes.transData)
    lowest = 0.5
    for y, (part, unit) in enumerate(rows):
        color = palette.EXCITES if unit.above_controls else palette.MUTED
        if unit.low is not None and unit.high is not None:
            axes.plot([unit.low, unit.high], [y, y], color=color, lw=1.6, solid_capstyle="butt")
            lowest = min(lowest, unit.low)
        face = color if unit.above_controls else palette.PAPER
        axes.plot(unit.auc, y, marker="o", ms=5, color=color, mfc=face)
        space = unit.unit.removeprefix(f"{labels.model}/").rpartition(":")[0]
        for name, (area, _) in labels.controls(part, space).items():
            axes.plot(area, y, marker=MARKS[name], ms=5, mew=0.9, color=palette.INK, ls="none")
            lowest = min(lowest, area)
        first = y == 0 or rows[y - 1][0] != part
        if first and y:
            axes.axhline(y - 0.5, color=palette.LINE, lw=0.6)
        if first:
            count = labels.image_counts[part][1]
            axes.text(
                MARGIN / canvas.DPI / WIDTH, y, canvas.printable(f"{part} ({count} images)", 30), fontsize=8.5,
                fontweight="bold", va="center", transform=beside, parse_math=False,
            )  # fmt: skip
    axes.set_yticks(range(len(rows)), [unit.unit.removeprefix(f"{labels.model}/") for _, unit in rows], fontsize=8.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(lowest - 0.02, 1.01)
    axes.axvline(0.5, color=palette.LINE, lw=0.8, zorder=0)
    axes.set_xlabel("AUC over pixels", fontsize=9)
    for name, mark in MARKS.items():
        axes.plot([], [], marker=mark, ms=5, mew=0.9, color=palette.INK, ls="none", label=f"best of {name}")
    axes.plot([], [], marker="o", ms=5, color=palette.EXCITES, lw=1.6, label="unit above every control")
    axes.plot([], [], marker="o", ms=5, color=palette.MUTED, mfc=palette.PAPER, lw=1.6, label="unit not above them")
    axes.legend(fontsize=7.5, frameon=False, loc="upper left", bbox_to_anchor=(1.03, 1.0))
    plain(axes)
    return figure
