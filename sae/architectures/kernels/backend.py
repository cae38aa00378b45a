"""What a path is: one way to compute the five operations that a TopK step is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from sae.architectures.kernels.sparse_pattern import Pattern


@dataclass(frozen=True)
class Select:
    """Which latents are kept: k of every input, or `k * N` of the whole batch.

    Called with pre-activations `(N, m)` it gives the values kept `(nnz,)`, negative ones as zero, and their pattern.
    """

    k: int
    across: Literal["input", "batch"] = "input"

    def __call__(self, pre: Tensor) -> tuple[Tensor, Pattern]:
        n, m = pre.shape
        if self.across == "input":
            values, indices = pre.topk(self.k, dim=1, sorted=False)
            return values.relu().flatten(), Pattern.regular(indices, m)
        values, places = pre.relu().flatten().topk(self.k * n, sorted=False)
        places, order = places.sort()
        return values[order], Pattern.flat(places, n, m)


class Path(Protocol):
    """One way to compute a step; all give the same numbers up to rounding."""

    name: str

    def select(self, x: Tensor, weight: Tensor, bias: Tensor, keep: Select) -> tuple[Tensor, Pattern]:
        """The latents kept of `x @ weight.T + bias`: values `(nnz,)`, none below zero, and their pattern."""

    def by_input(self, values: Tensor, pattern: Pattern, table: Tensor) -> Tensor:
        """Latents times `table` `(m, d)`: for every input the weighted sum of its latents' rows `(N, d)`."""

    def by_latent(self, values: Tensor, pattern: Pattern, table: Tensor) -> Tensor:
        """Latents transposed times `table` `(N, d)`: for every latent the weighted sum of its inputs' rows `(m, d)`."""

    def sums(self, values: Tensor, pattern: Pattern) -> Tensor:
        """Sum of the values of every latent `(m,)`."""

    def dots(self, pattern: Pattern, left: Tensor, right: Tensor) -> Tensor:
        """Inner products of rows of `left` `(N, d)` with rows of `right` `(m, d)` where the pattern is `(nnz,)`."""


def low_precision(x: Tensor) -> torch.dtype | None:
    """The type that autocast asks the large product to be in, or None."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
