"""Rendered images whose every property is known: axes of what varies, and a function that renders when needed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.errors import CircuitsError, did_you_mean, shorten
from zoo.common.checks import one_of, whole_number
from zoo.inputs import InputSpec

Pair = tuple[float, float]
Ink = NDArray[np.float64]


class StimuliError(CircuitsError):
    """Stimuli that cannot be rendered: an option out of range, or a model that does not fit."""


@dataclass(frozen=True)
class Axis:
    """One property that varies from stimulus to stimulus.

    Attributes:
        name: orientation, radius, frequency, ...
        values: its values, in order; numbers (a radius may be infinite: straight) or strings.
        unit: of numbers: degrees, pixels, cycles per pixel, ...
        period: of angles, 360 or 180 degrees; None for what is no angle.
        average: whether the values are random samples of the same stimulus, to be averaged over.
    """

    name: str
    values: tuple[Any, ...]
    unit: str = ""
    period: float | None = None
    average: bool = False

    def __len__(self) -> int:
        return len(self.values)

    @property
    def is_full_circle(self) -> bool:
        """Whether the values are angles at even steps all the way round, as circular statistics need them."""
        if self.period is None or len(self.values) < 3:
            return False
        step = self.period / len(self.values)
        return all(math.isclose(v, self.values[0] + i * step, abs_tol=1e-6) for i, v in enumerate(self.values))

    def index(self, value: Any) -> int:
        """Index of `value`.

        Raises:
            StimuliError: it is none of the values.
        """
        for i, own in enumerate(self.values):
            if own == value or (
                isinstance(own, float) and isinstance(value, int | float) and math.isclose(own, value, rel_tol=1e-6)
            ):
                return i
        values = ", ".join(self.labels[:12])
        raise StimuliError(f"the axis {self.name} has no value {shorten(value)}; it has {values}")

    @property
    def labels(self) -> list[str]:
        """The values as strings."""
        return [v if isinstance(v, str) else "straight" if math.isinf(v) else f"{v:.4g}" for v in self.values]

    def describe(self) -> dict[str, Any]:
        """Ready for JSON; an infinite radius is the word "straight"."""
        values = [v if isinstance(v, str) or math.isfinite(v) else "straight" for v in self.values]
        return {"name": self.name, "unit": self.unit, "period": self.period, "values": values}


@dataclass(frozen=True, eq=False)
class Grid:
    """Coordinates of the pixels of an image, relative to the center of the stimulus.

    Attributes:
        x, y: `(H, W)` pixels to the right of and above its center; y grows upwards, so that angles are
            counter-clockwise.
        channels: of the image.
    """

    x: Ink
    y: Ink
    channels: int

    def along(self, degrees: float) -> tuple[Ink, Ink]:
        """Coordinates `(u, v)`: u in the direction `degrees`, counter-clockwise from the right, and v 90 degrees on."""
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        return c * self.x + s * self.y, c * self.y - s * self.x


Painter = Callable[[Mapping[str, Any], Grid], Ink]
"""From the values of a stimulus to its departure from gray, in [-1, 1]: `(H, W)`, or `(channels, H, W)` in color."""


def covered(distance: Ink) -> Ink:
    """Share of each pixel inside a shape whose signed distance is `distance` pixels (negative inside): smooth edges."""
    return np.clip(0.5 - distance, 0.0, 1.0)


def gray(spec: InputSpec) -> NDArray[np.float64]:
    """The model's own mean gray, `(channels,)` in [0, 1]: what its normalization takes to zero.

    Half gray where that leaves no room for contrast of both signs (below 0.1 or above 0.9), as for a model whose input
    is [0, 1] without normalization.
    """
    mean = np.broadcast_to(np.asarray(spec.mean, dtype=np.float64) / spec.scale, (spec.channels,)).copy()
    mean = mean[::-1].copy() if spec.order == "BGR" else mean
    return mean if bool(((mean >= 0.1) & (mean <= 0.9)).all()) else np.full(spec.channels, 0.5)


@dataclass(frozen=True, eq=False)
class Stimuli:
    """Rendered images along known axes, at any size and number of channels.

    Angles are in degrees counter-clockwise in the image, 0 pointing to the right. Every stimulus is centered on a point
    (by default the middle of the image) and rendered with smooth edges from exact distances, about the model's own mean
    gray (see `gray`) with the same contrast to either side.

    Attributes:
        name: of the kind.
        axes: what varies; the stimuli are all combinations, the last axis fastest.
        paint: renders one.
        contrast: in (0, 1]; 1 goes as far from gray as both signs allow.
        settings: what all have in common.

    >>> curves(orientations=8, radii=(10, 20)).tensor(InputSpec(size=64)).shape
    torch.Size([32, 3, 64, 64])
    """

    name: str
    axes: tuple[Axis, ...]
    paint: Painter
    contrast: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.contrast <= 1:
            raise StimuliError(f"contrast lies in (0, 1], not {shorten(self.contrast)}")
        names = [axis.name for axis in self.axes]
        if len(set(names)) < len(names) or not all(len(axis) for axis in self.axes):
            raise StimuliError(f"axes have different names and at least one value each; got {', '.join(names)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values of each axis."""
        return tuple(len(axis) for axis in self.axes)

    def __len__(self) -> int:
        return math.prod(self.shape)

    def __repr__(self) -> str:
        return f"Stimuli({self.name!r}, {' x '.join(f'{len(a)} {a.name}' for a in self.axes)})"

    def axis(self, name: str) -> Axis:
        """The axis called `name`.

        Raises:
            StimuliError: there is none.
        """
        return axis_of(self.axes, name, self.name)

    def values(self, index: int) -> dict[str, Any]:
        """Axis name -> value of one stimulus."""
        indices = np.unravel_index(index, self.shape)
        return {axis.name: axis.values[int(i)] for axis, i in zip(self.axes, indices, strict=True)}

    def only(self, **values: Any) -> Stimuli:
        """The same stimuli with some axes cut down to one value or a few: `only(radius=40, orientation=(0, 90))`.

        Raises:
            StimuliError: no such axis or value.
        """
        axes = {axis.name: axis for axis in self.axes}
        for name, value in values.items():
            axis = self.axis(name)
            chosen = value if isinstance(value, tuple | list) else (value,)
            axes[name] = replace(axis, values=tuple(axis.values[axis.index(v)] for v in chosen))
        return replace(self, axes=tuple(axes.values()))

    def tensor(
        self, spec: InputSpec | None = None, *, indices: Sequence[int] | None = None, center: Pair | None = None
    ) -> Tensor:
        """The stimuli as images, float32 `(N, channels, H, W)` in [0, 1]: what `capture` and `open_images` take.

        Args:
            spec: size, channels and mean gray (default: 224 pixels, RGB).
            indices: which, by default all in order.
            center: row and column, in pixels and fractions of pixels, of their center; by default the middle.

        Raises:
            StimuliError: an index out of range, or colors for a model without three channels.
        """
        spec = InputSpec() if spec is None else spec
        chosen = range(len(self)) if indices is None else [int(i) for i in indices]
        if any(not 0 <= i < len(self) for i in chosen):
            raise StimuliError(f"{self.name} has {len(self)} stimuli, 0 to {len(self) - 1}")
        height, width = spec.hw
        y0, x0 = ((height - 1) / 2, (width - 1) / 2) if center is None else center
        rows, columns = np.meshgrid(np.arange(height, dtype=float), np.arange(width, dtype=float), indexing="ij")
        grid = Grid(np.asarray(columns - x0), np.asarray(y0 - rows), spec.channels)
        middle = gray(spec)
        room = self.contrast * np.minimum(middle, 1 - middle)
        out = np.empty((len(chosen), *spec.shape), dtype=np.float32)
        for row, i in enumerate(chosen):
            ink = self.paint(self.values(i), grid)
            ink = ink[None] if ink.ndim == 2 else ink
            if ink.shape[0] not in (1, spec.channels):
                raise StimuliError(f"{self.name} has {ink.shape[0]} channels; the model takes {spec.channels}")
            out[row] = middle[:, None, None] + room[:, None, None] * ink
        # 0.5 +- 0.5 may miss [0, 1] by a rounding
        return torch.from_numpy(np.clip(out, 0.0, 1.0))

    def describe(self) -> dict[str, Any]:
        """Ready for JSON: name, axes, contrast and settings."""
        return {
            "name": self.name,
            "axes": [axis.describe() for axis in self.axes],
            "contrast": self.contrast,
            "settings": dict(self.settings),
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the description: which stimuli these are."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()


def axis_of(axes: Sequence[Axis], name: str, owner: str) -> Axis:
    """The axis called `name` among `axes` of `owner`.

    Raises:
        StimuliError: there is none.
    """
    for axis in axes:
        if axis.name == name:
            return axis
    names = [axis.name for axis in axes]
    raise StimuliError(f"{owner} has no axis {shorten(name)!r}.{did_you_mean(name, names)} It has {', '.join(names)}")


def angles(values: int | Sequence[float], period: float, name: str = "orientation") -> Axis:
    """An axis of angles: a number of even steps over the period, or the angles themselves."""
    if isinstance(values, int):
        count = whole_number(f"{name}s", values, error=StimuliError)
        return Axis(name, tuple(i * period / count for i in range(count)), "degrees", period)
    return Axis(name, numbers(values, name, low=None), "degrees", period)


def numbers(
    values: Iterable[float],
    name: str,
    *,
    low: float | None = 0.0,
    high: float = math.inf,
    closed: bool = False,
    infinite: bool = False,
) -> tuple[float, ...]:
    """Values as floats, checked: above `low` (or at it, where `closed`), at most `high`, finite unless `infinite`."""
    try:
        result = tuple(float(v) for v in values)
    except (TypeError, ValueError) as error:
        raise StimuliError(f"{name}: a list of numbers, not {shorten(values)}") from error
    for v in result:
        under = low is not None and (v < low or (v == low and not closed))
        if math.isnan(v) or (math.isinf(v) and not infinite) or under or v > high:
            below = "" if math.isinf(high) else f" and at most {high:g}"
            above = "finite" if low is None else f"{'at least' if closed else 'above'} {low:g}{below}"
            raise StimuliError(f"{name} must be {above}, not {v:g}")
    if not result or len(set(result)) < len(result):
        raise StimuliError(f"{name}: at least one value, none twice")
    return result


def choices(values: Sequence[str] | str, known: Sequence[str], name: str) -> tuple[str, ...]:
    """One string or several, each among `known`."""
    result = (values,) if isinstance(values, str) else tuple(values)
    for v in result:
        one_of(name, v, known, error=StimuliError)
    if not result or len(set(result)) < len(result):
        raise StimuliError(f"{name}: at least one of {', '.join(known)}, none twice")
    return result
