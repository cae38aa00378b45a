"""Blocked top-k: the largest latents of a product, exactly, without the whole product in memory (CPU).

A matrix of 4,096 inputs by 4,096 latents is 64 MB: writing it, adding a bias and finding the 32 largest of every row
costs two thirds of the product itself. Here the product is computed some rows at a time in one buffer that stays in
the cache, and the search reads it twice. The columns are divided into groups. Let b be the k-th largest of the group
maxima of a row: k groups hold a value of at least b, so that at least k values of the row reach b, and the k largest
are among them. Few others do (34 of 4,096 values for k=32 and groups of 16): the exact selection among them is cheap.

Ties go to the lower latent.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BYTES = 16 << 20
"""Size of the buffer per thread: large enough for full speed of the product, small enough for the last-level cache."""

GROUPS = (16, 8, 4, 2)
DEGENERATE = 4
"""With more than this many times k values of a row at or above its bound (all equal, say), the rows are sorted."""


def largest_of_product(x: Tensor, weight: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of every row of `x @ weight.T + bias`: values and columns `(N, k)`, columns rising.

    Args:
        x: `(N, d)`; weight: `(m, d)`; bias: `(m,)`, of one type; k: at most m.
    """
    n, m = len(x), len(weight)
    precise = torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype
    room = BYTES * min(4, torch.get_num_threads())  # threads meet several times per buffer: then fewer, larger ones
    rows = max(1, min(n, room // (m * precise.itemsize)))
    out = torch.empty(rows, m, dtype=x.dtype)
    above = torch.empty(rows, m, dtype=torch.bool)
    values, columns = torch.empty(n, k, dtype=precise), torch.empty(n, k, dtype=torch.int64)
    for start in range(0, n, rows):
        part = x[start : start + rows]
        size = len(part)
        pre = torch.addmm(bias, part, weight.T, out=out[:size]).to(precise)
        largest(pre, k, above[:size], values[start : start + size], columns[start : start + size])
    return values, columns


def largest(pre: Tensor, k: int, above: Tensor, values: Tensor, columns: Tensor) -> None:
    """Write the k largest of every row of `pre` `(r, m)` to `values` and `columns` `(r, k)`; `above` is scratch."""
    r, m = pre.shape
    positions = _positions_above(pre, _bound(pre, k), above)
    first = np.searchsorted(positions, np.arange(r + 1) * m)
    counts = np.diff(first)
    if counts.min() < k or counts.max() > DEGENERATE * k:  # fewer: there are NaNs, which no bound orders
        order = pre.sort(dim=1, descending=True, stable=True).indices[:, :k].sort(dim=1).values
        columns.copy_(order)
        torch.gather(pre, 1, order, out=values)
        return
    candidates = pre.view(-1).index_select(0, torch.from_numpy(positions)).numpy()
    keep = _first_k(candidates, first, counts, k)
    values.copy_(torch.from_numpy(candidates[keep]).view(r, k))
    columns.copy_(torch.from_numpy(positions[keep] - np.repeat(np.arange(r) * m, k)).view(r, k))


def largest_of_all(pre: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of `pre` `(N, m)`: values and rising positions `(count,)` in the flattened matrix."""
    flat = pre.flatten()
    group = next((g for g in GROUPS if len(flat) // g >= 4 * count), 1)
    cut = len(flat) // group
    maxima = flat[: cut * group].view(group, cut).amax(dim=0) if group > 1 else flat
    # the count-th largest of the group maxima: `count` groups reach it, so that at least as many values do
    bound = float(np.partition(maxima.numpy(), len(maxima) - count)[len(maxima) - count])
    positions = np.flatnonzero((flat >= bound).numpy())
    if len(positions) < count:  # there are NaNs
        values, order = flat.topk(count, sorted=False)
        order, by = order.sort()
        return values[by], order
    candidates = flat[torch.from_numpy(positions)].numpy()
    keep = _first_k(candidates, np.array([0, len(candidates)]), np.array([len(candidates)]), count)
    return torch.from_numpy(candidates[keep]), torch.from_numpy(positions[keep])


def _bound(pre: Tensor, k: int) -> Tensor:
    """A bound `(r, 1)` that at least k values of each row reach, and few more if the row is long."""
    r, m = pre.shape
    group = next((g for g in GROUPS if m // g >= 4 * k), 1)
    cut = m // group
    # the members of a group are `cut` columns apart: the maximum over the rows of a view, which is vectorized
    maxima = pre[:, : cut * group].view(r, group, cut).amax(dim=1) if group > 1 else pre
    return torch.from_numpy(np.partition(maxima.numpy(), cut - k, axis=1)[:, cut - k, None])


def _positions_above(pre: Tensor, bound: Tensor, above: Tensor) -> NDArray[np.int64]:
    """Rising positions in the flattened matrix of the values that reach the bound of their row."""
    torch.ge(pre, bound, out=above)
    return np.flatnonzero(above.numpy())


def _first_k(
    candidates: NDArray[np.float32], first: NDArray[np.int64], counts: NDArray[np.int64], k: int
) -> NDArray[np.bool_]:
    """Which of the candidates, row after row, are the k largest of their row."""
    most = int(counts.max())
    if most == k:
        return np.ones(len(candidates), dtype=bool)
    start = first[:-1]
    rank = np.arange(len(candidates)) - np.repeat(start, counts)
    padded = np.full((len(counts), most), -np.inf, dtype=candidates.dtype)
    row = np.repeat(np.arange(len(counts)), counts)
    padded[row, rank] = candidates
    # the k-th largest of each row; all above it are kept, and of those equal to it the first, as many as there is room
    least = np.partition(padded, most - k, axis=1)[:, most - k][row]
    greater, equal = candidates > least, candidates == least
    free = k - np.add.reduceat(greater, start, dtype=np.int64)
    before = np.cumsum(equal)
    before -= np.repeat((before - equal)[start], counts)
    keep: NDArray[np.bool_] = greater | (equal & (before <= free[row]))
    return keep
