"""Polysemantic channels: how many latents of an SAE share a channel."""

from __future__ import annotations

import torch
from torch import Tensor

from circuits.network.basis import Basis
from sae.checks import whole
from sae.errors import SAEError


@torch.no_grad()
def leaders(s: Basis, vectors: Tensor, *, n: int = 64, least: float = 0.1) -> Tensor:
    """How many latents lead a channel on its strongest vectors, `(d,)`: 1 where one always does, 0 if inactive.

    A latent leads where it gives the channel more than any other latent does, and counts if it leads on a share
    `least` of the channel's `n` strongest vectors. (A channel with several is polysemantic: Bricken et al. 2023.)

    Args:
        s: an SAE or another basis.
        vectors: `(N, d)` activations.
        n: strongest vectors of each channel; least: in [0, 1].

    Raises:
        SAEError: vectors of another width, or `least` outside [0, 1].
    """
    whole("n", n)
    if vectors.ndim != 2 or vectors.shape[1] != s.write.shape[1]:
        raise SAEError(f"vectors are (N, {s.write.shape[1]}); got {tuple(vectors.shape)}")
    if not 0 <= least <= 1:
        raise SAEError(f"least={least} is a share from 0 to 1")
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
        counts[channel] = int((led >= max(1.0, least * len(fires))).sum())
    return counts
