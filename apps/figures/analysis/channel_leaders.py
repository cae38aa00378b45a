"""Polysemantic channels: how many latents of an SAE share a channel."""

from __future__ import annotations

import torch
from torch import Tensor

from circuits.network.basis import Basis
from sae.checks import whole
from sae.errors import SAEError

LEAST = 0.1
"""Share of its strongest vectors on which a latent leads a channel that it is counted for."""


@torch.no_grad()
def leaders(s: Basis, vectors: Tensor, *, n: int = 64) -> Tensor:
    """How many latents lead a channel on its strongest vectors, `(d,)`: 1 where one always does, 0 if inactive.

    A latent leads where it gives the channel more than any other latent does, and counts if it leads on a share
    `LEAST` of the channel's `n` strongest vectors. (A channel with several is polysemantic: Bricken et al. 2023.)

    Args:
        s: an SAE or another basis.
        vectors: `(N, d)` activations.
        n: strongest vectors of each channel.

    Raises:
        SAEError: vectors of another width.
    """
    whole("n", n)
    if vectors.ndim != 2 or vectors.shape[1] != s.write.shape[1]:
        raise SAEError(f"vectors are (N, {s.write.shape[1]}); got {tuple(vectors.shape)}")
    latents = s.encode(vectors).float()
    counts = torch.zeros(vectors.shape[1], dtype=torch.long)
    for channel in range(vectors.shape[1]):
        strongest = vectors[:, channel].topk(min(n, len(vectors)))
        fires = strongest.indices[strongest.values > 0]
        if not len(fires):
            continue
        contributions = latents[fires] * s.write[:, channel].to(latents)
        best = contributions.max(dim=1)
        led = torch.bincount(best.indices[best.values > 0], minlength=contributions.shape[1])
        counts[channel] = int((led >= max(1.0, LEAST * len(fires))).sum())
    return counts
