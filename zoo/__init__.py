"""Models to analyze: cards, weights, images.

The names below are loaded when first used, so that `import zoo` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.common.lazy import lazy_names
from zoo.errors import CircuitsError, ImageError, ModelError, WeightsError

if TYPE_CHECKING:
    from zoo.cards import Card, WeightsFile, register
    from zoo.images.manifest import export_scenes
    from zoo.images.sources import Images, open_images
    from zoo.inputs import InputSpec
    from zoo.registry import Loaded, build, get_card, status
else:
    __getattr__, __dir__ = lazy_names(__name__)

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
