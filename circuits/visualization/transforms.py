"""Random transforms of an image before it is given to the network, so that an optimum is robust to small changes.

A `Pipeline` composes all transforms that move pixels into one affine map per image and samples once. The random numbers
of each image are those of its own seed, whatever batch it is in.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.errors import VisualizationError, shorten
from circuits.visualization.parametrizations import Device, Size, generator

__all__ = [
    "ColorNoise",
    "Crop",
    "Jitter",
    "Noise",
    "Pad",
    "Pipeline",
    "Rotate",
    "Scale",
    "Transform",
    "standard",
]

BLOCK = 256
"""Calls whose random numbers are generated at once."""

Function: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Transform:
    """Base of all transforms of this module."""


@dataclass(frozen=True)
class Pad(Transform):
    """Color around the image, which other transforms then move into view.

    The network's view stays as large as the image: alone, this changes nothing. `Crop` after it samples its windows
    from the image with its border, so `Pad(12), Crop(1, 1)` gives the whole of both.

    Attributes:
        pixels: width of the border; outside of it lies the same color.
        value: in [0, 1], of all channels; 0.5 also without a `Pad`.
    """

    pixels: int
    value: float = 0.5

    def __post_init__(self) -> None:
        _not_negative(self, self.pixels)
        if not 0 <= self.value <= 1:
            raise VisualizationError(f"{self}: the value lies in [0, 1]")


@dataclass(frozen=True)
class Geometric(Transform, ABC):
    """A transform that moves pixels."""

    @property
    def numbers(self) -> int:
        """How many random numbers it takes."""
        return 1

    @abstractmethod
    def affine(self, u: Tensor, canvas: Size, view: Size) -> Tensor:
        """`(S, 3, 3)`, float64: positions in its output to positions in its input, x, y in pixels from the center.

        Args:
            u: random numbers `(S, numbers)` in [0, 1).
            canvas: H, W of its input, border included.
            view: H, W of its output, those of the image.
        """


@dataclass(frozen=True)
class Jitter(Geometric):
    """Shift by whole pixels, from `-(pixels // 2)` to `pixels - pixels // 2` each way, all equally likely."""

    pixels: int

    def __post_init__(self) -> None:
        _not_negative(self, self.pixels)
        if self.pixels != int(self.pixels):
            raise VisualizationError(f"{self}: pixels must be a whole number")

    @property
    def numbers(self) -> int:
        return 2

    def affine(self, u: Tensor, canvas: Size, view: Size) -> Tensor:
        return _affine(shift=(u * (self.pixels + 1)).floor() - self.pixels // 2)


@dataclass(frozen=True)
class Scale(Geometric):
    """Enlarge about the center: `Scale(0.9, 1.1)` by anything between, `Scale((0.9, 1.0, 1.1))` by one of the list."""

    low: float | Sequence[float]
    high: float | None = None

    def __post_init__(self) -> None:
        values = _values(self, self.low) + (() if self.high is None else (self.high,))
        if not all(0 < v < math.inf for v in values):
            raise VisualizationError(f"{self}: scales are above 0")
        if self.high is not None and (isinstance(self.low, Sequence) or self.low > self.high):
            raise VisualizationError(f"{self}: give low <= high, or one list of scales")

    def affine(self, u: Tensor, canvas: Size, view: Size) -> Tensor:
        return _affine(scale=1 / _choices(u[:, 0], self.low, self.high))


@dataclass(frozen=True)
class Rotate(Geometric):
    """Turn about the center, counterclockwise: by up to ± `degrees`, or by one of a list of degrees."""

    degrees: float | Sequence[float]

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) for v in _values(self, self.degrees)):
            raise VisualizationError(f"{self}: degrees are finite")
        if not isinstance(self.degrees, Sequence):
            _not_negative(self, self.degrees)

    def affine(self, u: Tensor, canvas: Size, view: Size) -> Tensor:
        within = self.degrees if isinstance(self.degrees, Sequence) else -self.degrees
        return _affine(angle=_choices(u[:, 0], within, None if isinstance(within, Sequence) else -within).deg2rad())


@dataclass(frozen=True)
class Crop(Geometric):
    """A random window, of a share of the sides between `low` and `high`, enlarged to the whole view (as MaCo does)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high <= 1:
            raise VisualizationError(f"{self}: shares of the side with 0 < low <= high <= 1")

    @property
    def numbers(self) -> int:
        return 3

    def affine(self, u: Tensor, canvas: Size, view: Size) -> Tensor:
        share = _choices(u[:, 0], self.low, self.high)
        sides, window = (torch.tensor(size[::-1], dtype=u.dtype) for size in (canvas, view))
        return _affine(scale=share[:, None] * sides / window, shift=(u[:, 1:] - 0.5) * (1 - share)[:, None] * sides)


@dataclass(frozen=True)
class ColorNoise(Transform):
    """Each channel of each image times `1 ± gain`, plus `± offset`, uniform."""

    gain: float = 0.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        _not_negative(self, self.gain, self.offset)


@dataclass(frozen=True)
class Noise(Transform):
    """Normal noise of this standard deviation, pixel by pixel; generated on the CPU, so slower than the others."""

    sd: float

    def __post_init__(self) -> None:
        _not_negative(self, self.sd)


def standard(size: int | Size, input_size: int | Size = 224) -> tuple[Transform, ...]:
    """Lucid's default: pad 12, jitter 8, scale by 0.9 to 1.1, rotate by up to 10 degrees, jitter 4.

    For a network of images below 128 pixels it is the pad and the jitters alone. Scaling and rotation resample an
    image between its pixels, which blurs what is a pixel or two wide. Large networks see little that is so small; small
    ones do, and their units then respond less to the blurred image, so that the optimum is not theirs.

    Args:
        size: of the images; below 128 pixels all amounts in pixels are smaller in proportion.
        input_size: of the network's own images.
    """
    side = size if isinstance(size, int) else min(size)
    if side < 1:
        raise VisualizationError(f"an image is at least 1 x 1 pixels; got size {size}")
    pad, first, last = (max(1, round(amount * min(1.0, side / 128))) for amount in (12, 8, 4))
    if (input_size if isinstance(input_size, int) else min(input_size)) < 128:
        return Pad(pad), Jitter(first), Jitter(last)
    scales = tuple(1 + (i - 5) / 50 for i in range(11))
    return Pad(pad), Jitter(first), Scale(scales), Rotate(tuple(float(d) for d in range(-10, 11))), Jitter(last)


class Pipeline:
    """Transforms of a batch of images, random anew at each call.

    Transforms of this module that follow each other are one run: first their geometry in one sampling (bilinear, the
    pad's color outside, gray if there is none), then their noise. Functions in between are called as they are, with
    whatever random numbers they use.

    Args:
        transforms: of this module, or functions of a tensor `(N, C, H, W)` such as Lucent's.
        out: H, W of the output; the image is resized to it.
        seeds: one per image.
        device: of the images.

    Raises:
        VisualizationError: something that is no transform, or runs with two pad colors.

    >>> Pipeline(standard(64), out=(64, 64), seeds=[0, 1])(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 3, 64, 64])
    """

    def __init__(
        self, transforms: Sequence[Transform | Function], *, out: Size, seeds: Sequence[int], device: Device = "cpu"
    ) -> None:
        if len(out) != 2 or min(out) < 1:
            raise VisualizationError(f"the output is at least 1 x 1 pixels; got out={tuple(out)}")
        self.out = (int(out[0]), int(out[1]))
        self.seeds = [int(seed) for seed in seeds]
        self._calls = 0
        self._parts: list[_Run | Function] = []
        run: list[Transform] = []
        for transform in transforms:
            if isinstance(transform, Transform):
                run.append(transform)
            elif callable(transform) and not isinstance(transform, type):
                self._parts += [_Run(run, len(self._parts), self.seeds, device), transform]
                run = []
            else:
                raise VisualizationError(
                    f"{shorten(transform)} is no transform: give a transform of circuits.visualization.transforms, "
                    "such as Jitter(8), or any function of a tensor"
                )
        self._parts.append(_Run(run, len(self._parts), self.seeds, device))

    def state(self) -> int:
        """How many calls were made; `skip` of a new pipeline takes it."""
        return self._calls

    def skip(self, calls: int) -> None:
        """Go on as if so many more calls had been made."""
        if calls < 0:
            raise VisualizationError(f"skip({calls}): only forwards")
        self._calls += calls

    def __call__(self, images: Tensor) -> Tensor:
        """Images `(N, C, H, W)` transformed, `(N, C, *out)`; differentiable.

        Raises:
            VisualizationError: not one image per seed, or a function among the transforms returned no tensor.
        """
        for part in self._parts:
            if images.ndim != 4 or len(images) != len(self.seeds):
                raise VisualizationError(
                    f"{len(self.seeds)} seeds need images ({len(self.seeds)}, C, H, W); got {tuple(images.shape)}"
                )
            if isinstance(part, _Run):
                images = part(images, self._calls, self.out if part is self._parts[-1] else None)
            else:
                images = part(images)
                if not isinstance(images, Tensor):
                    raise VisualizationError(f"{shorten(part)} gave a {type(images).__name__}, not a tensor")
        self._calls += 1
        return images


class _Run:
    """Transforms of this module that follow each other."""

    def __init__(self, transforms: Sequence[Transform], number: int, seeds: list[int], device: Device) -> None:
        self.moves = [t for t in transforms if isinstance(t, Pad | Geometric)]
        self.static = all(isinstance(t, Pad) for t in self.moves)
        self.whole_pixels = all(isinstance(t, Pad | Jitter) for t in self.moves)
        self.changes = [t for t in transforms if isinstance(t, ColorNoise | Noise)]
        values = {t.value for t in self.moves if isinstance(t, Pad)} or {0.5}
        if len(values) > 1:
            raise VisualizationError(f"all Pad transforms need the same value; got {sorted(values)}")
        self.value = values.pop()
        self.number, self.seeds, self.device = number, seeds, device
        self._maps: tuple[tuple[int, Size], Tensor] | None = None
        self._gains: tuple[tuple[int, int], Tensor] | None = None

    def __call__(self, images: Tensor, call: int, out: Size | None) -> Tensor:
        size = (images.shape[2], images.shape[3])
        out = size if out is None else out
        if not self.static:
            grid = sampling_grid(self._map(call, size), out).to(images.dtype)
            if (
                self.whole_pixels and out == size
            ):  # exact: no pixel lies between two, and none is rounded by taking gray away
                outside = (grid.abs().amax(3) > 1).unsqueeze(1).to(images.dtype)
                moved = F.grid_sample(images, grid, mode="nearest", align_corners=False)
                images = moved + self.value * outside
            else:
                images = F.grid_sample(images - self.value, grid, align_corners=False) + self.value
        elif out != size:
            images = F.interpolate(images, out, mode="bilinear", align_corners=False)
        return self._noised(images, call) if self.changes else images

    def _map(self, call: int, size: Size) -> Tensor:
        """`(N, 2, 3)`: normalized positions in the view to normalized positions in the image."""
        key = (call // BLOCK, size)
        if self._maps is None or self._maps[0] != key:
            maps = torch.stack([self._composed(seed, key[0], size) for seed in self.seeds], 1)
            self._maps = key, maps.float().to(self.device)
        return self._maps[1][call % BLOCK]

    def _composed(self, seed: int, block: int, size: Size) -> Tensor:
        """`(BLOCK, 2, 3)` for one image; one at a time, so that its bits do not depend on the others."""
        moves = [t for t in self.moves if isinstance(t, Geometric)]
        numbers = [t.numbers for t in moves]
        random = torch.rand(
            BLOCK, sum(numbers), generator=generator(seed, f"move {self.number} {block}"), dtype=torch.float32
        ).double()
        each = iter(torch.split(random, numbers, 1))
        half = torch.tensor([size[1] / 2, size[0] / 2, 1.0], dtype=torch.float64)
        total, canvas = torch.diag(1 / half), size
        for move in self.moves:
            if isinstance(move, Pad):
                canvas = (canvas[0] + 2 * move.pixels, canvas[1] + 2 * move.pixels)
            else:
                assert isinstance(move, Geometric)
                total = total @ move.affine(next(each), canvas, size)
                canvas = size if isinstance(move, Crop) else canvas
        return (total @ torch.diag(half))[:, :2]

    def _noised(self, images: Tensor, call: int) -> Tensor:
        channels = images.shape[1]
        key = (call // BLOCK, channels)
        if self._gains is None or self._gains[0] != key:
            shape, purpose = (BLOCK, len(self.changes), 2, channels, 1, 1), f"color {self.number} {key[0]}"
            random = torch.stack(
                [torch.rand(shape, generator=generator(seed, purpose), dtype=torch.float32) for seed in self.seeds], 1
            )
            self._gains = key, (2 * random - 1).to(self.device)
        u = self._gains[1][call % BLOCK].to(images.dtype)
        for i, change in enumerate(self.changes):
            if isinstance(change, ColorNoise):
                images = images * (1 + change.gain * u[:, i, 0]) + change.offset * u[:, i, 1]
            else:
                assert isinstance(change, Noise)
                generators = [generator(seed, f"noise {self.number} {i} {call}") for seed in self.seeds]
                noise = torch.stack(
                    [torch.randn(images.shape[1:], generator=g, dtype=torch.float32) for g in generators]
                )
                images = images + change.sd * noise.to(images)
        return images


def sampling_grid(maps: Tensor, out: Size) -> Tensor:
    """`(N, *out, 2)`: what F.affine_grid(align_corners=False) gives, as two broadcast sums (forty times cheaper)."""
    y, x = ((2 * torch.arange(n, device=maps.device, dtype=maps.dtype) + 1) / n - 1 for n in out)
    rows = maps[:, :, 1:2] * y + maps[:, :, 2:3]
    columns = maps[:, :, 0:1] * x
    return (rows[:, :, :, None] + columns[:, :, None, :]).permute(0, 2, 3, 1)


def _affine(*, scale: Tensor | None = None, angle: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """`(S, 3, 3)` of scales `(S,)` or `(S, 2)`, angles `(S,)` and shifts `(S, 2)`, x before y."""
    count = next(len(t) for t in (scale, angle, shift) if t is not None)
    maps = torch.eye(3, dtype=torch.float64).repeat(count, 1, 1)
    if angle is not None:
        maps[:, 0, 0], maps[:, 0, 1] = angle.cos(), -angle.sin()
        maps[:, 1, 0], maps[:, 1, 1] = angle.sin(), angle.cos()
    if scale is not None:
        maps[:, :2, :2] *= scale.view(len(scale), 1, -1)
    if shift is not None:
        maps[:, :2, 2] = shift
    return maps


def _choices(u: Tensor, low: float | Sequence[float], high: float | None) -> Tensor:
    """One of `low`, or a number between `low` and `high`, for each of `u` in [0, 1)."""
    if isinstance(low, Sequence):
        return torch.tensor(low, dtype=u.dtype)[(u * len(low)).long()]
    return low + u * ((low if high is None else high) - low)


def _values(transform: Transform, values: float | Sequence[float]) -> tuple[float, ...]:
    if not isinstance(values, Sequence):
        return (values,)
    if len(values) == 0:
        raise VisualizationError(f"{transform}: the list is empty")
    return tuple(values)


def _not_negative(transform: Transform, *amounts: float) -> None:
    if not all(0 <= amount < math.inf for amount in amounts):
        raise VisualizationError(f"{transform}: amounts must be 0 or more")
