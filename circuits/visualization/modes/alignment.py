"""How a network responds to images optimized for it: how similar they are, and whether they match their direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from circuits.errors import VisualizationError
from circuits.network.hooks import read
from circuits.network.model import Model
from circuits.visualization.objectives import diversity


@torch.no_grad()
def gram_similarity(model: Model, images: Tensor, layer: str) -> float:
    """Mean cosine of the channel correlations (Gram matrices) of pairs of images at a layer, in [-1, 1].

    The diversity term of Olah et al. 2017 lowers it.

    Args:
        model: the model.
        images: `(N, C, H, W)` in [0, 1], two or more.
        layer: name of the layer.

    Raises:
        AddressError: an unknown layer. VisualizationError: fewer than two images.
    """
    if images.ndim != 4 or len(images) < 2:
        raise VisualizationError("similarity is of two images or more, (N, C, H, W)")
    site = model.layer(layer)
    acts = read(model, images.to(model.device), [site])[site.name]
    return float(diversity(site.name)(lambda _: acts).mean()) / (len(images) - 1)


@dataclass(frozen=True)
class Agreement:
    """Whether icons activate a layer along the directions that they were optimized for.

    Attributes:
        own: `(N,)` cosine of the layer's activations on each icon, averaged over positions, with the icon's direction.
        others: `(N,)` mean cosine with the directions of the other icons: the control. All about the mean vector.
    """

    own: Tensor
    others: Tensor


@torch.no_grad()
def direction_agreement(model: Model, layer: str, icons: Sequence[Tensor], vectors: Tensor) -> Agreement:
    """Compare the activations of a layer on icons with the directions that the icons were optimized for.

    Args:
        model: the model.
        layer: name of the layer.
        icons: images `(C, H, W)` in [0, 1], one for each vector.
        vectors: `(N, channels)` that they were optimized for.

    Raises:
        AddressError: an unknown layer. VisualizationError: fewer than two, or not as many icons as vectors.
    """
    if len(icons) < 2 or len(icons) != len(vectors):
        raise VisualizationError(f"give two icons or more, one for each vector; got {len(icons)} for {len(vectors)}")
    site = model.layer(layer)
    acts = read(model, torch.stack(list(icons)).to(model.device), [site])[site.name].float().cpu().mean(dim=(2, 3))
    acts = F.normalize(acts - acts.mean(0), dim=1)
    directions = F.normalize(vectors.float().cpu() - vectors.float().cpu().mean(0), dim=1)
    cosines = acts @ directions.T
    own = cosines.diagonal()
    return Agreement(own, (cosines.sum(1) - own) / (len(icons) - 1))
