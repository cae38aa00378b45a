"""Models to analyze: cards, weights, images.

The names below are loaded when first used, so that `import zoo` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.common.lazy import lazy_names
from zoo.errors import (
    CircuitsError as CircuitsError,
    ImageError as ImageError,
    ModelError as ModelError,
    WeightsError as WeightsError,
)

if TYPE_CHECKING:
    from zoo.cards import Card as Card, WeightsFile as WeightsFile, register as register
    from zoo.images.manifest import export_scenes as export_scenes
    from zoo.images.sources import Images as Images, open_images as open_images
    from zoo.inputs import InputSpec as InputSpec
    from zoo.registry import Loaded as Loaded, build as build, get_card as get_card, status as status
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
