"""Magnitude-constrained optimization (MACO): the phases of an image's spectrum are optimized, its magnitudes stay.

    image = irfft2(magnitude * exp(i * phase))

From Fel et al., "Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained Optimization", NeurIPS
2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits.errors import VisualizationError
from circuits.visualization.parametrizations.base import (
    Colored,
    Device,
    Parametrization,
    Size,
    checked_colors,
    frequencies,
    generator,
    one_by_one,
)
from circuits.visualization.parametrizations.color_statistics import Colors


class _MacoImages(Colored):
    rate = 0.1
    magnitude: Tensor
    paired: Tensor

    def __init__(self, start: Tensor, magnitude: Tensor, size: Size, channels: int, colors: Colors | None) -> None:
        super().__init__(size, channels, colors, alpha=False)
        self.phase = nn.Parameter(start)  # (N, C, H, W // 2 + 1)
        self.register_buffer("magnitude", magnitude, persistent=False)
        self.register_buffer("paired", _paired(size).to(start.dtype), persistent=False)

    def raw(self) -> Tensor:
        # Where a coefficient and its conjugate are both in the half spectrum, phases must be odd: else irfft2 averages
        # the two, and the magnitude would not stay.
        phase = self.phase - self.paired * _opposite(self.phase)
        cosine, sine = one_by_one(torch.cos, phase), one_by_one(torch.sin, phase)
        spectrum = torch.complex(self.magnitude * cosine, self.magnitude * sine)
        return torch.fft.irfft2(spectrum, s=self.size, norm="ortho")  # type: ignore[no-any-return]


def _opposite(spectrum: Tensor) -> Tensor:
    """Rows of `(..., H, W // 2 + 1)` at minus their frequency."""
    return spectrum.flip(-2).roll(1, -2)


def _paired(size: Size) -> Tensor:
    """`(W // 2 + 1,)`: the columns of rfft2 that hold a coefficient as well as its conjugate."""
    columns = torch.arange(size[1] // 2 + 1)
    return (columns == 0) | (2 * columns == size[1])


@dataclass(frozen=True, eq=False)
class Maco:
    """Phases alone, under a fixed magnitude of each frequency (MaCo).

    Attributes:
        spectrum: magnitudes `(C, H', W' // 2 + 1)` as `measure_spectrum` gives them, or the same for every channel
            `(1, ...)`; interpolated to the size of the images. Default: 1 / frequency.
        colors: as `Fourier`'s.

    Before the colors an image has mean 0 and variance 1.
    """

    spectrum: Tensor | None = None
    colors: Colors | None = None

    def __call__(self, seeds: Sequence[int], size: Size, channels: int = 3, device: Device = "cpu") -> Parametrization:
        colors = checked_colors(seeds, size, channels, self.colors)
        shape = (channels, size[0], size[1] // 2 + 1)
        magnitude = frequencies(size).reciprocal() if self.spectrum is None else self._resized(size, channels)
        magnitude = magnitude.expand(shape).clone()
        magnitude = torch.where(_paired(size), (magnitude + _opposite(magnitude)) / 2, magnitude)
        magnitude[:, 0, 0] = 0  # no mean
        energy = (magnitude.square() * torch.where(_paired(size), 1, 2)).sum() / (channels * size[0] * size[1])
        magnitude = (magnitude / energy.sqrt().clamp_min(1e-12)).float()  # Parseval: variance 1
        start = torch.stack(
            [torch.rand(shape, generator=generator(seed, "maco"), dtype=torch.float32) for seed in seeds]
        ) * (2 * math.pi)
        return _MacoImages(start, magnitude, size, channels, colors).to(device)

    def _resized(self, size: Size, channels: int) -> Tensor:
        """The spectrum at the frequencies (cycles per pixel) of an image of `size`: `(C or 1, H, W // 2 + 1)`."""
        assert self.spectrum is not None
        spectrum = self.spectrum.detach().cpu().double()
        if spectrum.ndim != 3 or spectrum.shape[0] not in (1, channels) or spectrum.numel() == 0:
            raise VisualizationError(
                f"a spectrum for images of {channels} channels is ({channels}, H, W // 2 + 1), as measure_spectrum "
                f"gives it; got {tuple(spectrum.shape)}"
            )
        if not bool((spectrum.isfinite() & (spectrum >= 0)).all()):
            raise VisualizationError("the magnitudes of a spectrum are finite and not negative")
        rows, columns = spectrum.shape[1:]
        if (rows, columns) == (size[0], size[1] // 2 + 1):
            return spectrum
        spectrum = spectrum.clone()
        spectrum[:, 0, 0] = (spectrum[:, 1 % rows, 0] + spectrum[:, 0, 1 % columns]) / 2  # the mean is no neighbor's
        y = torch.fft.fftfreq(size[0], dtype=torch.float32).double() * rows + rows // 2
        x = torch.fft.rfftfreq(size[1], dtype=torch.float32).double() * max(2 * (columns - 1), 1)
        positions = [2 * at / max(n - 1, 1) - 1 for at, n in ((x, columns), (y, rows))]
        grid = torch.stack(torch.meshgrid(*positions, indexing="xy"), -1)[None]
        shifted = torch.fft.fftshift(spectrum, dim=1)[None]
        return F.grid_sample(shifted, grid, padding_mode="border", align_corners=True)[0]
