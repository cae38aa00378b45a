"""Lucent's parametrizations: functions that return `(parameters, image_f)`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from circuits.visualization import parametrizations

Made = tuple[list[Tensor], Callable[[], Tensor]]

_PLAIN = (1.0, 0.0)


def image(
    w: int,
    h: int | None = None,
    sd: float | None = None,
    batch: int | None = None,
    decorrelate: bool = True,
    fft: bool = True,
    channels: int | None = None,
    seed: int | None = None,
) -> Made:
    """A batch of pictures `(batch, 3 or channels, h, w)` in [0, 1], as Fourier coefficients or pixels.

    `seed`: default from torch's own generator, so that `torch.manual_seed` holds as it does with Lucent.
    """
    count = channels or 3
    colors = None if decorrelate and not channels else _uncorrelated(count)
    factory = (parametrizations.Fourier if fft else parametrizations.Pixels)(
        sd=0.01 if sd is None else sd, colors=colors
    )
    first = int(torch.randint(2**31, ())) if seed is None else seed
    made = factory([first + i for i in range(batch or 1)], (h or w, w), count)
    return list(made.parameters()), made


def cppn(
    size: int, num_hidden_channels: int = 24, num_layers: int = 8, batch: int = 1, seed: int | None = None
) -> Made:
    """A compositional pattern-producing network per picture."""
    first = int(torch.randint(2**31, ())) if seed is None else seed
    made = parametrizations.Cppn(width=num_hidden_channels, layers=num_layers)(
        [first + i for i in range(batch)], (size, size)
    )
    return list(made.parameters()), made


def _uncorrelated(channels: int) -> parametrizations.Colors:
    rows = tuple(tuple(_PLAIN[0 if i == j else 1] for j in range(channels)) for i in range(channels))
    return parametrizations.Colors((0.5,) * channels, rows)
