"""Positions of an image at which a layer responds most strongly, and how few channels carry the response."""

from __future__ import annotations

import torch
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.network.operations import Pair


def salient_positions(acts: Tensor, n: int, *, separation: int = 1) -> list[Pair]:
    """Positions at which the activation vector is longest, no two closer than `separation`.

    Args:
        acts: `(C, h, w)`.
        n: how many; there are fewer where the map is too small.
        separation: at least so many rows or columns lie between two of them.

    Raises:
        CircuitsError: no map, or numbers below zero.

    >>> salient_positions(torch.tensor([[[9.0, 8.0, 1.0, 5.0]]]), 2)
    [(0, 0), (0, 3)]
    """
    if acts.ndim != 3 or n < 1 or separation < 0:
        raise CircuitsError(
            f"positions are of a map (C, h, w), at least one; got {tuple(acts.shape)}, {n}, {separation}"
        )
    lengths = acts.norm(dim=0)
    positions: list[Pair] = []
    for flat in lengths.flatten().argsort(descending=True, stable=True).tolist():
        y, x = flat // acts.shape[2], flat % acts.shape[2]
        if all(max(abs(y - a), abs(x - b)) > separation for a, b in positions):
            positions.append((y, x))
        if len(positions) == n:
            break
    return positions


def share_of_strongest(vectors: Tensor, k: int) -> Tensor:
    """Share of each vector's squares that its `k` largest entries hold: `(N, C)` -> `(N,)`."""
    strongest = vectors.clamp(min=0).topk(min(k, vectors.shape[1]), dim=1).values
    return strongest.square().sum(1) / vectors.square().sum(1).clamp(min=1e-30)


def chance_share(vector: Tensor, k: int, draws: int = 200, seed: int = 0) -> float:
    """Mean `share_of_strongest` of a random direction: the control for a vector of as many channels."""
    random = torch.randn(draws, vector.numel(), generator=torch.Generator().manual_seed(seed))
    return float(share_of_strongest(random, k).mean())
