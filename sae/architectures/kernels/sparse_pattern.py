"""Which latents are active for which inputs: the sparsity pattern of the matrix of latents."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Pattern:
    """Which latents are active for which inputs, input by input.

    Attributes:
        rows, columns: `(nnz,)` input and latent of every value, ordered by input.
        starts: `(N,)` where the values of each input begin.
        latents: m.

    >>> Pattern(torch.tensor([0, 0]), torch.tensor([4, 1]), torch.tensor([0]), latents=5).transposed[0]
    tensor([1, 0])
    """

    rows: Tensor
    columns: Tensor
    starts: Tensor
    latents: int

    @classmethod
    def regular(cls, indices: Tensor, latents: int) -> Pattern:
        """The pattern of `(N, k)` latents, k for every input."""
        n, k = indices.shape
        rows = torch.arange(n, device=indices.device).repeat_interleave(k, output_size=n * k)
        return cls(rows, indices.flatten(), torch.arange(0, n * k, k, device=indices.device), latents)

    @classmethod
    def flat(cls, positions: Tensor, n: int, latents: int) -> Pattern:
        """The pattern of rising positions `(nnz,)` in a matrix `(n, latents)` read row by row."""
        rows = torch.div(positions, latents, rounding_mode="floor")
        starts = torch.searchsorted(rows, torch.arange(n, device=positions.device))
        return cls(rows, positions - rows * latents, starts, latents)

    @cached_property
    def transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """By latent: the order of the values, their inputs, and where the values of each latent begin."""
        # 32 bits, because sorting them is three times as fast
        order = self.columns.int().sort(stable=True).indices
        ends = self.counts(torch.ones_like(self.columns)).cumsum(dim=0)
        return order, self.rows.index_select(0, order), F.pad(ends[:-1], (1, 0))

    def counts(self, weights: Tensor) -> Tensor:
        """Sum of integer `weights` `(nnz,)` over the values of each latent."""
        return torch.zeros(self.latents, dtype=weights.dtype, device=weights.device).scatter_add_(
            0, self.columns, weights
        )
