"""Where in which image a unit was looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One place where a unit fires.

    Attributes:
        image: index of the picture in the source; id: its name there.
        position: `(y, x)` on the unit's layer.
        value: the unit's response there.
        box: `(top, left, bottom, right)` of the receptive field, in pixels of the model's input.
    """

    image: int
    id: str
    position: tuple[int, int]
    value: float
    box: tuple[int, int, int, int]
