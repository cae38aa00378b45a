"""Models to analyze: cards, weights, images.

The names below are loaded when first used, so that `import zoo` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zoo.errors import CircuitsError, ImageError, ModelError, WeightsError
from zoo.inputs import InputSpec

if TYPE_CHECKING:
    from zoo.cards import Card, WeightsFile, register
    from zoo.images.manifest import export_scenes
    from zoo.images.sources import Images, open_images
    from zoo.registry import Loaded, build, get_card, status

_HOME = {
    "Card": "zoo.cards",
    "Images": "zoo.images.sources",
    "Loaded": "zoo.registry",
    "WeightsFile": "zoo.cards",
    "build": "zoo.registry",
    "export_scenes": "zoo.images.manifest",
    "get_card": "zoo.registry",
    "open_images": "zoo.images.sources",
    "register": "zoo.cards",
    "status": "zoo.registry",
}

__all__ = [
    "Card",
    "CircuitsError",
    "ImageError",
    "Images",
    "InputSpec",
    "Loaded",
    "ModelError",
    "WeightsError",
    "WeightsFile",
    "build",
    "export_scenes",
    "get_card",
    "open_images",
    "register",
    "status",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")
