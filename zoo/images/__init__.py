"""Images: where they come from, how they are decoded, their classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.images.sources import Images, open_images

__all__ = ["Images", "open_images"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # on first use: decoding needs torch and Pillow
        from zoo.images import sources

        return getattr(sources, name)
    raise AttributeError(f"module 'zoo.images' has no attribute {name!r}")
