"""What the axes of a layer's tensor are, and the one place that brings it to maps `(N, C, h, w)` and back.

Networks lay activations out in many ways: maps with channels first (`nn.Conv2d`) or last (the blocks of Swin and of
ConvNeXt), tokens `(N, T, C)` with or without a class token in front, heads `(N, heads, T, width)`, windows of a map as
if each were an image of its own. `tracking` finds out which it is; `Axes` is the result, and everything that reads or
edits activations goes through it. A map with channels first, or a vector, passes through untouched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from circuits.errors import CaptureError

Layout = Literal["channels-first", "channels-last", "tokens", "heads", "windows", "vector", "sequence", "volume"]
"""How a layer's tensor is laid out; see `Axes`."""

IMAGES = -1
"""In `Axes.sizes`, the part of an axis that is the images of the batch."""


@dataclass(frozen=True)
class Axes:
    """How a layer's tensor is brought to maps `(N, C, h, w)`.

    Attributes:
        layout: "channels-first" `(N, C, h, w)`; "channels-last" `(N, h, w, C)`; "tokens" `(N, T, C)`; "heads"
            `(N, heads, T, width)`, whose channels are those of all heads in order; "windows", where parts of the map
            lie along the axis of the images, or in another order; "vector" `(N, C)`; "sequence" `(N, C, T)`, a map
            of one row; "volume" `(N, C, D, H, W)`, a map of its slices one below the other.
        channels: number of channels, in the order in which they lie in the tensor.
        grid: height and width of the map for the model's input size; None for a vector.
        sizes: for every axis of the tensor the parts that it is a product of, outermost first; -1 is the images.
        order: those parts, numbered through, as the map has them: images, channels, rows, columns.
        counts: how many of `order` are channels, rows and columns.
        tokens: `(axis, first, number)` of the tokens that the map takes; None where it takes the whole tensor.
        length: number of all tokens along that axis.
        shift: rows and columns by which the map was rolled, which is undone.
        slices: how many slices of a volume the rows of the map are.
    """

    layout: Layout
    channels: int
    grid: tuple[int, int] | None
    sizes: tuple[tuple[int, ...], ...] = ()
    order: tuple[int, ...] = ()
    counts: tuple[int, int, int] = (1, 1, 1)
    tokens: tuple[int, int, int] | None = None
    length: int = 0
    shift: tuple[int, int] = (0, 0)
    slices: int = 1

    @property
    def plain(self) -> bool:
        """Whether the tensor is a map with channels first, or a vector, already."""
        return self.layout in ("channels-first", "vector")

    @property
    def channels_last(self) -> bool:
        """Whether the last axis of the tensor is its channels, all of them and nothing else."""
        parts = [len(axis) for axis in self.sizes]
        features = set(self.order[1 : 1 + self.counts[0]])
        last = set(range(sum(parts[:-1]), sum(parts)))
        sizes = [size for axis in self.sizes for size in axis]
        return not self.plain and last <= features and all(sizes[k] == 1 for k in features - last)

    def in_same_order(self, other: Axes) -> bool:
        """Whether the same place in two tensors is the same position of their maps; channels may differ in number."""
        return (
            (self.plain, self.order, self.counts, self.tokens, self.shift)
            == (other.plain, other.order, other.counts, other.tokens, other.shift)
            and len(self.sizes) == len(other.sizes)
            and all(a == b or len(a) == len(b) == 1 for a, b in zip(self.sizes, other.sizes, strict=True))
        )

    @property
    def partial(self) -> bool:
        """Whether the tensor also holds tokens that the map does not."""
        return self.tokens is not None

    def maps(self, x: Tensor) -> Tensor:
        """The tensor as maps `(N, C, h, w)`, a vector as `(N, C, 1, 1)`; a view of it where that can be.

        Raises:
            CaptureError: it has not the axes that the layer had when the model was made.
        """
        if self.plain:
            return as_maps(x)
        part = self._taken(x)
        sizes = self._split(part)
        c, h, _ = self.counts
        turned = [sizes[k] for k in self.order]
        shape = [turned[0], math.prod(turned[1 : 1 + c]), math.prod(turned[1 + c : 1 + c + h]), -1]
        maps = part.reshape(sizes).permute(self.order).reshape(shape)
        return maps if self.shift == (0, 0) else maps.roll((-self.shift[0], -self.shift[1]), (2, 3))

    def write(self, maps: Tensor, x: Tensor) -> Tensor:
        """The tensor `x` with `maps` `(N, C, h, w)` in the place of what `maps` gives of it.

        Of `x` only the shape is used where the layer has no other tokens, and the maps may be of more images.
        """
        if self.plain:
            return maps if x.ndim == 4 else maps.flatten(1)
        part = self._taken(x)
        sizes = self._split(part)
        if self.shift != (0, 0):
            maps = maps.roll(self.shift, (2, 3))
        images = sizes[self.order[0]]
        turned = [maps.shape[0], *(sizes[k] for k in self.order[1:])]
        back = maps.reshape(turned).permute([self.order.index(k) for k in range(len(self.order))])
        image_axis = next(axis for axis, parts in enumerate(self.sizes) if IMAGES in parts)
        shape = [n * maps.shape[0] // images if axis == image_axis else n for axis, n in enumerate(part.shape)]
        new = back.reshape(shape)
        if self.tokens is None:
            return new
        axis, first, number = self.tokens
        after = first + number
        return torch.cat([x.narrow(axis, 0, first), new, x.narrow(axis, after, x.shape[axis] - after)], dim=axis)

    def edited(self, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """A function of maps as one of the layer's own tensor; of a plain layer it is the function itself."""
        if self.plain:
            return function
        return lambda x: self.write(function(self.maps(x)), x)

    def _taken(self, x: Tensor) -> Tensor:
        if x.ndim != len(self.sizes):
            raise CaptureError(f"the layer had {len(self.sizes)} axes when the model was made, and has {x.ndim} now")
        if self.tokens is None:
            return x
        axis, first, number = self.tokens
        if x.shape[axis] != self.length:
            raise CaptureError(
                f"the layer had {self.length} tokens when the model was made, and has {x.shape[axis]} now: "
                "give images of the model's input size"
            )
        return x.narrow(axis, first, number)

    def _split(self, x: Tensor) -> list[int]:
        """Sizes of the parts of all axes; an axis of one part may have another size than it had."""
        sizes: list[int] = []
        for length, parts in zip(x.shape, self.sizes, strict=True):
            known = math.prod(p for p in parts if p != IMAGES)
            if len(parts) == 1:
                sizes.append(length)
            elif length % known == 0 and (IMAGES in parts or length == known):
                sizes += [length // known if p == IMAGES else p for p in parts]
            else:
                raise CaptureError(
                    f"an axis of the layer was {known} long when the model was made, and is {length} now: "
                    "give images of the model's input size"
                )
        return sizes


Layouts = dict[str, Axes] | str
"""How a tensor is read: "" -> its map or vector, and where it has tokens that are no patches, "tokens" -> all of them
in a row, "0", "1", ... -> each that is no patch. A string says why it cannot be read."""


def grid_of(shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of the maps of an input `(N, C, H, W)`, a sequence or a volume."""
    return math.prod(shape[2:-1]), shape[-1]


def plain_axes(shape: tuple[int, ...]) -> Axes:
    """The axes of a map with channels first `(N, C, h, w)`, or of a vector `(N, C)`."""
    if len(shape) == 4:
        return Axes("channels-first", shape[1], (shape[2], shape[3]))
    return Axes("vector", shape[1], None)


def as_maps(acts: Tensor) -> Tensor:
    """Channels-first activations as maps `(N, C, h, w)`: of a vector layer `(N, C)` maps of one position."""
    return acts if acts.ndim == 4 else acts[:, :, None, None]
