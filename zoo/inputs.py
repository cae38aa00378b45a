"""How a model wants its images: size, channels, and the arithmetic from [0, 1] to its own range."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import ModelError


@dataclass(frozen=True)
class InputSpec:
    """What a model is fed.

    Everywhere in this project an image is a float tensor `(N, channels, height, width)` in [0, 1],
    RGB where it has three channels. `normalize` turns it into what the network was trained on:
    `(x[:, order] * scale - mean) / std`. It is differentiable, so images can be optimized.

    Attributes:
        size: height and width in pixels (an int means a square).
        channels: number of input channels.
        mean, std: per channel (or one for all), in the units after `scale`, in the network's channel order.
        scale: 1 for networks trained on [0, 1], 255 for those trained on bytes.
        order: "RGB" or "BGR", the channel order that the network expects.
        resize: short side, in pixels, that photographs are resized to before the center crop (default: `size`).
    """

    size: int | tuple[int, int] = 224
    channels: int = 3
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1.0
    order: str = "RGB"
    resize: int | None = None

    def __post_init__(self) -> None:
        height, width = self.hw
        if height < 1 or width < 1:
            raise ModelError(f"input size must be at least 1 pixel, got {self.size}")
        if self.channels < 1:
            raise ModelError(f"input channels must be at least 1, got {self.channels}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise ModelError(f"input {name} has {len(values)} values for {self.channels} channels")
        if any(s <= 0 for s in self.std) or self.scale <= 0:
            raise ModelError("input std and scale must be positive")
        if self.order not in ("RGB", "BGR") or (self.order == "BGR" and self.channels != 3):
            raise ModelError(f"input order must be RGB, or BGR with 3 channels; got {self.order!r}")

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(channels, height, width)` of one image."""
        return (self.channels, *self.hw)

    def normalize(self, images: Tensor) -> Tensor:
        """Images in [0, 1] `(N, channels, H, W)` as the network wants them, same shape."""
        x = images.flip(1) if self.order == "BGR" else images
        if self.scale != 1.0:
            x = x * self.scale
        if any(m != 0.0 for m in self.mean):
            x = x - torch.tensor(self.mean, dtype=x.dtype, device=x.device).view(1, -1, 1, 1)
        if any(s != 1.0 for s in self.std):
            x = x / torch.tensor(self.std, dtype=x.dtype, device=x.device).view(1, -1, 1, 1)
        return x


CAFFE_INPUT = InputSpec(size=224, scale=255.0, mean=(104.0, 117.0, 123.0), order="BGR", resize=256)
"""How networks trained in Caffe on ImageNet are fed."""
