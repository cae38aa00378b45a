"""Icons: small visualizations of directions in a layer's activation space, optimized together from one start.

The activation vector at a position of a layer is a direction over its channels. An icon visualizes that direction as a
whole, as a channel's visualization does for one channel (Olah et al., *The Building Blocks of Interpretability*,
Distill 2018).
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
from circuits.visualization.modes.shared_start import shared_start
from circuits.visualization.objectives import Objective, direction, direction_neuron
from circuits.visualization.render import visualize
from circuits.visualization.result import Visualization
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import one_of
from zoo.progress import Progress


@outside_inference_mode
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
    """A visualization of each of several directions of a layer.

    All start from the same noise, so that they differ by their directions only.

    Args:
        model: the model.
        layer: the layer.
        vectors: `(n, C)` directions, or activation vectors; their lengths do not matter.
        whitening: to visualize how each differs from all activations of the layer, as activation atlases do.
        steps: of the optimization.
        size: pixels of the icons.
        cossim_pow: exponent of the cosine with the direction that the inner product is multiplied with: larger gives
            that direction and nothing else, 0 as much of it as there can be, whatever comes with it.
        at: "mean" to maximize over all positions of the icon, "center" at the middle one.
        seed: of everything random.
        progress: True for a bar, or a function of (done, total) in steps.
        **options: of `visualize`.

    Raises:
        AddressError: an unknown layer. VisualizationError: vectors that are zero or do not fit, or bad options.

    >>> direction_icons(load("scenes"), "mixed3b", torch.eye(48)[:2], steps=2)[0].image.shape
    torch.Size([3, 64, 64])
    """
    refuse(options, "optimum", "variants")
    site = model.layer(layer)
    if vectors.ndim != 2 or vectors.shape[1] != site.channels or len(vectors) == 0:
        raise VisualizationError(
            f"directions of {site.name} are (n, {site.channels}), at least one; got {tuple(vectors.shape)}"
        )
    lengths = vectors.detach().float().norm(dim=1)
    if not bool((torch.isfinite(lengths) & (lengths > 0)).all()):
        raise VisualizationError("a direction is zero, or not finite: there is nothing to visualize")
    one_of("at", at, ("center", "mean"), error=VisualizationError)
    directions = F.normalize(vectors.detach().float().cpu(), dim=1)
    if whitening is not None:
        directions = whitening.directions(directions)
    make = direction_neuron if at == "center" else direction
    goals: list[Objective] = [make(site.name, vector, cossim_pow=cossim_pow) for vector in directions]
    options["params"] = shared_start(options.get("params"), seed)
    icons = visualize(model, goals, steps=steps, size=size, seed=seed, progress=progress, **options)
    return [replace(icon, unit=f"{model.name}/{site.name} direction {i}") for i, icon in enumerate(icons)]
