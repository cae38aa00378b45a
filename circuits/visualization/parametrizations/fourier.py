"""Fourier coefficients, from noise (feature visualization) or from an image (feature accentuation).

An image is the inverse FFT of coefficients divided by their frequency, so that one step of Adam changes all
frequencies in the proportions of natural images, whose amplitudes fall with 1 / f. The three color components are
decorrelated, as those of natural images are not (Olah, Mordvintsev and Schubert, "Feature Visualization", Distill
2017, "Preconditioning and Parameterization").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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
    normal,
)
from circuits.visualization.parametrizations.color_statistics import Colors
from zoo.common.checks import number
from zoo.common.results import called

_SPECTRUM_SHARE = 4.0  # Lucid divides what comes out of the inverse FFT by 4; its step sizes suit that


class _FourierImages(Colored):
    scale: Tensor

    def __init__(self, start: Tensor, size: Size, channels: int, colors: Colors | None, alpha: bool, decay: float):
        super().__init__(size, channels, colors, alpha)
        self.spectrum = nn.Parameter(start)  # (N, C [+1], H, W // 2 + 1, 2)
        # Lucid multiplies by sqrt(H W) and its inverse FFT divides by H W: together the orthonormal one.
        scale = torch.div(frequencies(size) ** -decay, _SPECTRUM_SHARE).float()
        self.register_buffer("scale", scale[..., None], persistent=False)

    def raw(self) -> Tensor:
        spectrum = torch.view_as_complex(self.spectrum * self.scale)
        return torch.fft.irfft2(spectrum, s=self.size, norm="ortho")  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Fourier:
    """Real Fourier coefficients divided by their frequency, colors decorrelated: Lucid's default.

    Attributes:
        sd: standard deviation of the normal numbers that the coefficients start from, 0 or more.
        decay: coefficients count by 1 / frequency ** decay; 1 is that of natural images.
        colors: of the images; default natural ones for three channels, independent channels otherwise.
        alpha: also an opacity, starting at one half.

    >>> Fourier()(seeds=[0, 1], size=(64, 64))().shape
    torch.Size([2, 3, 64, 64])
    """

    sd: float = 0.01
    decay: float = 1.0
    colors: Colors | None = None
    alpha: bool = False

    def __call__(self, seeds: Sequence[int], size: Size, channels: int = 3, device: Device = "cpu") -> Parametrization:
        number("sd", self.sd, least=0, error=VisualizationError)
        colors = checked_colors(seeds, size, channels, self.colors)
        start = self.sd * normal(seeds, "fourier", channels + self.alpha, size[0], size[1] // 2 + 1, 2)
        return _FourierImages(start, size, channels, colors, self.alpha, self.decay).to(device)


@dataclass(frozen=True, eq=False)
class Photograph:
    """Fourier coefficients that start from given images (feature accentuation).

    Attributes:
        images: `(N, C, H, W)` in [0, 1], one per seed, or one for all; kept within [0.01, 0.99], and resized if of
            another size.
        decay, colors: as `Fourier`'s; the color matrix must have an inverse.

    From Hamblin et al., "Feature Accentuation: Revealing 'What' Features Respond to in Natural Images", 2024.
    """

    images: Tensor = field(metadata=called("pictures"))
    decay: float = 1.0
    colors: Colors | None = None

    def __call__(self, seeds: Sequence[int], size: Size, channels: int = 3, device: Device = "cpu") -> Parametrization:
        colors = checked_colors(seeds, size, channels, self.colors)
        shape = tuple(self.images.shape)
        if len(shape) != 4 or shape[0] not in (1, len(seeds)) or shape[1] != channels or 0 in shape:
            raise VisualizationError(
                f"images for {len(seeds)} seeds are ({len(seeds)}, {channels}, H, W) or (1, {channels}, H, W); "
                f"got {shape}"
            )
        low, high = float(self.images.min()), float(self.images.max())
        if not (low >= -1e-4 and high <= 1 + 1e-4):
            raise VisualizationError(f"images lie in [0, 1]; these span {low:g} to {high:g}")
        images = self.images.detach().cpu().double()
        if shape[2:] != tuple(size):
            images = F.interpolate(images, tuple(size), mode="bilinear", antialias=True)
        result = _FourierImages(torch.empty(0), size, channels, colors, False, self.decay)
        # the inverse of `Colored.forward` and `_FourierImages.raw`, in float64
        logits = images.clamp(0.01, 0.99).logit() - result.offset.double()
        if result.matrix is not None:
            matrix = result.matrix.double()
            if float(torch.linalg.cond(matrix)) > 1e5:
                raise VisualizationError("these colors do not span all of them: give a color matrix with an inverse")
            logits = torch.linalg.solve(matrix, logits.flatten(2)).view_as(logits)
        spectrum = torch.fft.rfft2(logits, norm="ortho") / result.scale[..., 0].double()
        start = torch.view_as_real(spectrum).float()
        result.spectrum = nn.Parameter(start.expand(len(seeds), *start.shape[1:]).clone())
        return result.to(device)
