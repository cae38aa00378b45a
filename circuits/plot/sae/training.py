"""The course of training: unexplained variance and active latents of SAEs, report by report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from circuits.plot.drawing import canvas, palette
from circuits.plot.drawing.wording import amount

_MOST = 12


def training_figure(runs: Sequence[Any], *, title: str = "") -> Figure:
    """Fraction of variance unexplained and L0 of each run over its steps, on the training batches.

    Args:
        runs: of `sae.train`, at most 12 of which are drawn.
        title: what they are.
    """
    runs = [run for run in runs if run.reports]
    figure, page = canvas.page(860, 360)
    about = "on the training batches, over the steps" + (f"; {_MOST} of {len(runs)} runs" if len(runs) > _MOST else "")
    canvas.heading(page, title or f"Training of {len(runs)} SAE{'s' * (len(runs) != 1)}", about)
    runs = runs[:_MOST]
    measures = (("fvu", "fraction of variance unexplained"), ("l0", "active latents per input"))
    for i, (field, what) in enumerate(measures):
        axes = figure.add_axes((0.07 + 0.47 * i, 0.16, 0.36, 0.58))
        for k, run in enumerate(runs):
            steps, values = zip(*((report.step, getattr(report, field)) for report in run.reports), strict=True)
            label, color = f"{run.name}: {amount(values[-1])}", palette.hue(360 * k / len(runs), 360)
            axes.plot(steps, values, color=color, lw=1.6, marker="o", ms=2.5, label=label)
        canvas.strip_spines(axes)
        canvas.name_axes(axes, "step", what)
        axes.set_ylim(bottom=0)
        if runs:
            axes.legend(fontsize=8, frameon=False)
    return figure
