"""Windows of one layer's map that the positions of a later layer see: what a block computes each position from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from circuits.errors import GraphError
from circuits.network.operations import Pair
from zoo.common.checks import whole_number

if TYPE_CHECKING:
    from circuits.network.graph import ReceptiveField
    from circuits.network.model import Model


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


def window_between(model: Model, source: str, target: str, patch: int | Sequence[int] | None = None) -> Window:
    """The window of `source` that a position of `target` is computed from, from their receptive fields.

    Args:
        model: the model; source, target: layers, or branches of layers.
        patch: positions along each side instead, or rows and columns, about the middle of that window. Needed where a
            receptive field is not known: then both maps must be of one size.

    Raises:
        GraphError: there is no such window; the message has the reason.
    """
    first, last = model.layer(source), model.layer(target)
    name = f"{model.name}/{first.name}..{last.name}"
    sides = [None, None] if patch is None else [patch, patch] if isinstance(patch, int) else list(patch)
    for side in sides:
        if side is not None:
            whole_number("patch", side, error=GraphError)
    if model.graph is not None:
        _check_path(model, first.name, last.name, name)
    grids = [layer.size or (1, 1) for layer in (first, last)]
    if first.size is None or last.size is None:
        if grids[0] != grids[1] or any(side not in (None, 1) for side in sides):
            raise GraphError(f"{name}: one is a vector and the other a map, so that no position has a window")
        return Window((1, 1), (1, 1), (0, 0), grids[1])
    fields = [_field(model, layer.name) for layer in (first, last)]
    before, after = fields
    if before is None or after is None:
        unknown = first.name if before is None else last.name
        odd = [side for side in sides if side is not None and side % 2]
        if len(odd) < 2 or grids[0] != grids[1]:
            raise GraphError(
                f"{name}: what a position of {unknown} sees is the whole image, or not known. Between maps of one size "
                "an odd patch= says how many positions along each side are read"
            )
        return Window((odd[0], odd[1]), (1, 1), (-(odd[0] // 2), -(odd[1] // 2)), grids[1])
    sizes, strides, offsets = [], [], []
    for axis in range(2):
        step = before.stride[axis]
        numbers = [
            after.size[axis] - before.size[axis] + step, after.stride[axis], after.offset[axis] - before.offset[axis],
        ]  # fmt: skip
        if any(number % step for number in numbers) or numbers[0] < step or numbers[1] < step:
            raise GraphError(f"{name}: the positions of {last.name} lie between those of {first.name}")
        size, stride, offset = (number // step for number in numbers)
        if (side := sides[axis]) is not None:
            if (size - side) % 2:
                raise GraphError(f"{name}: {side} positions have no middle in a window of {size}; give {side + 1}")
            offset += (size - side) // 2
            size = side
        sizes.append(size)
        strides.append(stride)
        offsets.append(offset)
    return Window((sizes[0], sizes[1]), (strides[0], strides[1]), (offsets[0], offsets[1]), grids[1])


def _field(model: Model, name: str) -> ReceptiveField | None:
    """The receptive field of a layer, or of the channels of a branch."""
    layer = model.layers[name]
    if layer.part is None or model.graph is None:
        return layer.receptive_field
    return model.graph.channel_field(model.node(name), layer.part[1])


def _check_path(model: Model, source: str, target: str, name: str) -> None:
    """Refuse a target that is not computed from the source alone.

    Raises:
        GraphError: it is the same, comes earlier, or reads something else, too.
    """
    graph = model.graph
    assert graph is not None
    start, end = model.node(source), model.node(target)
    if start is end:
        raise GraphError(f"{name}: both are the output of one operation; name the input and the output of a block")
    past = [n for n in graph.side_inputs(start, end) if n not in graph.constants]
    if past or model.layers[source].part is not None:
        via = "other branches" if model.layers[source].part is not None else past[0].name
        raise GraphError(f"{name}: {target} also depends on {via}, past {source}: start where all of it goes through")
