"""Statistics of the colors and frequencies of natural images, published or measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from circuits.errors import VisualizationError
from zoo.images.sources import Source, open_images
from zoo.inputs import InputSpec


@dataclass(frozen=True)
class Colors:
    """Mean and covariance of the color channels of a set of images.

    Attributes:
        mean: per channel, in [0, 1]: the color of an image whose parameters are all zero.
        matrix: square, `matrix[channel][component]`: a square root of the covariance of the channels. Used divided
            by its largest column norm, as Lucid does.
    """

    mean: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if not self.matrix or any(len(row) != len(self.mean) for row in (self.matrix, *self.matrix)):
            raise VisualizationError(f"colors of {len(self.mean)} channels need a square matrix of that size")
        if not all(0 <= value <= 1 for value in self.mean):
            raise VisualizationError(f"the mean color lies in [0, 1]; got {self.mean}")
        largest = float(torch.tensor(self.matrix, dtype=torch.float32).norm(dim=0).max())
        if not (math.isfinite(largest) and largest > 0):
            raise VisualizationError("the color matrix holds only zeros, or a number that is not finite")

    @property
    def normalized(self) -> Tensor:
        """The matrix `(C, C)` divided by its largest column norm."""
        matrix = torch.tensor(self.matrix, dtype=torch.float64)
        return torch.div(matrix, matrix.norm(dim=0).max()).float()


# Lucid's square root of ImageNet's color covariance. Its mean color is left out, as Lucid does before a sigmoid.
NATURAL = Colors((0.5, 0.5, 0.5), ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03)))


def measure_colors(images: Source, input: InputSpec, *, limit: int = 500) -> Colors:
    """Mean and covariance root of the channels of images.

    Args:
        images: anything `open_images` takes.
        input: size and channels to read them at.
        limit: at most so many images, sampled at random.

    Raises:
        ImageError: no images, or unreadable ones.
        VisualizationError: images of one color only.

    >>> Fourier(colors=measure_colors("scenes:100", model.input))  # doctest: +SKIP
    """
    total, square, count = torch.zeros(input.channels).double(), torch.zeros(()).double(), 0
    for _, batch in open_images(images, limit=limit).batches(input):
        pixels = batch.double().transpose(0, 1).flatten(1)
        total, square, count = total + pixels.sum(1), square + pixels @ pixels.T, count + pixels.shape[1]
    mean = total / count
    covariance = square / count - mean.outer(mean)
    if float(covariance.diagonal().max()) < 1e-12:
        raise VisualizationError("the images are all of one color: there is no covariance to measure")
    values, vectors = torch.linalg.eigh(covariance)
    vectors = vectors * torch.where(vectors.sum(0) < 0, -1.0, 1.0)  # eigenvectors have no sign of their own
    root = (vectors * values.clamp_min(0).sqrt()).flip(1)  # the largest first
    root = root / root.norm(dim=0).max()
    return Colors(tuple(mean.clamp(0, 1).tolist()), tuple(tuple(row) for row in root.tolist()))


def measure_spectrum(images: Source, input: InputSpec, *, limit: int = 500) -> Tensor:
    """Mean magnitude `(C, H, W // 2 + 1)` of rfft2 (orthonormal) over images; arguments as `measure_colors`'.

    >>> Maco(measure_spectrum("scenes:100", model.input))  # doctest: +SKIP
    """
    source = open_images(images, limit=limit)
    total = torch.zeros((), dtype=torch.float32)
    for _, batch in source.batches(input):
        total = total + torch.fft.rfft2(batch, norm="ortho").abs().sum(0)
    return total / len(source)
