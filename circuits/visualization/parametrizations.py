"""What a picture is while it is optimized: Fourier coefficients, pixels, a small network, or phases.

A batch of pictures is one `Parametrization`, an `nn.Module` whose parameters all have the picture as their first
dimension. A picture depends on its own seed alone: on the CPU it has the same bits whatever batch it is in.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits.errors import VisualizationError
from circuits.visualization.color_statistics import NATURAL, Colors, measure_colors, measure_spectrum

__all__ = [
    "NATURAL",
    "Colors",
    "Cppn",
    "Factory",
    "Fourier",
    "Maco",
    "Parametrization",
    "Photograph",
    "Pixels",
    "measure_colors",
    "measure_spectrum",
]

Device: TypeAlias = torch.device | str
Size: TypeAlias = tuple[int, int]

_SPECTRUM_SHARE = 4.0  # Lucid divides what comes out of the inverse FFT by 4; its step sizes suit that


def generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator of its own for each seed and purpose, so that no two uses share their numbers."""
    digest = hashlib.blake2b(f"{purpose}:{int(seed)}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))  # mt19937 takes 32 bits


def one_by_one(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """`function` of a batch: at once on an accelerator, picture by picture on the CPU.

    PyTorch's vector loops end in scalar ones, whose exp and atan differ in the last bit: in a batch the ends fall on
    other pixels than they do alone. Rows are copied, as MKL's sums depend on where in memory a matrix starts.
    """
    if tensors[0].device.type != "cpu":
        return function(*tensors)
    rows = zip(*(torch.split(tensor, 1) for tensor in tensors), strict=True)
    return torch.cat([function(*(one.clone() for one in row)) for row in rows])


class Parametrization(nn.Module, ABC):
    """A batch of pictures held as the parameters of an optimization.

    Every parameter has the picture as its first dimension, and nothing else depends on how many there are: so Adam on
    the batch equals Adam on each alone, and rows can be taken out.

    Attributes:
        size: H, W.
        channels: C, without the opacity.
        alpha: whether `forward` gives one more channel, the opacity.
        rate: the step size of Adam that suits it.
    """

    rate: ClassVar[float] = 0.1  # of 0.05, 0.1, 0.2 on six units of `scenes`: 0.05 (Lucid's) leaves two silent

    def __init__(self, size: Size, channels: int, alpha: bool) -> None:
        super().__init__()
        self.size, self.channels, self.alpha = (int(size[0]), int(size[1])), channels, alpha

    @abstractmethod
    def forward(self) -> Tensor:
        """The pictures `(N, C [+1], H, W)`, float32 in [0, 1], differentiable."""


class _Colored(Parametrization):
    """Pictures made of decorrelated logits."""

    offset: Tensor
    matrix: Tensor | None

    def __init__(self, size: Size, channels: int, colors: Colors | None, alpha: bool) -> None:
        super().__init__(size, channels, alpha)
        offset = torch.zeros(channels) if colors is None else torch.tensor(colors.mean).logit(1e-2)
        offset = F.pad(offset, (0, int(alpha))).view(-1, 1, 1)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("matrix", None if colors is None else colors.normalized, persistent=False)

    @abstractmethod
    def raw(self) -> Tensor:
        """Decorrelated logits `(N, C [+1], H, W)`."""

    def forward(self) -> Tensor:
        raw = self.raw()
        if self.matrix is not None:
            mixed = (self.matrix @ raw[:, : self.channels].flatten(2)).reshape(len(raw), -1, *self.size)
            raw = torch.cat([mixed, raw[:, self.channels :]], 1) if self.alpha else mixed
        return one_by_one(torch.sigmoid, raw + self.offset)


class Factory(Protocol):
    """Makes a parametrization; what `visualize(..., params=...)` takes."""

    def __call__(self, seeds: Sequence[int], size: Size, channels: int = 3, device: Device = "cpu") -> Parametrization:
        """One picture per seed, each of `channels` and of `size` H, W."""


def _check(seeds: Sequence[int], size: Size, channels: int, colors: Colors | None) -> Colors | None:
    """The colors to use: those given, natural ones for three channels, else none."""
    if len(seeds) == 0:
        raise VisualizationError("no seeds: give one seed per picture, such as seeds=[0]")
    if len(size) != 2 or min(size) < 1:
        raise VisualizationError(f"a picture is at least 1 x 1 pixels; got size {tuple(size)}")
    if channels < 1:
        raise VisualizationError(f"a picture has at least one channel, not {channels}")
    if colors is None:
        return NATURAL if channels == 3 else None
    if len(colors.mean) != channels:
        raise VisualizationError(
            f"the colors are of {len(colors.mean)} channels, the pictures have {channels}: "
            "measure them with measure_colors(images, model.input)"
        )
    return colors


def _check_sd(sd: float) -> None:
    if not 0 <= sd < math.inf:
        raise VisualizationError(f"the standard deviation of the start is 0 or more; got {sd}")


def _normal(seeds: Sequence[int], purpose: str, *shape: int) -> Tensor:
    return torch.stack([torch.randn(shape, generator=generator(seed, purpose)) for seed in seeds])


def _frequency(size: Size) -> Tensor:
    """`(H, W // 2 + 1)`: cycles per pixel of the coefficients of rfft2, at least 1 / the longer side."""
    fy, fx = torch.fft.fftfreq(size[0], dtype=torch.float64), torch.fft.rfftfreq(size[1], dtype=torch.float64)
    return torch.hypot(fy[:, None], fx[None, :]).clamp_min(1 / max(size))


class _FourierPictures(_Colored):
    scale: Tensor

    def __init__(self, start: Tensor, size: Size, channels: int, colors: Colors | None, alpha: bool, decay: float):
        super().__init__(size, channels, colors, alpha)
        self.spectrum = nn.Parameter(start)  # (N, C [+1], H, W // 2 + 1, 2)
        # Lucid multiplies by sqrt(H W) and its inverse FFT divides by H W: together the orthonormal one.
        scale = torch.div(_frequency(size) ** -decay, _SPECTRUM_SHARE).float()
        self.register_buffer("scale", scale[..., None], persistent=False)

    def raw(self) -> Tensor:
        spectrum = torch.view_as_complex(self.spectrum * self.scale)
        return torch.fft.irfft2(spectrum, s=self.size, norm="ortho")  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Fourier:
    """Real Fourier coefficients divided by their frequency, colors decorrelated: Lucid's default.

    Attributes:
        sd: of the normal numbers that the coefficients start from.
        decay: coefficients count by 1 / frequency ** decay; 1 is that of natural pictures.
        colors: of the pictures; default natural ones for three channels, independent channels otherwise.
        alpha: also an opacity, starting at one half.

    From Olah, Mordvintsev and Schubert, "Feature Visualization", Distill 2017.

    >>> Fourier()(seeds=[0, 1], size=(64, 64))().shape
    torch.Size([2, 3, 64, 64])
    """

    sd: float = 0.01
    decay: float = 1.0
    colors: Colors | None = None
    alpha: bool = False

    def __call__(self, seeds: Sequence[int], size: Size, channels: int = 3, device: Device = "cpu") -> Parametrization:
        _check_sd(self.sd)
        colors = _check(seeds, size, channels, self.colors)
        start = self.sd * _normal(seeds, "fourier", channels + self.alpha, size[0], size[1] // 2 + 1, 2)
        return _FourierPictures(start, size, channels, colors, self.alpha, self.decay).to(device)


class _PixelPictures(_Colored):
    def __init__(self, start: Tensor, size: Size, channels: int, colors: Colors | None, alpha: bool) -> None:
        super().__init__(size, channels, colors, alpha)
        self.pixels = nn.Parameter(start)

    def raw(self) -> Tensor:
        return self.pixels


@dataclass(frozen=True)
class Pixels:
    """Plain pixels, as decorrelated logits: what a picture without a prior looks like. Attributes as `Fourier`'s."""

    sd: float = 0.01
    colors: Colors | None = None
    alpha: bool = False

    def __call__(self, seeds: Sequence[int], size: Size, channels: int = 3, device: Device = "cpu") -> Parametrization:
        _check_sd(self.sd)
        colors = _check(seeds, size, channels, self.colors)
        start = self.sd * _normal(seeds, "pixels", channels + self.alpha, *size)
        return _PixelPictures(start, size, channels, colors, self.alpha).to(device)


class CppnPictures(Parametrization):
    """Networks from a place to its color; `render` draws them at any size."""

    rate = 0.005

    def __init__(self, start: Sequence[tuple[Tensor, Tensor]], size: Size, channels: int, alpha: bool) -> None:
        super().__init__(size, channels, alpha)
        self.weights = nn.ParameterList([nn.Parameter(weight) for weight, _ in start])  # each (N, out, in)
        self.biases = nn.ParameterList([nn.Parameter(bias) for _, bias in start])  # each (N, out, 1)

    def forward(self) -> Tensor:
        return self.render(self.size)

    def render(self, size: Size) -> Tensor:
        """The same pictures `(N, C [+1], H, W)` at another size."""
        # The longer side spans -sqrt(3) to sqrt(3): coordinates of unit variance.
        steps = [(2 * torch.arange(n, device=self.weights[0].device) + 1 - n) * (3**0.5 / max(size)) for n in size]
        grid = torch.stack([*reversed(torch.meshgrid(*steps, indexing="ij"))]).flatten(1)  # (2, H * W): x, y

        def drawn(*layers: Tensor) -> Tensor:
            hidden = grid.expand(len(layers[0]), -1, -1)
            pairs = list(zip(layers[::2], layers[1::2], strict=True))
            for weight, bias in pairs[:-1]:
                angle = torch.atan(torch.baddbmm(bias, weight, hidden))
                hidden = torch.cat([angle / 0.67, angle * angle / 0.6], 1)  # each of about unit variance
            return torch.baddbmm(pairs[-1][1], pairs[-1][0], hidden).sigmoid()

        layers = [layer for pair in zip(self.weights, self.biases, strict=True) for layer in pair]
        return one_by_one(drawn, *layers).reshape(len(layers[0]), -1, *size)


@dataclass(frozen=True)
class Cppn:
    """A compositional pattern-producing network per picture: smooth, and drawn at any size.

    Attributes:
        width: units of a hidden layer; each gives two values, of atan(x) and of its square, as Lucid's do.
        layers: hidden layers.
        alpha: also an opacity.

    From Mordvintsev et al., "Differentiable Image Parameterizations", Distill 2018.
    """

    width: int = 24
    layers: int = 8
    alpha: bool = False

    def __call__(self, seeds: Sequence[int], size: Size, channels: int = 3, device: Device = "cpu") -> CppnPictures:
        _check(seeds, size, channels, None)
        if self.width < 1 or self.layers < 1:
            raise VisualizationError(f"a network has width and layers of 1 or more; got {self.width}, {self.layers}")
        inputs = [2] + [2 * self.width] * self.layers
        outputs = [self.width] * self.layers + [channels + self.alpha]
        # Lucid's last layer starts at zero, all pictures alike and no gradient below it: here at a tenth.
        gains = [1.0] * self.layers + [0.1]
        start = [
            (
                _normal(seeds, f"cppn weight {i}", outputs[i], inputs[i]) * gains[i] / inputs[i] ** 0.5,
                _normal(seeds, f"cppn bias {i}", outputs[i], 1) * 0.1,
            )
            for i in range(self.layers + 1)
        ]
        return CppnPictures(start, size, channels, self.alpha).to(device)


class _MacoPictures(_Colored):
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
            `(1, ...)`; taken to the size asked for. Default: 1 / frequency.
        colors: as `Fourier`'s.

    Before the colors a picture has mean 0 and variance 1. From Fel et al., "Unlocking Feature Visualization for
    Deeper Networks with MAgnitude Constrained Optimization", NeurIPS 2023.
    """

    spectrum: Tensor | None = None
    colors: Colors | None = None

    def __call__(self, seeds: Sequence[int], size: Size, channels: int = 3, device: Device = "cpu") -> Parametrization:
        colors = _check(seeds, size, channels, self.colors)
        shape = (channels, size[0], size[1] // 2 + 1)
        magnitude = _frequency(size).reciprocal() if self.spectrum is None else self._resized(size, channels)
        magnitude = magnitude.expand(shape).clone()
        magnitude = torch.where(_paired(size), (magnitude + _opposite(magnitude)) / 2, magnitude)
        magnitude[:, 0, 0] = 0  # no mean
        energy = (magnitude.square() * torch.where(_paired(size), 1, 2)).sum() / (channels * size[0] * size[1])
        magnitude = (magnitude / energy.sqrt().clamp_min(1e-12)).float()  # Parseval: variance 1
        start = torch.stack([torch.rand(shape, generator=generator(seed, "maco")) for seed in seeds]) * (2 * math.pi)
        return _MacoPictures(start, magnitude, size, channels, colors).to(device)

    def _resized(self, size: Size, channels: int) -> Tensor:
        """The spectrum at the frequencies (cycles per pixel) of a picture of `size`: `(C or 1, H, W // 2 + 1)`."""
        assert self.spectrum is not None
        spectrum = self.spectrum.detach().cpu().double()
        if spectrum.ndim != 3 or spectrum.shape[0] not in (1, channels) or spectrum.numel() == 0:
            raise VisualizationError(
                f"a spectrum for pictures of {channels} channels is ({channels}, H, W // 2 + 1), as measure_spectrum "
                f"gives it; got {tuple(spectrum.shape)}"
            )
        if not bool((spectrum.isfinite() & (spectrum >= 0)).all()):
            raise VisualizationError("the magnitudes of a spectrum are finite and not negative")
        rows, columns = spectrum.shape[1:]
        if (rows, columns) == (size[0], size[1] // 2 + 1):
            return spectrum
        spectrum = spectrum.clone()
        spectrum[:, 0, 0] = (spectrum[:, 1 % rows, 0] + spectrum[:, 0, 1 % columns]) / 2  # the mean is no neighbor's
        y = torch.fft.fftfreq(size[0]).double() * rows + rows // 2
        x = torch.fft.rfftfreq(size[1]).double() * max(2 * (columns - 1), 1)
        places = [2 * at / max(n - 1, 1) - 1 for at, n in ((x, columns), (y, rows))]
        grid = torch.stack(torch.meshgrid(*places, indexing="xy"), -1)[None]
        shifted = torch.fft.fftshift(spectrum, dim=1)[None]
        return F.grid_sample(shifted, grid, padding_mode="border", align_corners=True)[0]


@dataclass(frozen=True, eq=False)
class Photograph:
    """Fourier coefficients that start from given pictures (feature accentuation).

    Attributes:
        pictures: `(N, C, H, W)` in [0, 1], one per seed, or one for all; kept within [0.01, 0.99], and resized if of
            another size than the one asked for.
        decay, colors: as `Fourier`'s; the color matrix must have an inverse.

    From Hamblin et al., "Feature Accentuation: Revealing 'What' Features Respond to in Natural Images", 2024.
    """

    pictures: Tensor
    decay: float = 1.0
    colors: Colors | None = None

    def __call__(self, seeds: Sequence[int], size: Size, channels: int = 3, device: Device = "cpu") -> Parametrization:
        colors = _check(seeds, size, channels, self.colors)
        shape = tuple(self.pictures.shape)
        if len(shape) != 4 or shape[0] not in (1, len(seeds)) or shape[1] != channels or 0 in shape:
            raise VisualizationError(
                f"photographs for {len(seeds)} seeds are ({len(seeds)}, {channels}, H, W) or (1, {channels}, H, W); "
                f"got {shape}"
            )
        low, high = float(self.pictures.min()), float(self.pictures.max())
        if not (low >= -1e-4 and high <= 1 + 1e-4):
            raise VisualizationError(f"photographs lie in [0, 1]; these span {low:g} to {high:g}")
        pictures = self.pictures.detach().cpu().double()
        if shape[2:] != tuple(size):
            pictures = F.interpolate(pictures, tuple(size), mode="bilinear", antialias=True)
        made = _FourierPictures(torch.empty(0), size, channels, colors, False, self.decay)
        logits = pictures.clamp(0.01, 0.99).logit() - made.offset.double()
        if made.matrix is not None:
            matrix = made.matrix.double()
            if float(torch.linalg.cond(matrix)) > 1e5:
                raise VisualizationError("these colors do not span all of them: give a color matrix with an inverse")
            logits = torch.linalg.solve(matrix, logits.flatten(2)).view_as(logits)
        spectrum = torch.fft.rfft2(logits, norm="ortho") / made.scale[..., 0].double()
        start = torch.view_as_real(spectrum).float()
        made.spectrum = nn.Parameter(start.expand(len(seeds), *start.shape[1:]).clone())
        return made.to(device)
