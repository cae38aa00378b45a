"""The figure of a steered image, for papers: classes before and after, and the dose-response curve."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from apps.explorer.resources.steering_runs import Comparison, DoseResponse
from circuits.plot.drawing import canvas, palette
from circuits.plot.superposition.charts import head, plain

_WIDE, _TALL, _CLASSES = 960, 360, 6


def steered_figure(comparison: Comparison, doses: DoseResponse, target: int, title: str) -> Figure:
    """Classes of an image before and after edits, and the probability of one of them over the dose.

    Args:
        comparison: of the image; doses: of the edits; target: number of the class; title: of the figure.
    """
    figure = Figure(figsize=(_WIDE / canvas.DPI, _TALL / canvas.DPI), dpi=canvas.DPI, facecolor=palette.PAPER)
    over = "one image" if doses.images == 1 else f"{doses.images} images"
    control = f"steps as long along {len(doses.random)} random units"
    head(figure, title, f"left: one image; right: {over}, beside {control}")
    _classes(figure.add_axes((0.14, 0.15, 0.33, 0.62)), comparison)
    _doses(figure.add_axes((0.58, 0.15, 0.39, 0.62)), doses, target, comparison.classes[target].split(",")[0])
    return figure


def _classes(axes: Axes, comparison: Comparison) -> None:
    order = comparison.most(_CLASSES)[::-1]
    rows = range(len(order))
    axes.barh([i + 0.2 for i in rows], 100 * comparison.before[order], 0.36, color=palette.REST, label="before")
    for i, row in enumerate(order):
        color = palette.EXCITES if comparison.after[row] >= comparison.before[row] else palette.INHIBITS
        axes.barh(i - 0.2, 100 * comparison.after[row], 0.36, color=color)
        for y, value in ((i + 0.2, comparison.before[row]), (i - 0.2, comparison.after[row])):
            axes.text(100 * value + 1, y, f"{100 * value:.1f}", va="center", fontsize=8, color=palette.INK)
    axes.set_yticks(rows, [canvas.printable(comparison.classes[i].split(",")[0], 22) for i in order])
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 25))
    axes.set_xlabel("probability, % (gray before, colored after)", fontsize=9.5)
    plain(axes, grid=False)


def _doses(axes: Axes, doses: DoseResponse, target: int, name: str) -> None:
    random = 100 * doses.random[:, :, target]
    axes.fill_between(doses.doses, random.min(axis=0), random.max(axis=0), color=palette.TILE, lw=0, zorder=1,
                      label=f"{len(random)} random units")  # fmt: skip
    for row in random:
        axes.plot(doses.doses, row, color=palette.REST, lw=0.7, zorder=2)
    axes.plot(doses.doses, 100 * doses.values[:, target], color=palette.EXCITES, lw=2, marker="o", ms=4, zorder=3,
              label="these edits")  # fmt: skip
    axes.axvline(1, color=palette.REST, lw=0.8, ls=(0, (1, 2)), zorder=0)
    axes.set_ylim(bottom=0)
    canvas.name_axes(axes, "dose (0: no edit, 1: as set)", f"probability of {canvas.printable(name, 24)}, %")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, fontsize=8, frameon=False)
    plain(axes)
