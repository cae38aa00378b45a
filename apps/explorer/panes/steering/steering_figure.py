"""The figure of a steered picture, for papers: classes before and after, and the dose curve beside random units."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from apps.explorer.resources.steering_runs import Doses, Sides
from circuits.plot.drawing import canvas, palette
from circuits.plot.superposition.charts import head, plain

_WIDE, _TALL, _CLASSES = 960, 360, 6


def steered_figure(made: Sides, found: Doses, target: int, title: str) -> Figure:
    """Classes of a picture before and after edits, and the probability of one of them as the edits are turned up.

    Args:
        made: the picture; found: the doses; target: number of the class; title: over both.
    """
    figure = Figure(figsize=(_WIDE / canvas.DPI, _TALL / canvas.DPI), dpi=canvas.DPI, facecolor=palette.PAPER)
    pictures = "one picture" if found.pictures == 1 else f"{found.pictures} pictures"
    control = f"the same edits of {len(found.random)} random units"
    head(figure, title, f"left: one picture; right: {pictures}, beside {control}")
    _classes(figure.add_axes((0.14, 0.15, 0.33, 0.62)), made)
    _doses(figure.add_axes((0.58, 0.15, 0.39, 0.62)), found, target, made.classes[target].split(",")[0])
    return figure


def _classes(axes: Axes, made: Sides) -> None:
    order = made.most(_CLASSES)[::-1]
    rows = range(len(order))
    axes.barh([i + 0.2 for i in rows], 100 * made.before[order], 0.36, color=palette.REST, label="before")
    for i, row in enumerate(order):
        color = palette.EXCITES if made.after[row] >= made.before[row] else palette.INHIBITS
        axes.barh(i - 0.2, 100 * made.after[row], 0.36, color=color)
        for y, value in ((i + 0.2, made.before[row]), (i - 0.2, made.after[row])):
            axes.text(100 * value + 1, y, f"{100 * value:.1f}", va="center", fontsize=8, color=palette.INK)
    axes.set_yticks(rows, [canvas.printable(made.classes[i].split(",")[0], 22) for i in order])
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 25))
    axes.set_xlabel("probability, % (gray before, colored after)", fontsize=9.5)
    plain(axes, grid=False)


def _doses(axes: Axes, found: Doses, target: int, name: str) -> None:
    random = 100 * found.random[:, :, target]
    axes.fill_between(found.doses, random.min(axis=0), random.max(axis=0), color=palette.TILE, lw=0, zorder=1,
                      label=f"{len(random)} random units")  # fmt: skip
    for row in random:
        axes.plot(found.doses, row, color=palette.REST, lw=0.7, zorder=2)
    axes.plot(found.doses, 100 * found.values[:, target], color=palette.EXCITES, lw=2, marker="o", ms=4, zorder=3,
              label="these edits")  # fmt: skip
    axes.axvline(1, color=palette.REST, lw=0.8, ls=(0, (1, 2)), zorder=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("dose (1: as set, 0: nothing)", fontsize=9.5)
    axes.set_ylabel(f"probability of {canvas.printable(name, 24)}, %", fontsize=9.5)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, fontsize=8, frameon=False)
    plain(axes)
