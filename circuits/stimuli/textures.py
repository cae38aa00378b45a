"""Stimuli that fill the image: gratings, a fine texture next to a coarse one, one color next to another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from circuits.stimuli.base import Axis, Grid, Ink, Stimuli, StimuliError, angles, covered, numbers
from circuits.stimuli.hues import color
from zoo.common.checks import number, one_of, whole_number

FREQUENCIES = (1 / 32, 1 / 24, 1 / 16, 1 / 12, 1 / 8, 1 / 6, 1 / 4)
PAIRS = (
    "red-cyan", "orange-azure", "yellow-blue", "chartreuse-violet", "green-magenta", "spring-rose", "light-dark"
)  # fmt: skip
_WAVES = 24  # plane waves that make a texture: enough to be isotropic

Color = str | Sequence[float]


def gratings(
    orientations: int | Sequence[float] = 12,
    frequencies: Sequence[float] = FREQUENCIES,
    phases: int | Sequence[float] = 4,
    *,
    contrast: float = 1.0,
) -> Stimuli:
    """Sinusoidal gratings that fill the image.

    Args:
        orientations: how many over 180 degrees, or which: of the stripes, 0 horizontal, 90 vertical.
        frequencies: cycles per pixel, up to 0.5.
        phases: how many over 360 degrees, or which: 0 has a light stripe through the center.
        contrast: in (0, 1].

    >>> gratings(orientations=4, frequencies=(0.1,)).shape
    (4, 1, 4)
    """
    axes = (
        angles(orientations, 180),
        Axis("frequency", numbers(frequencies, "frequency", high=0.5), "cycles per pixel"),
        angles(phases, 360, "phase"),
    )

    def paint(values: Mapping[str, Any], grid: Grid) -> Ink:
        _, v = grid.along(values["orientation"])
        return np.asarray(np.cos(2 * math.pi * values["frequency"] * v + math.radians(values["phase"])))

    return Stimuli("gratings", axes, paint, contrast)


def high_low(
    orientations: int | Sequence[float] = 24,
    ratios: Sequence[float] = (1.0, 2.0, 4.0, 8.0),
    *,
    wavelength: float = 4.0,
    texture: Literal["waves", "grating"] = "waves",
    samples: int = 4,
    seed: int = 0,
    contrast: float = 1.0,
) -> Stimuli:
    """A fine texture next to a coarse one, with a straight boundary through the center.

    The orientation points from the boundary to the fine side. At ratio 1 both sides are equal: the control. Textures
    rotate with their stimulus, so that only the orientation changes.

    After Schubert et al., *High-Low Frequency Detectors*, Distill 2021.

    Args:
        orientations: how many over 360 degrees, or which.
        ratios: coarse over fine wavelength, at least 1.
        wavelength: of the fine side, in pixels, at least 2.
        texture: "waves" are isotropic sums of plane waves in random directions; "grating" is one wave,
            its stripes across the boundary.
        samples: random samples of each texture; responses to them are averaged.
        seed: of the samples.
        contrast: in (0, 1]; "waves" are clipped to it.
    """
    number("wavelength", wavelength, least=2, error=StimuliError)
    one_of("texture", texture, ("waves", "grating"), error=StimuliError)
    whole_number("samples", samples, error=StimuliError)
    whole_number("seed", seed, least=0, error=StimuliError)
    axes = (
        angles(orientations, 360),
        Axis("ratio", numbers(ratios, "ratio", low=1.0, closed=True), "times as coarse"),
        Axis("sample", tuple(float(i) for i in range(samples)), average=True),
    )

    def paint(values: Mapping[str, Any], grid: Grid) -> Ink:
        turn = values["orientation"]
        # random numbers depend on the sample alone, not on the orientation and ratio
        generator = np.random.default_rng([seed, int(values["sample"])])
        render = _waves if texture == "waves" else _stripes
        fine, coarse = (render(grid, turn, w, generator) for w in (wavelength, wavelength * values["ratio"]))
        side = covered(-grid.along(turn)[0])
        return np.clip(side * fine + (1 - side) * coarse, -1.0, 1.0)

    settings = {"wavelength": wavelength, "texture": texture, "seed": seed}
    return Stimuli("high-low", axes, paint, contrast, settings)


def color_contrast(
    orientations: int | Sequence[float] = 24,
    pairs: Sequence[str | tuple[Color, Color]] = PAIRS,
    *,
    contrast: float = 1.0,
) -> Stimuli:
    """Two colors side by side, with a straight boundary through the center.

    The orientation points to the side of the first color. Hues have the same mean over channels, so that a unit that
    is sensitive to brightness only does not respond; "light-dark" is the control that it responds to. "red-red" is
    plain red.

    Args:
        orientations: how many over 360 degrees, or which.
        pairs: names as in "red-cyan" (see `circuits.stimuli.HUES`; also light, gray, dark), or two colors as numbers
            in [-1, 1], one a channel, for models without three channels.
        contrast: in (0, 1].

    Raises:
        StimuliError: an unknown color; when rendered, a hue for a model without three channels.
    """
    both: dict[str, tuple[Color, Color]] = {}
    for pair in pairs:
        name, first, second = _pair(pair)
        if name in both:
            raise StimuliError(f"pairs: {name} is there twice")
        both[name] = (first, second)
    axes = (angles(orientations, 360), Axis("pair", tuple(both)))

    def paint(values: Mapping[str, Any], grid: Grid) -> Ink:
        first, second = (color(c, grid.channels)[:, None, None] for c in both[values["pair"]])
        u, _ = grid.along(values["orientation"])
        side = covered(-u)
        return np.asarray(first * side + second * (1 - side))

    return Stimuli("color contrast", axes, paint, contrast)


def _pair(pair: str | tuple[Color, Color]) -> tuple[str, Color, Color]:
    if isinstance(pair, str):
        first, dash, second = pair.partition("-")
        if not dash:
            raise StimuliError(f"a pair of colors is written red-cyan, not {pair!r}")
        for name in (first, second):
            color(name, 3)  # an unknown name is refused at once
        return pair, first, second
    try:
        a, b = pair
    except (TypeError, ValueError) as error:
        raise StimuliError(f"a pair of colors is two of them, not {pair!r}") from error
    return f"{_name(a)}-{_name(b)}", a, b


def _name(value: Color) -> str:
    return value if isinstance(value, str) else f"({', '.join(f'{v:g}' for v in value)})"


def _waves(grid: Grid, turn: float, wavelength: float, generator: np.random.Generator) -> Ink:
    """Plane waves of one wavelength in random directions, half the full contrast in root mean square."""
    directions, phases = generator.uniform(0, 2 * math.pi, (2, _WAVES))
    k, direction = 2 * math.pi / wavelength, directions + math.radians(turn)
    # a plane wave on a grid is a product of one along rows and one along columns: their sum is a matrix product
    down = np.exp(1j * (k * np.sin(direction) * grid.y[:, :1] + phases))
    across = np.exp(1j * k * np.cos(direction) * grid.x[:1].T)
    return np.asarray((down @ across.T).real * 0.5 / math.sqrt(_WAVES / 2))


def _stripes(grid: Grid, turn: float, wavelength: float, generator: np.random.Generator) -> Ink:
    _, v = grid.along(turn)
    return np.asarray(np.cos(2 * math.pi * v / wavelength + generator.uniform(0, 2 * math.pi)))
