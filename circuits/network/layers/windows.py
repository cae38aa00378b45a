"""Windows of one layer's map that the positions of a later layer see: what a block computes each position from."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from circuits.network.operations import Pair

BETWEEN = ".."
"""Stands between the two layers of a pair in addresses: `googlenet-bvlc/mixed4b..mixed4c`."""


@dataclass(frozen=True)
class Window:
    """The window of a map that one position of another map sees, in positions of the first.

    Position `(y, x)` sees rows `y * stride + offset` up to, not including, that plus `size`; likewise columns. Outside
    of the map there are zeros, as the padding of convolutions has them.

    Attributes:
        size, stride, offset: rows and columns.
        grid: height and width of the other map.
    """

    size: Pair
    stride: Pair
    offset: Pair
    grid: Pair

    def padded(self, maps: Tensor) -> Tensor:
        """Maps `(N, C, h, w)` with zeros about them, or cut, so that window `(y, x)` begins at `(y, x) * stride`."""
        stops = [(n - 1) * s + o + k for n, s, o, k in zip(self.grid, self.stride, self.offset, self.size, strict=True)]
        before = [max(0, -o) for o in self.offset]
        after = [max(0, stop - n) for stop, n in zip(stops, maps.shape[2:], strict=True)]
        rows, columns = (slice(o + b, stop + b) for o, b, stop in zip(self.offset, before, stops, strict=True))
        return F.pad(maps, (before[1], after[1], before[0], after[0]))[:, :, rows, columns]

    def of(self, maps: Tensor) -> Tensor:
        """Maps `(N, C, h, w)` as maps of windows `(N, size * size * C, *grid)`: row by row, channels innermost.

        An encoder of such vectors is a convolution, with weights `encoder.view(m, *size, C).movedim(3, 1)`.
        """
        windows = self.padded(maps).unfold(2, self.size[0], self.stride[0]).unfold(3, self.size[1], self.stride[1])
        return windows.permute(0, 4, 5, 1, 2, 3).reshape(len(maps), -1, *self.grid)
