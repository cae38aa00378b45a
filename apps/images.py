"""Images as options and settings name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo.images.sources import Images


def open_sources(sources: Sequence[str], limit: int | None, seed: int) -> Images:
    """Images from one source or several."""
    from zoo.errors import ImageError
    from zoo.images.sources import open_images

    if len(sources) > 1 and (drawn := [s for s in sources if s.partition(":")[0] == "scenes"]):
        raise ImageError(f"{drawn[0]} cannot be mixed with other images: write it to a folder with `circuits images`")
    return open_images(sources[0] if len(sources) == 1 else list(sources), limit=limit, seed=seed)
