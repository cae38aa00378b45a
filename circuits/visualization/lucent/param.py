"""Lucent's parametrizations: functions that return `(parameters, image_f)`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

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
    size: int, num_hidden_channels: int = 24, num_layers: int = 8, batch: int = 1, seed: int | None = None
) -> Param:
    """A compositional pattern-producing network per image."""
    first = int(torch.randint(2**31, ())) if seed is None else seed
    images = parametrizations.Cppn(width=num_hidden_channels, layers=num_layers)(
        [first + i for i in range(batch)], (size, size)
    )
    return list(images.parameters()), images


def _uncorrelated(channels: int) -> parametrizations.Colors:
    identity = tuple(tuple(float(i == j) for j in range(channels)) for i in range(channels))
    return parametrizations.Colors((0.5,) * channels, identity)
