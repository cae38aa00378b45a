"""The protocol of a path: one way to compute the five operations of a TopK step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from sae.architectures.kernels.sparse_pattern import Pattern


@dataclass(frozen=True)
class Select:
    """Which latents are active: the k largest of every input, or the `k * N` largest of the whole batch.

    With `group` above one, those of the `k / group` groups of each input whose values above zero are longest together.

    Called with pre-activations `(N, m)`, returns the selected values `(nnz,)`, none below zero, and their pattern.
    """

    k: int
    across: Literal["input", "batch"] = "input"
    group: int = 1

    def __call__(self, pre: Tensor) -> tuple[Tensor, Pattern]:
        n, m = pre.shape
        if self.group > 1:
            squares = pre.relu().view(n, m // self.group, self.group).square().sum(dim=2)
            groups = squares.topk(self.k // self.group, dim=1, sorted=False).indices
            return in_groups(pre, groups, self.group)
        if self.across == "input":
            values, indices = pre.topk(self.k, dim=1, sorted=False)
            return values.relu().flatten(), Pattern.regular(indices, m)
        values, positions = pre.relu().flatten().topk(self.k * n, sorted=False)
        positions, order = positions.sort()
        return values[order], Pattern.flat(positions, n, m)


def in_groups(pre: Tensor, groups: Tensor, size: int) -> tuple[Tensor, Pattern]:
    """Values, none below zero, and pattern of all latents of some groups `(N, g)` of `size` latents each."""
    indices = (groups[:, :, None] * size + torch.arange(size, device=groups.device)).flatten(1)
    return pre.gather(1, indices).relu().flatten(), Pattern.regular(indices, pre.shape[1])


class Path(Protocol):
    """One way to compute a step; all give the same numbers up to rounding."""

    name: str

    def select(self, x: Tensor, weight: Tensor, bias: Tensor, keep: Select) -> tuple[Tensor, Pattern]:
        """The selected latents of `x @ weight.T + bias`: values `(nnz,)`, none below zero, and their pattern."""

    def by_input(self, values: Tensor, pattern: Pattern, table: Tensor) -> Tensor:
        """Latents times `table` `(m, d)`: for every input the weighted sum of its latents' rows `(N, d)`."""

    def by_latent(self, values: Tensor, pattern: Pattern, table: Tensor) -> Tensor:
        """Latents transposed times `table` `(N, d)`: for every latent the weighted sum of its inputs' rows `(m, d)`."""

    def latent_sums(self, values: Tensor, pattern: Pattern) -> Tensor:
        """Sum of the values of every latent, `(m,)`."""

    def dots(self, pattern: Pattern, left: Tensor, right: Tensor) -> Tensor:
        """Inner products of rows of `left` `(N, d)` with rows of `right` `(m, d)` where the pattern is `(nnz,)`."""


def low_precision(x: Tensor) -> torch.dtype | None:
    """The type in which autocast computes the large product, or None."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
