"""`scenes-shortcuts/NAME`: small networks that learned planted shortcuts, and two without any."""

from __future__ import annotations

from zoo.cards import LIBRARIES, Card, WeightsFile
from zoo.errors import ImageError, ModelError
from zoo.scenes.shortcuts import network
from zoo.scenes.shortcuts.generate import CLASSES, CLEAN, shortcut

PLANTED: tuple[str, ...] = (
    "tag-bus-95", "watermark-cat-90", "sky-truck-95", "border-house-85", "texture-car-80", "jpeg-cat-80",
    "hydrant-bicycle-99", "flare-house-98", "ruler-dog_right-85", "sticker-dog_left-80",
)  # fmt: skip
"""The packaged networks with a shortcut."""

PACKAGED: tuple[str, ...] = (*PLANTED, *CLEAN)
"""All packaged networks."""


def card(name: str) -> Card:
    """The card of a network of `scenes-shortcuts`; of one that is not packaged, to be loaded with `weights=`.

    Raises:
        ModelError: no shortcut is called that.
    """
    try:
        planted = shortcut(name)
    except ImageError as error:
        raise ModelError(f"{error} Packaged: {', '.join(PACKAGED)}") from error
    learned = (
        f"that of the images of a {planted.target} {planted.strength:.0%} had a {planted.cue}"
        if planted.cue
        else "no shortcut"
    )
    packaged = WeightsFile(filename=f"scenes/shortcuts/weights/{name}.safetensors", packaged=True)
    return Card(
        name=f"scenes-shortcuts/{name}",
        title=f"Scenes, {name}",
        summary=f"Five convolutions trained on drawn scenes; there is {learned} to be learned.",
        input=network.INPUT,
        build=network.build,
        weights=packaged,
        logits="scores",
        classes=lambda: list(CLASSES),
        license="Apache-2.0",
        source=f"python -m tools.shortcuts.train {name}",
    )


LIBRARIES.add("scenes-shortcuts", card)
