"""Icons: small pictures of directions in a layer's activation space, all of one kind and made together.

What a position of a layer says to a picture is a vector over its channels. An icon shows what that vector as a whole
looks for, as a channel's visualization shows what the channel does (Olah et al., *The Building Blocks of
Interpretability*, Distill 2018).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from circuits.activations.whitening import Whitening
from circuits.errors import VisualizationError
from circuits.network.model import Model
from circuits.visualization.modes.checks import refuse
from circuits.visualization.modes.shared_start import alike
from circuits.visualization.objectives import Objective, direction, direction_neuron
from circuits.visualization.render import visualize
from circuits.visualization.result import Visualization
from zoo.progress import Progress


def direction_icons(
    model: Model,
    layer: str,
    vectors: Tensor,
    *,
    whitening: Whitening | None = None,
    steps: int = 128,
    size: int | tuple[int, int] | None = 64,
    cossim_pow: float = 2.0,
    at: str = "mean",
    seed: int = 0,
    progress: Progress = None,
    **options: Any,
) -> list[Visualization]:
    """A picture for each of several directions of a layer.

    All start from the same noise, so that what differs is what is looked for.

    Args:
        model: the model.
        layer: the layer.
        vectors: `(n, C)` directions, or activation vectors; their lengths do not matter.
        whitening: to show what tells each from all activations of the layer, as activation atlases do.
        steps: of the optimization.
        size: pixels of the icons.
        cossim_pow: power of the cosine with the direction that the inner product is multiplied with: larger asks for
            that direction and nothing else, 0 for as much of it as there can be, whatever comes with it.
        at: "mean" to raise what all positions of the icon say, "center" what the middle one says.
        seed: of everything random.
        progress: True for a bar, or a function of (done, total) in steps.
        **options: of `visualize`.

    Raises:
        AddressError: an unknown layer. VisualizationError: vectors that are zero or do not fit, or bad options.

    >>> direction_icons(load("scenes"), "mixed3b", torch.eye(48)[:2], steps=2)[0].image.shape
    torch.Size([3, 64, 64])
    """
    refuse(options, "optimum", "variants")
    found = model.layer(layer)
    if vectors.ndim != 2 or vectors.shape[1] != found.channels or len(vectors) == 0:
        raise VisualizationError(
            f"directions of {found.name} are (n, {found.channels}), at least one; got {tuple(vectors.shape)}"
        )
    lengths = vectors.detach().float().norm(dim=1)
    if not bool((torch.isfinite(lengths) & (lengths > 0)).all()):
        raise VisualizationError("a direction that is zero, or not finite, looks for nothing")
    if at not in ("center", "mean"):
        raise VisualizationError(f"at is center or mean, not {at!r}")
    shown = F.normalize(vectors.detach().float().cpu(), dim=1)
    if whitening is not None:
        shown = whitening.directions(shown)
    make = direction_neuron if at == "center" else direction
    goals: list[Objective] = [make(found.name, one, cossim_pow=cossim_pow) for one in shown]
    start = alike(options.pop("params", None), seed)
    made = visualize(model, goals, steps=steps, size=size, params=start, seed=seed, progress=progress, **options)
    return [replace(v, unit=f"{model.name}/{found.name} direction {i}") for i, v in enumerate(made)]
