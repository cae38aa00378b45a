"""Checks of the arguments of the modes of feature visualization, and their images opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from circuits.errors import VisualizationError
from circuits.network.model import Model
from circuits.visualization.parametrizations import Size
from zoo.images.sources import Source, open_images


def opened(model: Model, images: Source, size: Size | None = None) -> tuple[Tensor, list[str], str]:
    """Images `(N, C, H, W)`, their names and their digest; tensors keep their size where none is given."""
    if isinstance(images, Tensor) and images.ndim == 3:
        images = images[None]
    if size is None and isinstance(images, Tensor) and images.ndim == 4:
        size = (images.shape[2], images.shape[3])
    source = open_images(images)
    spec = model.input if size in (None, model.input.hw) else replace(model.input, size=size, resize=None)
    return source.tensor(spec), source.ids, source.digest


def refuse(options: Mapping[str, Any], *names: str) -> None:
    """Raise where options of `visualize` are given that a mode sets itself, or that it has no use for."""
    for name in names:
        if name in options:
            raise VisualizationError(f"{name}= has no meaning here: leave it out, or use circuits.visualize")
