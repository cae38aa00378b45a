"""Whitening: directions of a layer's activation space without what all its activations have in common.

Channels are active together, so an activation vector v points mostly where all others do. Its whitened direction

    S^-1 v,  S = mean of a a^T over all activations a

is how it differs from them (Carter et al., *Exploring Neural Networks with Activation Atlases*, Distill 2019). S is
estimated from few vectors and often singular, so it is shrunk towards a multiple of the identity first (as by Ledoit
and Wolf, 2004, with a fixed weight).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from circuits.errors import CircuitsError
from circuits.network.hooks import stream
from circuits.network.model import Model
from zoo.common.checks import number
from zoo.images.sources import open_images
from zoo.progress import Progress


@dataclass(frozen=True, eq=False)
class Whitening:
    """Moments of a layer's activations, and the directions they make.

    Attributes:
        layer: name of the layer.
        count: activation vectors counted.
        mean: `(C,)` float64.
        second: `(C, C)` float64, the mean of `a aᵀ`: about zero, not about the mean, as in the published atlases.
        shrinkage: in [0, 1]: weight of the multiple of the identity that `second` is shrunk towards before it is
            inverted. Some is needed: with channels that are never active, or more channels than vectors, there is no
            inverse.
        images: digest of the images.
    """

    layer: str
    count: int
    mean: Tensor
    second: Tensor
    shrinkage: float = 0.3
    images: str = ""

    def __post_init__(self) -> None:
        number("shrinkage", self.shrinkage, least=0, most=1)

    @property
    def shrunk(self) -> Tensor:
        """`(C, C)`: `(1 - shrinkage) second + shrinkage (trace / C) I`."""
        c = len(self.second)
        level = self.second.diagonal().sum() / c
        return (1 - self.shrinkage) * self.second + self.shrinkage * level * torch.eye(c, dtype=self.second.dtype)

    def directions(self, vectors: Tensor) -> Tensor:
        """Vectors `(n, C)` times the inverse of `shrunk`, each of length one, float32.

        Raises:
            CircuitsError: vectors of another layer, or a moment that has no inverse: give more shrinkage.
        """
        if vectors.ndim != 2 or vectors.shape[1] != len(self.second):
            raise CircuitsError(
                f"the whitening of {self.layer} takes vectors (n, {len(self.second)}); got {tuple(vectors.shape)}"
            )
        shrunk = self.shrunk
        if float(torch.linalg.cond(shrunk)) > 1e14:
            raise CircuitsError(
                f"the second moment of {self.layer} has no inverse with shrinkage {self.shrinkage:g}: give more, "
                "for example 0.3"
            )
        whitened: Tensor = torch.linalg.solve(shrunk, vectors.detach().cpu().double().T).T
        return F.normalize(whitened, dim=1).float()


class Moments:
    """Sums from which a `Whitening` is made, batch by batch."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self._sum = torch.zeros(channels, dtype=torch.float64)
        self._products = torch.zeros(channels, channels, dtype=torch.float64)

    def add(self, acts: Tensor) -> None:
        """Add activations `(n, C, h, w)`, every position."""
        rows = acts.detach().movedim(1, -1).flatten(0, -2)
        self.count += len(rows)
        self._sum += rows.sum(0).double().cpu()
        # float32 within a batch, float64 across batches: the sums of one batch are short
        self._products += (rows.T @ rows).double().cpu()

    def whitening(self, layer: str, *, shrinkage: float = 0.3, images: str = "") -> Whitening:
        """The whitening of all activations added so far."""
        if self.count == 0:
            raise CircuitsError(f"no activations of {layer} were counted")
        return Whitening(layer, self.count, self._sum / self.count, self._products / self.count, shrinkage, images)


def measure_whitening(
    model: Model,
    layer: str,
    images: Any,
    *,
    shrinkage: float = 0.3,
    batch_size: int = 32,
    progress: Progress = None,
) -> Whitening:
    """The whitening of a layer, from all positions of images.

    Args:
        model: the model.
        layer: a layer.
        images: images in any form that `capture` takes; a few hundred suffice.
        shrinkage: see `Whitening`.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total).

    Raises:
        AddressError: an unknown layer. ImageError: no readable images.

    >>> measure_whitening(load("scenes"), "mixed3a", "scenes:4").second.shape
    torch.Size([68, 68])
    """
    site, source = model.layer(layer), open_images(images)
    moments = Moments(site.channels)
    for _, acts in stream(model, source, [site.name], batch_size=batch_size, progress=progress):
        moments.add(acts[site.name])
    return moments.whitening(site.name, shrinkage=shrinkage, images=source.digest)
