"""What pictures made by optimization say to the network that they were made for: alike or not, and of what."""

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
def gram_similarity(model: Model, pictures: Tensor, layer: str) -> float:
    """Mean cosine of the channel correlations (Gram matrices) of pairs of pictures at a layer, in [-1, 1].

    What the diversity term of Olah et al. 2017 lowers.

    Args:
        model: the model.
        pictures: `(N, C, H, W)` in [0, 1], two or more.
        layer: name of the layer.

    Raises:
        AddressError: an unknown layer. VisualizationError: fewer than two pictures.
    """
    if pictures.ndim != 4 or len(pictures) < 2:
        raise VisualizationError("likeness is of two pictures or more, (N, C, H, W)")
    found = model.layer(layer)
    acts = read(model, pictures.to(model.device), [found])[found.name]
    return float(diversity(found.name)(lambda _: acts).mean()) / (len(pictures) - 1)


@dataclass(frozen=True)
class Agreement:
    """Whether icons drive a layer towards what they were made of.

    Attributes:
        own: `(N,)` cosine of what the layer says to each icon, on average over positions, with the icon's own vector.
        others: `(N,)` mean cosine with the vectors of the others: the control. All about the mean vector.
    """

    own: Tensor
    others: Tensor


@torch.no_grad()
def direction_agreement(model: Model, layer: str, icons: Sequence[Tensor], vectors: Tensor) -> Agreement:
    """Show icons of directions to the network, and compare what a layer says with the directions.

    Args:
        model: the model.
        layer: name of the layer.
        icons: pictures `(C, H, W)` in [0, 1], one for each vector.
        vectors: `(N, channels)` that they were made of.

    Raises:
        AddressError: an unknown layer. VisualizationError: fewer than two, or not as many icons as vectors.
    """
    if len(icons) < 2 or len(icons) != len(vectors):
        raise VisualizationError(f"give two icons or more, one for each vector; got {len(icons)} for {len(vectors)}")
    found = model.layer(layer)
    said = read(model, torch.stack(list(icons)).to(model.device), [found])[found.name].float().cpu().mean(dim=(2, 3))
    said = F.normalize(said - said.mean(0), dim=1)
    wanted = F.normalize(vectors.float().cpu() - vectors.float().cpu().mean(0), dim=1)
    cosines = said @ wanted.T
    own = cosines.diagonal()
    return Agreement(own, (cosines.sum(1) - own) / (len(icons) - 1))
