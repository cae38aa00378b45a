"""The network of `scenes` trained on labels alone: its circuits are found, not built in."""

from __future__ import annotations

from zoo.cards import Card, WeightsFile, register
from zoo.networks.inceptionv1 import LUCID_ALIASES
from zoo.scenes import network
from zoo.scenes.generate import CLASSES

register(
    Card(
        name="scenes-labels",
        title="Scenes, labels alone",
        summary="The same InceptionV1 trained on the labels of the scenes alone: its circuits are found, not built in.",
        input=network.INPUT,
        build=network.build,
        weights=WeightsFile(filename="scenes/scenes_labels.safetensors", packaged=True),
        classes=lambda: list(CLASSES),
        aliases=dict(LUCID_ALIASES),
        license="Apache-2.0",
        source="python -m tools.scenes.train_labels",
        order=5,
    )
)
