"""Toy models of superposition for figures: the experiments of `circuits toy`, or fewer and shorter runs of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from apps.figures.context import FigureContext

if TYPE_CHECKING:
    from sae.superposition import Trained

_SHORT: dict[str, Any] = {"batch": 256, "records": 2, "lr": 3e-3}
"""Options with which a model is nearly as good after a fifth of the steps."""


def trained(
    context: FigureContext,
    name: str,
    *,
    seeds: tuple[int, int],
    steps: tuple[int, int],
    every: tuple[int, int] = (1, 1),
) -> Trained:
    """The trained models of an experiment; with less effort than "full" a subset of its settings, trained shorter.

    Args:
        context: of the figure.
        name: of the experiment, one of single models.
        seeds, steps, every: runs of each setting, optimizer steps, and one of how many settings is trained; each for
            the efforts "quick" and "test".
    """
    from sae.superposition import Trained, experiment

    selected = experiment(name)
    models = selected.models
    if context.effort != "full" and models is not None:
        at = 0 if context.effort == "quick" else 1

        def fewer(runs: int) -> list[Any]:
            candidates = models(runs)
            settings = list(dict.fromkeys(m.setting for m in candidates))
            subset = {*settings[:: every[at]], settings[-1]}
            return [m for m in candidates if m.setting in subset]

        options = {**selected.options, **_SHORT, "steps": steps[at]}
        selected = replace(selected, models=fewer, seeds=seeds[at], options=options)
    result = selected.run(seed=context.seed, device="cpu")
    if not isinstance(result, Trained):
        raise TypeError(f"{name} is no experiment of single models")
    return result
