"""Plain pixels: an image without a prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from circuits.errors import VisualizationError
from circuits.visualization.parametrizations.base import (
    Colored,
    Device,
    Parametrization,
    Size,
    checked_colors,
    normal,
)
from circuits.visualization.parametrizations.color_statistics import Colors
from zoo.common.checks import number


class _PixelImages(Colored):
    def __init__(self, start: Tensor, size: Size, channels: int, colors: Colors | None, alpha: bool) -> None:
        super().__init__(size, channels, colors, alpha)
        self.pixels = nn.Parameter(start)

    def raw(self) -> Tensor:
        return self.pixels


@dataclass(frozen=True)
class Pixels:
    """Plain pixels, as decorrelated logits. Without a prior, gradients favor high frequencies.

    Attributes:
        sd, colors, alpha: as `Fourier`'s.
    """

    sd: float = 0.01
    colors: Colors | None = None
    alpha: bool = False

    def __call__(self, seeds: Sequence[int], size: Size, channels: int = 3, device: Device = "cpu") -> Parametrization:
        number("sd", self.sd, least=0, error=VisualizationError)
        colors = checked_colors(seeds, size, channels, self.colors)
        start = self.sd * normal(seeds, "pixels", channels + self.alpha, *size)
        return _PixelImages(start, size, channels, colors, self.alpha).to(device)
