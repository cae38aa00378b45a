"""What is optimized: Fourier coefficients, pixels, a small network, or phases; one file each.

A batch of images is one `Parametrization`, an `nn.Module` whose parameters all have the image as their first
dimension. An image depends on its own seed alone: on the CPU it has the same bits whatever batch it is in.
"""

from circuits.visualization.parametrizations.base import (
    Device as Device,
    Factory as Factory,
    Parametrization as Parametrization,
    Size as Size,
    frequencies as frequencies,
    generator as generator,
)
from circuits.visualization.parametrizations.color_statistics import (
    NATURAL as NATURAL,
    Colors as Colors,
    measure_colors as measure_colors,
    measure_spectrum as measure_spectrum,
)
from circuits.visualization.parametrizations.cppn import Cppn as Cppn
from circuits.visualization.parametrizations.fourier import Fourier as Fourier, Photograph as Photograph
from circuits.visualization.parametrizations.maco import Maco as Maco
from circuits.visualization.parametrizations.pixels import Pixels as Pixels
