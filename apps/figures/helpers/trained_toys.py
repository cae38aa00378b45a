"""Toy models of superposition as figures train them: the experiments of `circuits toy`, or fewer of their models."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apps.figures.context import FigureContext
    from sae.superposition import Trained

_SHORT: dict[str, Any] = {"batch": 256, "records": 2, "lr": 3e-3}
"""Options with which a model is nearly as good after a fifth of the work."""


def trained(
    context: FigureContext,
    name: str,
    *,
    seeds: tuple[int, int],
    steps: tuple[int, int],
    every: tuple[int, int] = (1, 1),
) -> Trained:
    """The models of an experiment: all of them as `circuits toy` trains them, or by effort some, and shorter.

    Args:
        context: of the figure.
        name: of the experiment, one of models.
        seeds: runs of each setting; steps: of the optimizer; every: one of so many settings: for quick, and to test.
    """
    from sae.superposition import Trained, experiment

    one = experiment(name)
    models = one.models
    if context.effort != "full" and models is not None:
        at = 0 if context.effort == "quick" else 1
        some = every[at]

        def fewer(runs: int) -> list[Any]:
            every_setting = models(runs)
            settings = list(dict.fromkeys(m.setting for m in every_setting))
            kept = {*settings[::some], settings[-1]}
            return [m for m in every_setting if m.setting in kept]

        one = replace(one, models=fewer, seeds=seeds[at], options={**one.options, **_SHORT, "steps": steps[at]})
    found = one.run(seed=context.seed, device="cpu")
    if not isinstance(found, Trained):
        raise TypeError(f"{name} is no experiment of single models")
    return found
