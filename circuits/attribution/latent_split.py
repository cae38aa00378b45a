"""Activations of a layer as a sum: what the latents of a dictionary write, its offset, and the error it leaves over."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from circuits.network.basis import Basis, latent_maps


@dataclass(frozen=True)
class LatentSplit:
    """`activations = latents x write + offset + error`, at every position.

    Attributes:
        latents: `(N, m, h, w)`.
        write: `(m, C)` directions that they write.
        offset: `(C,)` what the dictionary reconstructs without any latent: its decoder's bias.
        error: `(N, C, h, w)` what it does not reconstruct.
    """

    latents: Tensor
    write: Tensor
    offset: Tensor
    error: Tensor


@torch.no_grad()
def split_latents(basis: Basis, acts: Tensor) -> LatentSplit:
    """The parts of activations `(N, C, h, w)`; a basis without an `offset` has none, so that all of it is error."""
    latents = latent_maps(basis.encode)(acts).detach().to(acts)
    write = basis.write.detach().to(acts)
    offset = getattr(basis, "offset", None)
    still = acts.new_zeros(acts.shape[1]) if offset is None else offset.detach().to(acts)
    written = torch.einsum("nmhw,mc->nchw", latents, write) + still[:, None, None]
    return LatentSplit(latents, write, still, acts - written)
