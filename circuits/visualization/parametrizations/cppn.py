"""A small network from coordinates to color (compositional pattern-producing network, CPPN).

A hidden layer gives `atan(x) / 0.67` and `atan(x)^2 / 0.6` of each unit, as Lucid's does: an odd and an even function,
each of about unit variance for normal x (Mordvintsev et al., "Differentiable Image Parameterizations", Distill 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from circuits.errors import VisualizationError
from circuits.visualization.parametrizations.base import (
    Device,
    Parametrization,
    Size,
    checked_colors,
    normal,
    one_by_one,
)


class CppnImages(Parametrization):
    """Networks from a position to its color; `render` evaluates them at any size."""

    rate = 0.005

    def __init__(self, start: Sequence[tuple[Tensor, Tensor]], size: Size, channels: int, alpha: bool) -> None:
        super().__init__(size, channels, alpha)
        self.weights = nn.ParameterList([nn.Parameter(weight) for weight, _ in start])  # each (N, out, in)
        self.biases = nn.ParameterList([nn.Parameter(bias) for _, bias in start])  # each (N, out, 1)

    def forward(self) -> Tensor:
        return self.render(self.size)

    def render(self, size: Size) -> Tensor:
        """The same images `(N, C [+1], H, W)` at another size."""
        # The longer side spans -sqrt(3) to sqrt(3): coordinates of unit variance.
        like = self.weights[0]
        steps = [(2 * torch.arange(n).to(like) + 1 - n) * (3**0.5 / max(size)) for n in size]
        grid = torch.stack([*reversed(torch.meshgrid(*steps, indexing="ij"))]).flatten(1)  # (2, H * W): x, y

        def rendered(*layers: Tensor) -> Tensor:
            hidden = grid.expand(len(layers[0]), -1, -1)
            pairs = list(zip(layers[::2], layers[1::2], strict=True))
            for weight, bias in pairs[:-1]:
                angle = torch.atan(torch.baddbmm(bias, weight, hidden))
                hidden = torch.cat([angle / 0.67, angle * angle / 0.6], 1)  # each of about unit variance
            return torch.baddbmm(pairs[-1][1], pairs[-1][0], hidden).sigmoid()

        layers = [layer for pair in zip(self.weights, self.biases, strict=True) for layer in pair]
        return one_by_one(rendered, *layers).reshape(len(layers[0]), -1, *size)


@dataclass(frozen=True)
class Cppn:
    """A compositional pattern-producing network per image: smooth, and rendered at any size.

    Attributes:
        width: units of a hidden layer; each gives two values, of atan(x) and of its square, as Lucid's do.
        layers: hidden layers.
        alpha: also an opacity.

    From Mordvintsev et al., "Differentiable Image Parameterizations", Distill 2018.
    """

    width: int = 24
    layers: int = 8
    alpha: bool = False

    def __call__(self, seeds: Sequence[int], size: Size, channels: int = 3, device: Device = "cpu") -> CppnImages:
        checked_colors(seeds, size, channels, None)
        if self.width < 1 or self.layers < 1:
            raise VisualizationError(f"a network has width and layers of 1 or more; got {self.width}, {self.layers}")
        inputs = [2] + [2 * self.width] * self.layers
        outputs = [self.width] * self.layers + [channels + self.alpha]
        # Lucid's last layer starts at zero: all images are equal and no gradient gets below it. Here it is a tenth.
        gains = [1.0] * self.layers + [0.1]
        start = [
            (
                normal(seeds, f"cppn weight {i}", outputs[i], inputs[i]) * gains[i] / inputs[i] ** 0.5,
                normal(seeds, f"cppn bias {i}", outputs[i], 1) * 0.1,
            )
            for i in range(self.layers + 1)
        ]
        return CppnImages(start, size, channels, self.alpha).to(device)
