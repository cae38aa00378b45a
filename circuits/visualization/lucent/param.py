"""Lucent's parametrizations: functions that return `(parameters, image_f)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from circuits.errors import VisualizationError
from circuits.visualization import parametrizations

Param = tuple[list[Tensor], Callable[[], Tensor]]


def image(
    w: int,
    h: int | None = None,
    sd: float | None = None,
    batch: int | None = None,
    decorrelate: bool = True,
    fft: bool = True,
    channels: int | None = None,
    seed: int | None = None,
) -> Param:
    """A batch of images `(batch, 3 or channels, h, w)` in [0, 1], as Fourier coefficients or pixels.

    `seed`: default from torch's own generator, so that `torch.manual_seed` holds as it does with Lucent.
    """
    count = channels or 3
    colors = None if decorrelate and not channels else _uncorrelated(count)
    factory = (parametrizations.Fourier if fft else parametrizations.Pixels)(
        sd=0.01 if sd is None else sd, colors=colors
    )
    first = int(torch.randint(2**31, ())) if seed is None else seed
    images = factory([first + i for i in range(batch or 1)], (h or w, w), count)
    return list(images.parameters()), images


def cppn(
    size: int, num_output_channels: int = 3, num_hidden_channels: int = 24, num_layers: int = 8, batch: int = 1,
    seed: int | None = None,
) -> Param:  # fmt: skip
    """A compositional pattern-producing network per image; as in Lucent all are gray at the start.

    `num_layers` counts the last one, which gives the colors.
    """
    if num_layers < 2:
        raise VisualizationError(f"a network has at least 2 layers; got num_layers={num_layers}")
    first = int(torch.randint(2**31, ())) if seed is None else seed
    images = parametrizations.Cppn(width=num_hidden_channels, layers=num_layers - 1)(
        [first + i for i in range(batch)], (size, size), num_output_channels
    )
    with torch.no_grad():
        for zero in (images.weights[-1], *images.biases):
            zero.zero_()
    return list(images.parameters()), images


def pixel_image(shape: Sequence[int], sd: float | None = None) -> Param:
    """Plain numbers of any shape, normal with deviation `sd` (0.01): no image in [0, 1] before `to_valid_rgb`."""
    tensor = (torch.randn(*shape) * (sd or 0.01)).requires_grad_()
    return [tensor], lambda: tensor


def fft_image(shape: Sequence[int], sd: float | None = None, decay_power: float = 1) -> Param:
    """Numbers `(N, C, H, W)` whose Fourier coefficients, divided by frequency to `decay_power`, are the parameters."""
    if len(shape) != 4:
        raise VisualizationError(f"fft_image takes a shape (N, C, H, W); got {tuple(shape)}")
    images, channels, height, width = shape
    scale = parametrizations.frequencies((height, width)) ** -decay_power
    spectrum = (torch.randn(images, channels, *scale.shape, 2) * (sd or 0.01)).requires_grad_()
    scale = (scale / 4).float()[..., None]  # Lucid's constant

    def numbers() -> Tensor:
        image: Tensor = torch.fft.irfft2(torch.view_as_complex(spectrum * scale), s=(height, width), norm="ortho")
        return image

    return [spectrum], numbers


def lowres_tensor(
    shape: Sequence[int],
    underlying_shape: Sequence[int],
    offset: bool | float | Sequence[bool | float] | None = None,
    sd: float = 0.01,
) -> Param:
    """A tensor of `shape` interpolated from a smaller one, shared along dimensions of size 1.

    Args:
        shape: of the result.
        underlying_shape: of the parameters, as many dimensions.
        offset: as in Lucent: pixels that are reflected onto the left, right, top and bottom before the result is cut
            to `shape`; one number for all, or four; True: half the ratio of the two shapes in that dimension.
        sd: deviation of the normal numbers at the start.
    """
    if len(shape) != len(underlying_shape):
        raise VisualizationError(f"{tuple(underlying_shape)} has not as many dimensions as {tuple(shape)}")
    small = (torch.randn(*underlying_shape) * sd).requires_grad_()
    each = [offset] * len(shape) if offset is None or isinstance(offset, (bool, int, float)) else list(offset)
    ratios = [large / below / 2 for large, below in zip(shape, underlying_shape, strict=True)]
    pads = [int(ratio if o is True else o or 0) for o, ratio in zip(each, ratios, strict=True)]

    def tensor() -> Tensor:
        large = small
        for dim, (size, below) in enumerate(zip(shape, underlying_shape, strict=True)):
            if size != below:  # linear from end to end, as align_corners=True
                at = torch.linspace(0, below - 1, size, device=small.device)
                low = at.long().clamp(max=max(0, below - 2))
                share = (at - low).view(-1, *[1] * (len(shape) - 1 - dim))
                high = (low + 1).clamp(max=below - 1)
                large = large.index_select(dim, low) * (1 - share) + large.index_select(dim, high) * share
        if any(pads):
            large = F.pad(large, pads, mode="reflect")
        return large[tuple(slice(size) for size in shape)]

    return [small], tensor


def to_valid_rgb(image_f: Callable[[], Tensor], decorrelate: bool = False) -> Callable[[], Tensor]:
    """Numbers `(N, 3, H, W)` as images in [0, 1]: a sigmoid, after mixing the colors as natural images do."""
    matrix = parametrizations.NATURAL.normalized

    def images() -> Tensor:
        numbers = image_f()
        if decorrelate:
            numbers = torch.einsum("ij,njhw->nihw", matrix.to(numbers), numbers)
        return numbers.sigmoid()

    return images


def _uncorrelated(channels: int) -> parametrizations.Colors:
    identity = tuple(tuple(float(i == j) for j in range(channels)) for i in range(channels))
    return parametrizations.Colors((0.5,) * channels, identity)
