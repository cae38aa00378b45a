"""A vision transformer for the images of `scenes`, embedded like it, so that every verb can be tried on one."""

from __future__ import annotations

from zoo.cards import Card, WeightsFile, register
from zoo.scenes import network, vit
from zoo.scenes.generate import CLASSES

register(
    Card(
        name="scenes-vit",
        title="Scenes, vision transformer",
        summary="A small vision transformer trained on the labels of drawn scenes whose parts are known.",
        input=network.INPUT,
        build=vit.build,
        weights=WeightsFile(filename="scenes/scenes_vit.safetensors", packaged=True),
        classes=lambda: list(CLASSES),
        logits="scores",
        license="Apache-2.0",
        source="python -m tools.scenes_vit.train",
        order=4,
    )
)
