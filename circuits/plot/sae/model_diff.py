"""Two networks compared by a crosscoder: where its latents are, how many are of one network alone, what these do."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from circuits.plot.drawing import canvas, palette

_CLASSES = 6


def model_diff_figure(result: Any, *, title: str = "") -> Figure:
    """Shares of the latents; latents of one network alone beside the controls; accuracy without them, by class.

    Args:
        result: a `ModelDiff` of `sae.diff`.
        title: default what was compared.
    """
    figure, page = canvas.page(1080, 400)
    about = f"latents of a crosscoder, judged on {result.held_out} held-out images"
    canvas.heading(page, title or f"{result.first} and {result.second}", about)
    alive = [latent for latent in result.latents if latent.kind != "dead"]
    axes = figure.add_axes((0.05, 0.16, 0.26, 0.58))
    bins = [i / 30 for i in range(31)]
    sure = [latent.share for latent in alive if latent.kind.startswith("only")]
    axes.hist([latent.share for latent in alive], bins=bins, color=palette.TILE)
    axes.hist(sure, bins=bins, color=palette.EXCITES)
    canvas.strip_spines(axes)
    canvas.name_axes(axes, "share of the row's length in the first", "latents (confirmed: colored)")

    rows = [result.counts, *result.controls]
    axes = figure.add_axes((0.42, 0.16, 0.17, 0.58))
    heights = np.arange(len(rows))
    axes.barh(heights, [row.by_length_alone for row in rows], color=palette.TILE)
    axes.barh(heights, [row.exclusive for row in rows], color=palette.EXCITES)
    axes.set_yticks(heights, ["the two", *(row.comparison.rpartition(" ")[2][:18] for row in rows[1:])])
    axes.set_xlim(0, max(1, *(row.by_length_alone for row in rows)))
    axes.invert_yaxis()
    canvas.strip_spines(axes)
    canvas.name_axes(axes, "latents of one network alone (gray: by length)", "")

    effects = result.effects[:_CLASSES]
    if effects:
        axes = figure.add_axes((0.71, 0.16, 0.26, 0.58))
        heights = np.arange(len(effects))
        for at, effect in zip(heights, effects, strict=True):
            if effect.control_low is not None:
                axes.plot([effect.control_low, effect.control_high], [at, at], color=palette.INK, lw=2)
            axes.plot(effect.accuracy, at, "o", color=palette.PAPER, mec=palette.INK)
            axes.plot(effect.ablated, at, "o", color=palette.EXCITES)
        axes.set_yticks(heights, [effect.label[:18] for effect in effects])
        axes.set_xlim(-0.03, 1.03)
        axes.invert_yaxis()
        canvas.strip_spines(axes)
        canvas.name_axes(axes, "accuracy: clean (white), without (colored), controls (line)", "")
    return figure
