"""Images: where they come from, how they are decoded, their classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.common.lazy import lazy_names

if TYPE_CHECKING:
    from zoo.images.sources import Images as Images, open_images as open_images
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
