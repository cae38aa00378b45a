"""Figures on the screen, in the colors of the theme. Exported files are those of `exports`, always light."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import streamlit as st
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgba_array
from matplotlib.figure import Figure

from apps.explorer.server.theme import THEME
from apps.explorer.session.exports import DRAWING
from circuits.plot.drawing import canvas, palette

_GRAY = 0.13
"""Largest difference between the channels of a color that is ink or paper; anything more colorful means something."""
_SIGNS = {palette.EXCITES.lower(): "#f08c3c", palette.INHIBITS.lower(): "#6cb0ea"}
_COLORS = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")


@dataclass(frozen=True)
class ScreenFigure:
    """A figure as PNG, for the light and for the dark theme."""

    light: bytes
    dark: bytes


def screen_figure(figure: Callable[[], Figure]) -> ScreenFigure:
    """Draw a figure for both themes."""
    with DRAWING:
        result = figure()
        light = _png(result, palette.PAPER)
        darken(result)
        return ScreenFigure(light, _png(result, THEME["theme.dark.backgroundColor"]))


def _png(figure: Figure, paper: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=2 * canvas.DPI, facecolor=paper)
    return buffer.getvalue()


def show(figure: ScreenFigure, alt: str, width: int | Literal["stretch"] = "stretch") -> None:
    """Put a figure on the page; `alt` describes it for screen readers, `width` is in pixels."""
    st.image(figure.dark if st.context.theme.type == "dark" else figure.light, width=width, alt=alt)


def darken(figure: Figure) -> None:
    """Turn paper dark and ink light in a figure. Images, and colors that mean something, stay."""
    changes: list[tuple[Callable[[Any], Any], Any]] = []  # made at the end: some colors follow others
    for artist in figure.findobj(Artist):
        if isinstance(artist, Axes | Figure):
            continue  # their color is that of their patch
        for name in _COLORS:
            getter, setter = getattr(artist, f"get_{name}", None), getattr(artist, f"set_{name}", None)
            if getter is None or setter is None:
                continue
            before: Any = getter()
            if before is None or (isinstance(before, str) and before in ("none", "auto", "")):
                continue
            rows = to_rgba_array(before)
            after = np.array([_dark(row) for row in rows])
            if len(after) and not np.array_equal(rows, after):
                changes.append((setter, after[0] if len(after) == 1 else after))
    for change, color in changes:
        change(color)


def _dark(rgba: np.ndarray) -> np.ndarray:
    """A color for the dark theme: grays from the ink to the paper of the light theme become those of the dark one."""
    sign = _SIGNS.get(to_hex((float(rgba[0]), float(rgba[1]), float(rgba[2]))))
    if sign is not None:
        return np.array([*to_rgba_array(sign)[0, :3], rgba[3]])
    if np.ptp(rgba[:3]) > _GRAY:
        return rgba
    ink, paper = (to_rgba_array(THEME[f"theme.dark.{name}"])[0, :3] for name in ("textColor", "backgroundColor"))
    darkest = to_rgba_array(palette.INK)[0, :3].mean()
    share = max(0.0, float((rgba[:3].mean() - darkest) / (1 - darkest)))  # 0 is ink, 1 is paper
    return np.array([*(ink + share * (paper - ink)), rgba[3]])
