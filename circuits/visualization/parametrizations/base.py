"""The contract of a parametrization, its checks, and random numbers that belong to one image."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits.errors import VisualizationError
from circuits.visualization.parametrizations.color_statistics import NATURAL, Colors

Device: TypeAlias = torch.device | str
Size: TypeAlias = tuple[int, int]


def generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator of its own for each seed and purpose, so that no two uses share their numbers."""
    digest = hashlib.blake2b(f"{purpose}:{int(seed)}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))  # mt19937 takes 32 bits


def normal(seeds: Sequence[int], purpose: str, *shape: int) -> Tensor:
    """Standard normal numbers `(N, *shape)`, those of each image from its own seed."""
    return torch.stack([torch.randn(shape, generator=generator(seed, purpose), dtype=torch.float32) for seed in seeds])


def one_by_one(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """`function` of a batch: at once on an accelerator, image by image on the CPU.

    PyTorch's vector loops end in scalar ones, whose exp and atan differ in the last bit: in a batch the ends fall on
    other pixels than they do alone. Rows are copied, as MKL's sums depend on where in memory a matrix starts.
    """
    if tensors[0].device.type != "cpu":
        return function(*tensors)
    rows = zip(*(torch.split(tensor, 1) for tensor in tensors), strict=True)
    return torch.cat([function(*(part.clone() for part in row)) for row in rows])


class Parametrization(nn.Module, ABC):
    """A batch of images held as the parameters of an optimization.

    Every parameter has the image as its first dimension, and nothing else depends on how many there are: so Adam on
    the batch equals Adam on each alone, and rows can be taken out.

    Attributes:
        size: H, W.
        channels: C, without the opacity.
        alpha: whether `forward` gives one more channel, the opacity.
        rate: the step size of Adam that suits it.
    """

    rate: ClassVar[float] = 0.1  # of 0.05, 0.1, 0.2 on six units of `scenes`: 0.05 (Lucid's) leaves two silent

    def __init__(self, size: Size, channels: int, alpha: bool) -> None:
        super().__init__()
        self.size, self.channels, self.alpha = (int(size[0]), int(size[1])), channels, alpha

    @abstractmethod
    def forward(self) -> Tensor:
        """The images `(N, C [+1], H, W)`, float32 in [0, 1], differentiable."""


class Colored(Parametrization):
    """Images made of decorrelated logits: `sigmoid(matrix @ raw + logit(mean color))`."""

    offset: Tensor
    matrix: Tensor | None

    def __init__(self, size: Size, channels: int, colors: Colors | None, alpha: bool) -> None:
        super().__init__(size, channels, alpha)
        offset = torch.tensor([0.5] * channels if colors is None else colors.mean, dtype=torch.float32).logit(1e-2)
        offset = F.pad(offset, (0, int(alpha))).view(-1, 1, 1)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("matrix", None if colors is None else colors.normalized, persistent=False)

    @abstractmethod
    def raw(self) -> Tensor:
        """Decorrelated logits `(N, C [+1], H, W)`."""

    def forward(self) -> Tensor:
        raw = self.raw()
        if self.matrix is not None:
            mixed = (self.matrix @ raw[:, : self.channels].flatten(2)).reshape(len(raw), -1, *self.size)
            raw = torch.cat([mixed, raw[:, self.channels :]], 1) if self.alpha else mixed
        return one_by_one(torch.sigmoid, raw + self.offset)


class Factory(Protocol):
    """Makes a parametrization; what `visualize(..., params=...)` takes."""

    def __call__(self, seeds: Sequence[int], size: Size, channels: int = 3, device: Device = "cpu") -> Parametrization:
        """One image per seed, each of `channels` and of `size` H, W."""


def checked_colors(seeds: Sequence[int], size: Size, channels: int, colors: Colors | None) -> Colors | None:
    """The colors to use: those given, natural ones for three channels, else none.

    Raises:
        VisualizationError: no seeds, an empty size, no channels, or colors of other channels.
    """
    if len(seeds) == 0:
        raise VisualizationError("no seeds: give one seed per image, such as seeds=[0]")
    if len(size) != 2 or min(size) < 1:
        raise VisualizationError(f"an image is at least 1 x 1 pixels; got size {tuple(size)}")
    if channels < 1:
        raise VisualizationError(f"an image has at least one channel, not {channels}")
    if colors is None:
        return NATURAL if channels == 3 else None
    if len(colors.mean) != channels:
        raise VisualizationError(
            f"the colors are of {len(colors.mean)} channels, the images have {channels}: "
            "measure them with measure_colors(images, model.input)"
        )
    return colors


def frequencies(size: Size) -> Tensor:
    """`(H, W // 2 + 1)`: cycles per pixel of the coefficients of rfft2, at least 1 / the longer side."""
    fy, fx = torch.fft.fftfreq(size[0], dtype=torch.float64), torch.fft.rfftfreq(size[1], dtype=torch.float64)
    return torch.hypot(fy[:, None], fx[None, :]).clamp_min(1 / max(size))
