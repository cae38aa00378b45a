"""Stimuli that are lines: straight ones, curves, corners on their way to curves, circles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from circuits.stimuli.base import Axis, Grid, Ink, Stimuli, StimuliError, angles, choices, covered, numbers
from circuits.stimuli.hues import hue
from zoo.common.checks import number, one_of

Polarity = Literal["light", "dark"]
BOTH: tuple[Polarity, ...] = ("light", "dark")
_SIGN = {"light": 1.0, "dark": -1.0}
_pixels = partial(number, error=StimuliError)
RADII = (6.0, 10.0, 16.0, 25.0, 40.0, 63.0, math.inf)


def lines(
    orientations: int | Sequence[float] = 18,
    widths: Sequence[float] = (3.0,),
    *,
    length: float | None = None,
    polarity: Sequence[Polarity] = BOTH,
    contrast: float = 1.0,
) -> Stimuli:
    """Straight lines through the center.

    Args:
        orientations: how many over 180 degrees, or which: 0 is a horizontal line, 90 a vertical one, 45 rises to the
            right.
        widths: in pixels, at least 1.
        length: in pixels; by default from edge to edge.
        polarity: light on gray, dark on gray, or both.
        contrast: in (0, 1].

    >>> lines(orientations=4).shape
    (4, 1, 2)
    """
    half = math.inf if length is None else _pixels("length", length, above=0) / 2
    axes = (
        angles(orientations, 180),
        Axis("width", numbers(widths, "width", low=1.0, closed=True), "pixels"),
        Axis("polarity", choices(polarity, BOTH, "polarity")),
    )

    def paint(values: Mapping[str, Any], grid: Grid) -> Ink:
        u, v = grid.along(values["orientation"])
        beyond = np.maximum(np.abs(u) - half, 0.0) if math.isfinite(half) else 0.0
        return _SIGN[values["polarity"]] * covered(np.hypot(v, beyond) - values["width"] / 2)

    return Stimuli("lines", axes, paint, contrast, {"length": length})


def curves(
    orientations: int | Sequence[float] = 24,
    radii: Sequence[float] = RADII,
    *,
    variant: Literal["outline", "filled", "colored"] = "outline",
    width: float = 3.0,
    arc: float = 180.0,
    hues: tuple[float, float] = (0.0, 180.0),
    polarity: Sequence[Polarity] = BOTH,
    contrast: float = 1.0,
) -> Stimuli:
    """Arcs of circles whose middle lies on the center.

    The orientation is the direction in which the curve opens, from its middle to the center of its circle: at 0 it
    looks like "(", at 90 like a smile, at 180 like ")", at 270 like a frown. With an infinite radius it is the straight
    line (or edge) that the curves of this orientation touch in their middle: a control that comes along by default.

    After Cammarata et al., *Curve Detectors*, Distill 2020.

    Args:
        orientations: how many over 360 degrees, or which.
        radii: in pixels; `math.inf` for a straight line.
        variant: "outline" is a line, "filled" a disc against gray, "colored" a disc against its surroundings, of
            the two hues (for models with three channels).
        width: of an outline, in pixels.
        arc: degrees of the circle that an outline covers.
        hues: inside and outside of "colored", in degrees: 0 red, 120 green, 240 blue.
        polarity: light, dark or both ("colored": the hues as given, swapped, or both).
        contrast: in (0, 1].

    >>> curves(orientations=36, radii=(20,)).axis("orientation").values[:3]
    (0.0, 10.0, 20.0)
    """
    one_of("variant", variant, ("outline", "filled", "colored"), error=StimuliError)
    number("arc", arc, above=0, most=360, error=StimuliError)
    _pixels("width", width, least=1)
    axes = (
        angles(orientations, 360),
        Axis("radius", numbers(radii, "radius", infinite=True), "pixels"),
        Axis("polarity", choices(polarity, BOTH, "polarity")),
    )
    inner, outer = (hue(h) for h in hues)

    def paint(values: Mapping[str, Any], grid: Grid) -> Ink:
        sign, radius = _SIGN[values["polarity"]], values["radius"]
        u, v = grid.along(values["orientation"])
        if variant == "outline":
            return sign * covered(_from_arc(u, v, radius, arc) - width / 2)
        inside = covered(-u if math.isinf(radius) else np.hypot(u - radius, v) - radius)
        if variant == "filled":
            return sign * inside
        within, around = (inner, outer) if sign > 0 else (outer, inner)
        return within[:, None, None] * inside + around[:, None, None] * (1 - inside)

    settings = {"variant": variant, "width": width, "arc": arc}
    return Stimuli("curves", axes, paint, contrast, settings | ({"hues": list(hues)} if variant == "colored" else {}))


def edges(
    orientations: int | Sequence[float] = 24, *, polarity: Sequence[Polarity] = ("light",), contrast: float = 1.0
) -> Stimuli:
    """Straight edges between gray and light (or dark): the orientation points to the lit side."""
    axes = (angles(orientations, 360), Axis("polarity", choices(polarity, BOTH, "polarity")))

    def paint(values: Mapping[str, Any], grid: Grid) -> Ink:
        u, _ = grid.along(values["orientation"])
        return _SIGN[values["polarity"]] * covered(-u)

    return Stimuli("edges", axes, paint, contrast)


def angle_to_curve(
    orientations: int | Sequence[float] = 24,
    morphs: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    *,
    turning: float = 90.0,
    radius: float = 30.0,
    width: float = 3.0,
    polarity: Sequence[Polarity] = BOTH,
    contrast: float = 1.0,
) -> Stimuli:
    """Corners that are rounded step by step: at morph 0 a sharp angle, at 1 an arc of the full radius.

    Both arms go on straight, and all of them turn by the same angle. The orientation is the direction in which the
    corner opens, as for `curves`.

    Args:
        orientations: how many over 360 degrees, or which.
        morphs: shares of `radius`, from 0 to 1.
        turning: degrees between the directions of the arms, above 0 and below 180.
        radius: at morph 1, in pixels.
        width: of the line, in pixels.
        polarity: light, dark or both.
        contrast: in (0, 1].
    """
    if not 0 < turning < 180:
        raise StimuliError(f"turning lies between 0 and 180 degrees, not {turning}")
    _pixels("radius", radius, above=0)
    _pixels("width", width, least=1)
    half = math.radians(180 - turning) / 2
    axes = (
        angles(orientations, 360),
        Axis("morph", numbers(morphs, "morph", high=1.0, closed=True), "of the radius"),
        Axis("polarity", choices(polarity, BOTH, "polarity")),
    )

    def paint(values: Mapping[str, Any], grid: Grid) -> Ink:
        u, v = grid.along(values["orientation"])
        rounding = values["morph"] * radius
        # a wedge moved inwards and grown by `rounding`: straight arms, a round corner that starts at u = 0
        distance = _from_wedge(u - rounding, np.abs(v), half) - rounding
        return _SIGN[values["polarity"]] * covered(np.abs(distance) - width / 2)

    settings = {"turning": turning, "radius": radius, "width": width}
    return Stimuli("angle to curve", axes, paint, contrast, settings)


def circles(
    radii: Sequence[float] = (3.0, 5.0, 8.0, 13.0, 20.0, 32.0),
    *,
    variants: Sequence[Literal["outline", "filled"]] = ("outline", "filled"),
    width: float = 3.0,
    polarity: Sequence[Polarity] = BOTH,
    contrast: float = 1.0,
) -> Stimuli:
    """Circles and discs about the center.

    Args:
        radii: in pixels.
        variants: "outline", "filled", or both.
        width: of an outline, in pixels.
        polarity: light, dark or both.
        contrast: in (0, 1].
    """
    _pixels("width", width, least=1)
    axes = (
        Axis("radius", numbers(radii, "radius"), "pixels"),
        Axis("variant", choices(variants, ("outline", "filled"), "variants")),
        Axis("polarity", choices(polarity, BOTH, "polarity")),
    )

    def paint(values: Mapping[str, Any], grid: Grid) -> Ink:
        distance = np.hypot(grid.x, grid.y) - values["radius"]
        if values["variant"] == "outline":
            distance = np.abs(distance) - width / 2
        return _SIGN[values["polarity"]] * covered(distance)

    return Stimuli("circles", axes, paint, contrast, {"width": width})


def _from_arc(u: Ink, v: Ink, radius: float, arc: float) -> Ink:
    """Distance to an arc through the origin whose center lies at `(radius, 0)`."""
    if math.isinf(radius):
        return np.abs(u)
    ring = np.abs(np.hypot(u - radius, v) - radius)
    if arc >= 360:
        return ring
    half = math.radians(arc) / 2
    end_u, end_v = radius * (1 - math.cos(half)), radius * math.sin(half)
    beyond = np.arctan2(np.abs(v), radius - u) > half
    distance: Ink = np.where(beyond, np.hypot(u - end_u, np.abs(v) - end_v), ring)
    return distance


def _from_wedge(u: Ink, v: Ink, half: float) -> Ink:
    """Signed distance to the wedge of half-opening `half` along u, negative inside; `v` is not negative."""
    c, s = math.cos(half), math.sin(half)
    along = np.maximum(u * c + v * s, 0.0)
    distance = np.hypot(u - along * c, v - along * s)
    return np.where(v * c - u * s < 0, -distance, distance)
