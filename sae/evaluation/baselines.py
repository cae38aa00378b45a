"""Baselines of a dictionary at equal L0: the channels of the layer, and random directions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.architectures.topk import active_counts
from sae.checks import whole
from sae.seeding import CONTROL, generator


class ChannelDictionary:
    """The channels themselves as a dictionary: of every input, the k channels that are farthest from their mean.

    Args:
        mean: `(d,)`; all other channels are reconstructed as their mean.
        k: active channels; with k = d the reconstruction is perfect.
    """

    name = "channels"

    def __init__(self, mean: Tensor, k: int) -> None:
        whole("k", k)
        self.mean, self.k = mean, min(k, len(mean))

    def encode(self, acts: Tensor) -> Tensor:
        """Latents `(N, d)`: distances from the mean, k of them not zero."""
        centered = acts - self.mean.to(acts)
        active = centered.abs().topk(self.k, dim=1).indices
        return torch.zeros_like(centered).scatter(1, active, centered.gather(1, active))

    def decode(self, latents: Tensor) -> Tensor:
        """Reconstructions `(N, d)`."""
        return latents + self.mean.to(latents)

    def reconstruct(self, acts: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructions `(N, d)`, and the number of inputs on which each channel is active, `(d,)`."""
        latents = self.encode(acts)
        return self.decode(latents), (latents != 0).sum(dim=0)


class RandomDictionary:
    """Random unit directions, the same to read and to write, of which the k largest on an input are active.

    Overlapping directions reconstruct shared parts twice, so all latents have one common gain: the least-squares
    optimum `sum x.y / sum y.y` of reconstructions y, on the first batch.

    Args:
        mean: `(d,)`; m: number of directions; k: active directions; seed: of the directions.
    """

    name = "random"

    def __init__(self, mean: Tensor, m: int, k: int, seed: int = 0) -> None:
        whole("m", m)
        whole("k", k)
        self.directions = F.normalize(torch.randn(m, len(mean), generator=generator(seed, CONTROL)))
        self.mean, self.k = mean, min(k, m)
        self.gain: float | None = None

    def encode(self, acts: Tensor) -> Tensor:
        """Latents `(N, m)`."""
        values, indices = self._encode(acts)
        latents = torch.zeros(len(acts), len(self.directions), dtype=acts.dtype, device=acts.device)
        return latents.scatter_(1, indices, values)

    def decode(self, latents: Tensor) -> Tensor:
        """Reconstructions `(N, d)`."""
        return latents @ self.directions.to(latents) + self.mean.to(latents)

    def reconstruct(self, acts: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructions `(N, d)`, and the number of inputs on which each direction is active, `(m,)`."""
        values, indices = self._encode(acts)
        return self._combine(values, indices) + self.mean.to(acts), active_counts(values, indices, len(self.directions))

    def _encode(self, acts: Tensor) -> tuple[Tensor, Tensor]:
        """The k largest latents of every input, values and indices `(N, k)`."""
        centered = acts - self.mean.to(acts)
        values, indices = (centered @ self.directions.to(acts).T).topk(self.k, dim=1)
        values = values.relu()
        if self.gain is None:
            out = self._combine(values, indices)
            length = float(out.square().sum())
            self.gain = float((centered * out).sum()) / length if length > 0 else 1.0
        return values * self.gain, indices

    def _combine(self, values: Tensor, indices: Tensor) -> Tensor:
        return F.embedding_bag(indices, self.directions.to(values), per_sample_weights=values, mode="sum")
