"""Baselines of a dictionary at equal L0: the channels of the layer, and directions that nobody trained."""

from __future__ import annotations

from typing import Any

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


class DirectionDictionary:
    """Directions as a dictionary: of every input, the k that reconstruct the most of it are active.

    Overlapping directions reconstruct shared parts twice, so all latents have one common gain: the least-squares
    optimum `sum x.y / sum y.y` of reconstructions y, on the first batch. It is 1 for orthogonal directions.

    Args:
        mean: `(d,)` of the inputs.
        write: `(m, d)` directions of length one.
        k: active directions per input.
        read: `(m, d)` what inputs are multiplied with (default: `write`).
        name: of the dictionary.
    """

    def __init__(self, mean: Tensor, write: Tensor, k: int, *, read: Tensor | None = None, name: str = "") -> None:
        whole("k", k)
        self.write, self.read = write, write if read is None else read
        self.mean, self.k, self.name = mean, min(k, len(write)), name
        self.gain: float | None = None

    @property
    def latents(self) -> int:
        """Number of directions m."""
        return len(self.write)

    def identity(self) -> dict[str, Any]:
        """What `encode` rests on beside the directions."""
        return {"mean": self.mean, "k": self.k, "gain": self.gain}

    def encode(self, acts: Tensor) -> Tensor:
        """Latents `(N, m)`."""
        values, indices = self._encode(acts)
        latents = torch.zeros(len(acts), len(self.write), dtype=acts.dtype, device=acts.device)
        return latents.scatter_(1, indices, values)

    def decode(self, latents: Tensor) -> Tensor:
        """Reconstructions `(N, d)`."""
        return latents @ self.write.to(latents) + self.mean.to(latents)

    def reconstruct(self, acts: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructions `(N, d)`, and the number of inputs on which each direction is active, `(m,)`."""
        values, indices = self._encode(acts)
        return self._combine(values, indices) + self.mean.to(acts), active_counts(values, indices, len(self.write))

    def _encode(self, acts: Tensor) -> tuple[Tensor, Tensor]:
        """The k largest latents of every input, values and indices `(N, k)`."""
        centered = acts - self.mean.to(acts)
        values, indices = (centered @ self.read.to(acts).T).topk(self.k, dim=1)
        values = values.relu()
        if self.gain is None:
            out = self._combine(values, indices)
            length = float(out.square().sum())
            self.gain = float((centered * out).sum()) / length if length > 0 else 1.0
        return values * self.gain, indices

    def _combine(self, values: Tensor, indices: Tensor) -> Tensor:
        return F.embedding_bag(indices, self.write.to(values), per_sample_weights=values, mode="sum")


class RandomDictionary(DirectionDictionary):
    """Random unit directions, the same to read and to write.

    Args:
        mean: `(d,)`; m: number of directions; k: active directions; seed: of the directions.
    """

    def __init__(self, mean: Tensor, m: int, k: int, seed: int = 0) -> None:
        whole("m", m)
        directions = F.normalize(torch.randn(m, len(mean), generator=generator(seed, CONTROL)))
        super().__init__(mean, directions, k, name="random")
