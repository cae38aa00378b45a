"""The dense path: every product in full. It is the oracle of the tests, and the faster path when m is small."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.architectures.kernels.backend import Select
from sae.architectures.kernels.sparse_pattern import Pattern


class Dense:
    """Dense matrices, on any device; `12dm` operations per input. See `sae.architectures.kernels.backend.Path`."""

    name = "dense"

    def select(self, x: Tensor, weight: Tensor, bias: Tensor, keep: Select) -> tuple[Tensor, Pattern]:
        values, pattern = keep(F.linear(x, weight, bias))  # under autocast, of low precision
        return values.to(x.dtype), pattern

    def by_input(self, values: Tensor, pattern: Pattern, table: Tensor) -> Tensor:
        # under autocast the product is of low precision, its result as on the other paths: gradients meet the weights
        return (_matrix(values, pattern) @ table).to(values.dtype)

    def by_latent(self, values: Tensor, pattern: Pattern, table: Tensor) -> Tensor:
        return _matrix(values, pattern).T @ table

    def latent_sums(self, values: Tensor, pattern: Pattern) -> Tensor:
        return _matrix(values, pattern).sum(dim=0)

    def dots(self, pattern: Pattern, left: Tensor, right: Tensor) -> Tensor:
        return (left @ right.T)[pattern.rows, pattern.columns]


def _matrix(values: Tensor, pattern: Pattern) -> Tensor:
    matrix = torch.zeros(len(pattern.starts), pattern.latents, dtype=values.dtype, device=values.device)
    # a pursuit may choose a latent twice
    return matrix.index_put_((pattern.rows, pattern.columns), values, accumulate=True)
