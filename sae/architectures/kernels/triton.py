"""The GPU's path: Triton kernels that read each row once, add in a fixed order, and never wait for the host.

Imported only where Triton is, by `sae.architectures.kernels.path_of`. Under Triton's interpreter
(`TRITON_INTERPRET=1`) the same kernels run on the CPU.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from sae.architectures.kernels.backend import Select, low_precision
from sae.architectures.kernels.sparse_pattern import Pattern

TILE = 4096
"""Latents that one program selects from: what fits its registers."""

PRODUCT = 1 << 30
"""Bytes of pre-activations at a time."""

PIECE = 128
"""Values that one program adds up, so that a latent that is active on many inputs does not delay the others."""

ROWS, PAIRS, WIDTH = 16, 32, 128
"""Rows, pairs and columns that one program has in hand at a time."""
LOWEST = tl.constexpr(-(2**31))


class Segments:
    """Triton kernels over segments of sorted values: no atomics. See `sae.architectures.kernels.backend.Path`."""

    name = "triton"

    def select(self, x: Tensor, weight: Tensor, bias: Tensor, keep: Select) -> tuple[Tensor, Pattern]:
        low = low_precision(x)
        if low is not None:
            x, weight, bias = x.to(low), weight.to(low), bias.to(low)
        m = len(weight)
        if keep.across == "batch" or keep.group > 1:
            values, pattern = keep(F.linear(x, weight, bias))
            return values.float() if low is not None else values, pattern
        rows = max(1, PRODUCT // (m * x.element_size()))
        parts = [largest(F.linear(part, weight, bias), keep.k) for part in x.split(rows)]
        values, indices = (torch.cat(p) if len(parts) > 1 else p[0] for p in zip(*parts, strict=True))
        return values.flatten().relu_(), Pattern.regular(indices, m)

    def by_input(self, values: Tensor, pattern: Pattern, table: Tensor) -> Tensor:
        ends = F.pad(pattern.starts[1:], (0, 1), value=len(values))
        return row_sums(pattern.starts, ends, pattern.columns, values, table)

    def by_latent(self, values: Tensor, pattern: Pattern, table: Tensor) -> Tensor:
        order, inputs, starts = pattern.transposed
        return long_row_sums(starts, inputs, values.index_select(0, order), table)

    def latent_sums(self, values: Tensor, pattern: Pattern) -> Tensor:
        order, _, starts = pattern.transposed
        column = values.index_select(0, order)[:, None]
        return long_row_sums(starts, None, None, column)[:, 0]

    def dots(self, pattern: Pattern, left: Tensor, right: Tensor) -> Tensor:
        out = torch.empty(len(pattern.rows), dtype=left.dtype, device=left.device)
        left, right = left.contiguous(), right.contiguous()
        count, d = len(out), left.shape[1]
        _dots[(triton.cdiv(count, PAIRS),)](
            out, pattern.rows, pattern.columns, left, right, count, d, PAIRS=PAIRS, WIDTH=_width(d)
        )
        return out


def largest(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of every row of `pre` `(r, m)`: values (float32 or float64) and rising columns `(r, k)`.

    Tile by tile, then the winners of the tiles against each other; ties go to the lower column.
    """
    pre, columns = pre.contiguous(), None
    while True:
        r, m = pre.shape
        tile = min(max(TILE, triton.next_power_of_2(2 * k)), triton.next_power_of_2(m))
        tiles = triton.cdiv(m, tile)
        selected = min(k, m - (tiles - 1) * tile)  # the last tile may be short
        width = k * (tiles - 1) + selected
        values = torch.empty(r, width, dtype=torch.float32, device=pre.device)
        positions = torch.empty(r, width, dtype=torch.int64, device=pre.device)
        _largest[(r, tiles)](pre, values, positions, m, k, width, TILE=tile, num_warps=8)
        columns = positions if columns is None else columns.gather(1, positions)
        if tiles == 1:
            return values, columns
        pre = values


def row_sums(starts: Tensor, ends: Tensor, indices: Tensor | None, weights: Tensor | None, table: Tensor) -> Tensor:
    """For every segment the sum of `weights[i] * table[indices[i]]` over its i: `(segments, d)`, in order.

    Args:
        starts, ends: `(segments,)` of each segment's values; indices: rows of the table (default: i itself).
        weights: `(nnz,)` (default: 1); table: `(rows, d)`.
    """
    table = table.contiguous()
    d = table.shape[1]
    out = torch.empty(len(starts), d, dtype=table.dtype, device=table.device)
    width = _width(d)
    _row_sums[(len(starts), triton.cdiv(d, width))](
        out, starts, ends, starts if indices is None else indices, table if weights is None else weights, table, d,
        AT_ONCE=ROWS, WIDTH=width, INDEXED=indices is not None, WEIGHTED=weights is not None,
    )  # fmt: skip
    return out


def long_row_sums(starts: Tensor, indices: Tensor | None, weights: Tensor | None, table: Tensor) -> Tensor:
    """`row_sums` of segments that follow each other and differ much in length: in pieces, then over the pieces."""
    values = len(table) if indices is None else len(indices)
    ends = F.pad(starts[1:], (0, 1), value=values)
    pieces = (ends - starts + PIECE - 1).div(PIECE, rounding_mode="floor")
    last = pieces.cumsum(dim=0)
    first = last - pieces
    most = len(starts) + values // PIECE  # never more; their true number is not asked of the device
    piece = torch.arange(most, device=table.device)
    segment = torch.searchsorted(last, piece, right=True).clamp_max(len(starts) - 1)
    begin = starts[segment] + (piece - first[segment]) * PIECE
    end = torch.minimum(begin + PIECE, ends[segment])  # before `begin` where there is no such piece
    return row_sums(first, last, None, None, row_sums(begin, end, indices, weights, table))


def _width(d: int) -> int:
    return int(min(WIDTH, triton.next_power_of_2(d)))


@triton.jit
def _largest(pre, values, positions, m, k, width, TILE: tl.constexpr):
    """The k largest of one tile of one row, by the bits of the k-th largest, found from the highest down."""
    row, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = tile * TILE + tl.arange(0, TILE)
    there = column < m
    value = tl.load(pre + row * m + column, mask=there, other=0.0).to(tl.float32) + 0.0  # -0 and 0 are one value
    bits = value.to(tl.int32, bitcast=True)
    key = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # integers in the order of the floats
    count = tl.minimum(k, m - tile * TILE)
    reach = tl.sum((there & (key >= 0)).to(tl.int32), 0)
    least = tl.where(reach >= count, 0, LOWEST)
    step = 1 << 30
    while (step > 0) & (reach != count):
        reach = tl.sum((there & (key >= least + step)).to(tl.int32), 0)
        least = tl.where(reach >= count, least + step, least)
        step = step >> 1
    greater = there & (key > least)
    equal = there & (key == least)
    free = count - tl.sum(greater.to(tl.int32), 0)
    keep = greater | (equal & (tl.cumsum(equal.to(tl.int32), 0) <= free))
    to = row * width + tile * k + tl.cumsum(keep.to(tl.int32), 0) - 1
    tl.store(values + to, value, mask=keep)
    tl.store(positions + to, column.to(tl.int64), mask=keep)


@triton.jit
def _row_sums(
    out, starts, ends, indices, weights, table, d,
    AT_ONCE: tl.constexpr, WIDTH: tl.constexpr, INDEXED: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    segment = tl.program_id(0).to(tl.int64)
    across = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    end = tl.load(ends + segment)
    total = tl.zeros((WIDTH,), dtype=out.dtype.element_ty)
    for start in range(tl.load(starts + segment), end, AT_ONCE):
        at = start + tl.arange(0, AT_ONCE)
        there = at < end
        row = tl.load(indices + at, mask=there, other=0) if INDEXED else at
        inside = there[:, None] & (across < d)[None, :]
        part = tl.load(table + row[:, None] * d + across[None, :], mask=inside, other=0.0)
        if WEIGHTED:
            part *= tl.load(weights + at, mask=there, other=0.0)[:, None]
        total += tl.sum(part, 0)
    tl.store(out + segment * d + across, total, mask=across < d)


@triton.jit
def _dots(out, rows, columns, left, right, count, d, PAIRS: tl.constexpr, WIDTH: tl.constexpr):
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    there = pair < count
    row = tl.load(rows + pair, mask=there, other=0)
    column = tl.load(columns + pair, mask=there, other=0)
    total = tl.zeros((PAIRS, WIDTH), dtype=out.dtype.element_ty)
    for start in range(0, d, WIDTH):
        across = start + tl.arange(0, WIDTH)
        inside = there[:, None] & (across < d)[None, :]
        a = tl.load(left + row[:, None] * d + across[None, :], mask=inside, other=0.0)
        b = tl.load(right + column[:, None] * d + across[None, :], mask=inside, other=0.0)
        total += a * b
    tl.store(out + pair, tl.sum(total, 1), mask=there)


def interpreted() -> bool:
    """Whether the kernels run on the CPU, under Triton's interpreter."""
    kernel: Any = _dots
    return type(kernel).__name__ == "InterpretedFunction"
