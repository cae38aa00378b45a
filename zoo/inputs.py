"""How a model wants its images: size, channels, and the arithmetic from [0, 1] to its own range.

Networks of sequences (`Conv1d`) and of volumes (`Conv3d`) are fed as images, too: a sequence `(N, channels, T)` is an
image of one row, a volume `(N, channels, D, H, W)` one of its slices one below the other. That keeps every value, so
that all that is done to images in [0, 1] can be done to them; `normalize` gives the network its own shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from zoo.common.checks import whole_number
from zoo.errors import ModelError, shorten


def _number(value: Any) -> float:
    if isinstance(value, bool | str):
        raise ModelError(f"input mean and std are numbers, got {value!r}")
    return value if isinstance(value, int | float) else float(value)  # numbers of NumPy and of torch


def _pixels(name: str, value: Any) -> int:
    return whole_number(name, value, most=2**20, error=ModelError)  # beyond, the number is a mistake, not a size


@dataclass(frozen=True)
class InputSpec:
    """What a model is fed.

    Everywhere in this project an image is a float tensor `(N, channels, height, width)` in [0, 1],
    RGB where it has three channels. `normalize` turns it into what the network was trained on:
    `((low + x[:, order] * (high - low)) * scale - mean) / std`. It is differentiable, so images can be optimized.
    `denormalize` and `from_range` make images of tensors that are normalized already, or that lie in `range`.

    Attributes:
        size: height and width in pixels (an int means a square); `(T,)` for sequences, `(D, H, W)` for volumes.
        channels: number of input channels.
        mean, std: per channel (or one for all, also as a number), in the units after `scale`, in the network's channel
            order.
        scale: 1 for networks trained on [0, 1], 255 for those trained on bytes.
        order: "RGB" or "BGR", the channel order that the network expects.
        resize: short side, in pixels, that photographs are resized to before the center crop (default: `size`).
        range: `(low, high)` that pixels span where the network was trained on other numbers than those of
            photographs: depths in meters, decibels. Black is low, white is high.
    """

    size: int | tuple[int, ...] = 224
    channels: int = 3
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1.0
    order: str = "RGB"
    resize: int | None = None
    range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        for name in ("mean", "std"):  # what people write: 0.5, [0.485, 0.456, 0.406]; a tuple can be hashed
            given: Any = getattr(self, name)
            values = given if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
            object.__setattr__(self, name, tuple(map(_number, values)))
        if not isinstance(self.size, Iterable):
            object.__setattr__(self, "size", _pixels("input size", self.size))
        elif isinstance(self.size, str) or not 1 <= len(sizes := tuple(self.size)) <= 3:
            raise ModelError(f"input size is (H, W), (T,) of sequences or (D, H, W) of volumes; got {self.size!r}")
        else:
            object.__setattr__(self, "size", tuple(_pixels("each input size", size) for size in sizes))
        object.__setattr__(self, "channels", _pixels("input channels", self.channels))
        if math.prod(self.shape) > 2**28:
            raise ModelError(f"an input of {' x '.join(map(str, self.native_shape))} numbers takes over 1 GiB an image")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise ModelError(f"input {name} has {len(values)} values for {self.channels} channels")
        if any(s <= 0 for s in self.std) or self.scale <= 0:
            raise ModelError("input std and scale must be positive")
        if len(self.range) != 2 or not self.range[0] < self.range[1]:
            raise ModelError(f"input range is (low, high) with low below high, got {self.range}")
        if self.order not in ("RGB", "BGR") or (self.order == "BGR" and self.channels != 3):
            raise ModelError(f"input order must be RGB, or BGR with 3 channels; got {shorten(self.order, 40)!r}")

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        if isinstance(self.size, int):
            return (self.size, self.size)
        return (math.prod(self.size[:-1]), self.size[-1])

    @property
    def dims(self) -> int:
        """Number of axes of positions: 2 of images, 1 of sequences, 3 of volumes."""
        return 2 if isinstance(self.size, int) else len(self.size)

    @property
    def native_shape(self) -> tuple[int, ...]:
        """Shape of one input as the network takes it: `(channels, T)`, `(channels, H, W)` or `(channels, D, H, W)`."""
        return (self.channels, *(self.hw if isinstance(self.size, int) else self.size))

    def folded(self, x: Tensor) -> Tensor:
        """Sequences `(N, channels, T)` or volumes `(N, channels, D, H, W)` as images; images as they are."""
        if x.ndim != self.dims + 2 or self.dims == 2:
            return x
        return x.unsqueeze(2) if self.dims == 1 else x.flatten(2, 3)

    def unfolded(self, images: Tensor) -> Tensor:
        """What `folded` was made of."""
        if self.dims == 1:
            return images.squeeze(2)
        if self.dims == 3:
            return images.reshape(*images.shape[:2], self.native_shape[1], -1, images.shape[3])
        return images

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(channels, height, width)` of one image."""
        return (self.channels, *self.hw)

    def normalize(self, images: Tensor) -> Tensor:
        """Images in [0, 1] `(N, channels, H, W)` as the network wants them, same shape but for `unfolded`."""
        x = images.flip(1) if self.order == "BGR" else images
        if self.range != (0.0, 1.0):
            x = x * (self.range[1] - self.range[0]) + self.range[0]
        if self.scale != 1.0:
            x = x * self.scale
        if any(m != 0.0 for m in self.mean):
            x = x - torch.tensor(self.mean, dtype=x.dtype, device=x.device).view(1, -1, 1, 1)
        if any(s != 1.0 for s in self.std):
            x = x / torch.tensor(self.std, dtype=x.dtype, device=x.device).view(1, -1, 1, 1)
        # never the images themselves: a network may write into its input
        return self.unfolded(images.clone() if x is images else x)

    def denormalize(self, inputs: Tensor) -> Tensor:
        """Images in [0, 1] of tensors `(N, channels, H, W)` that the network takes as they are: undoes `normalize`.

        Raises:
            ModelError: other channels, or values that no image gives: they were normalized in another way.

        >>> InputSpec(mean=(0.5,), std=(0.5,)).denormalize(torch.full((1, 3, 2, 2), -1.0)).max()
        tensor(0.)
        """
        inputs = self._checked(inputs)
        mean, std = (inputs.new_tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        x = (inputs * std + mean) / self.scale
        return self._to_unit(x.flip(1) if self.order == "BGR" else x, inputs)

    def from_range(self, values: Tensor) -> Tensor:
        """Images in [0, 1] of tensors `(N, channels, H, W)` that lie in `range`.

        Raises:
            ModelError: other channels, or values outside of the range.

        >>> InputSpec(channels=1, range=(-30, 10)).from_range(torch.full((1, 1, 2, 2), -10.0)).max()
        tensor(0.5000)
        """
        values = self._checked(values)
        return self._to_unit(values, values)

    def _checked(self, values: Tensor) -> Tensor:
        if values.ndim != self.dims + 2 or values.shape[1] != self.channels or not values.is_floating_point():
            form = {1: "T", 2: "H, W", 3: "D, H, W"}[self.dims]
            raise ModelError(
                f"give floats (N, {self.channels}, {form}); got {values.dtype} of shape {tuple(values.shape)}"
            )
        return self.folded(values)

    def _to_unit(self, x: Tensor, given: Tensor) -> Tensor:
        low, high = self.range
        unit = (x - low) / (high - low)
        if not bool(((unit >= -1e-4) & (unit <= 1 + 1e-4)).all()):  # what is no number is outside, too
            black_and_white = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, self.channels, 1, 1)
            ends = replace(self, size=1).normalize(black_and_white)
            spans = [f"{float(v.min()):g} to {float(v.max()):g}" for v in (given, ends)]
            raise ModelError(
                f"the tensor spans {spans[0]}; pixels span {low:g} to {high:g}, and normalized ones {spans[1]}: "
                "declare range, mean, std and scale in InputSpec"
            )
        return self.unfolded(unit.clamp(0, 1))


CAFFE_INPUT = InputSpec(size=224, scale=255.0, mean=(104.0, 117.0, 123.0), order="BGR", resize=256)
"""How networks trained in Caffe on ImageNet are fed."""
