"""What is optimized: Fourier coefficients, pixels, a small network, or phases; one file each.

A batch of images is one `Parametrization`, an `nn.Module` whose parameters all have the image as their first
dimension. An image depends on its own seed alone: on the CPU it has the same bits whatever batch it is in.
"""

from circuits.visualization.parametrizations.base import Device, Factory, Parametrization, Size, frequencies, generator
from circuits.visualization.parametrizations.color_statistics import (
    NATURAL,
    Colors,
    measure_colors,
    measure_spectrum,
)
from circuits.visualization.parametrizations.cppn import Cppn
from circuits.visualization.parametrizations.fourier import Fourier, Photograph
from circuits.visualization.parametrizations.maco import Maco
from circuits.visualization.parametrizations.pixels import Pixels

__all__ = [
    "NATURAL",
    "Colors",
    "Cppn",
    "Device",
    "Factory",
    "Fourier",
    "Maco",
    "Parametrization",
    "Photograph",
    "Pixels",
    "Size",
    "frequencies",
    "generator",
    "measure_colors",
    "measure_spectrum",
]
