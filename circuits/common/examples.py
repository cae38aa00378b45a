"""An example: an image, and the position on it where a unit was read."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.common.reading import Count


@dataclass(frozen=True)
class Example:
    """One position of one image, with the response of a unit there.

    Attributes:
        image: index of the image in the source; id: its name there.
        position: `(y, x)` on the unit's layer.
        value: the unit's response there.
        box: `(top, left, bottom, right)` of the receptive field, in pixels of the model's input.
    """

    image: Count
    id: str
    position: tuple[Count, Count]
    value: float
    box: tuple[int, int, int, int]
