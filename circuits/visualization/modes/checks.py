"""What is asked of the modes of feature visualization, checked and opened."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from circuits.errors import VisualizationError
from circuits.network.model import Model
from zoo.images.sources import Source, open_images


def opened(model: Model, pictures: Source, size: tuple[int, int] | None = None) -> tuple[Tensor, list[str], str]:
    """Pictures `(N, C, H, W)`, their names and their digest; tensors keep their size where none is asked."""
    if isinstance(pictures, Tensor) and pictures.ndim == 3:
        pictures = pictures[None]
    if size is None and isinstance(pictures, Tensor) and pictures.ndim == 4:
        size = (pictures.shape[2], pictures.shape[3])
    found = open_images(pictures)
    spec = model.input if size in (None, model.input.hw) else replace(model.input, size=size, resize=None)
    return found.tensor(spec), found.ids, found.digest


def refuse(options: dict[str, Any], *names: str) -> None:
    """Raise where options of `visualize` are given that a mode sets itself, or that it has no use for."""
    for name in names:
        if name in options:
            raise VisualizationError(f"{name}= has no meaning here: leave it out, or use circuits.visualize")


def whole(number: int, name: str) -> None:
    """Raise unless `number` is a whole one from 1."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise VisualizationError(f"{name} is a whole number from 1, not {number!r}")
