"""The path for the CPU: a selection that stays in the cache, and embedding bags for all sparse products.

An embedding bag sums weighted rows of a table in a fixed order: rows of the decoder for the reconstruction, and, by the
transposed pattern, rows of the batch for the gradients of both matrices. There are no atomic additions, so that the
same inputs give the same bits.

Measured against it on the same machine and slower: sparse CSR products (MKL) for the sums, and gathered rows with
batched products for the inner products.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.architectures.kernels import blocked_topk
from sae.architectures.kernels.backend import Select, low_precision
from sae.architectures.kernels.sparse_pattern import Pattern


class Bags:
    """Exact selection in the cache and embedding bags, on the CPU. See `sae.architectures.kernels.backend.Path`."""

    name = "bags"

    def select(self, x: Tensor, weight: Tensor, bias: Tensor, keep: Select) -> tuple[Tensor, Pattern]:
        low = low_precision(x)
        if low is not None:
            x, weight, bias = x.to(low), weight.to(low), bias.to(low)
        n, m = len(x), len(weight)
        if keep.across == "input" and keep.group == 1:
            values, indices = blocked_topk.largest_of_product(x, weight, bias, keep.k)
            return values.flatten().relu_(), Pattern.regular(indices, m)
        if keep.group > 1:  # some rows at a time, which stay in the cache until they are selected from
            precise = torch.float32 if low is not None else x.dtype
            rows = max(1, blocked_topk.BYTES // (m * precise.itemsize))
            parts = [keep(torch.addmm(bias, part, weight.T).to(precise)) for part in torch.split(x, rows)]
            columns = torch.cat([pattern.columns for _, pattern in parts])
            return torch.cat([values for values, _ in parts]), Pattern.regular(columns.view(n, keep.k), m)
        pre = torch.addmm(bias, x, weight.T).float() if low is not None else torch.addmm(bias, x, weight.T)
        values, positions = blocked_topk.largest_of_all(pre, keep.k * n)
        return values.relu_(), Pattern.flat(positions, n, m)

    def by_input(self, values: Tensor, pattern: Pattern, table: Tensor) -> Tensor:
        return F.embedding_bag(pattern.columns, table.detach(), pattern.starts, per_sample_weights=values, mode="sum")

    def by_latent(self, values: Tensor, pattern: Pattern, table: Tensor) -> Tensor:
        # the product with the transposed matrix of latents: bags are latents now, and their rows the inputs they are
        # active on
        order, inputs, starts = pattern.transposed
        weights = values.index_select(0, order)
        return F.embedding_bag(inputs, table.detach(), starts, per_sample_weights=weights, mode="sum")

    def latent_sums(self, values: Tensor, pattern: Pattern) -> Tensor:
        return values.new_zeros(pattern.latents).scatter_add_(0, pattern.columns, values)

    def dots(self, pattern: Pattern, left: Tensor, right: Tensor) -> Tensor:
        # a bag's derivative by the weight of one of its rows is that row times the gradient of the bag: just these
        # products
        dots: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            left.contiguous(), right, pattern.columns, pattern.starts, pattern.rows, 0, -1
        )
        return dots
