"""The embedded default: a small InceptionV1 trained by us on drawn scenes whose parts are known."""

from __future__ import annotations

from zoo.cards import Card, WeightsFile, register
from zoo.networks.inceptionv1 import LUCID_ALIASES
from zoo.scenes import network
from zoo.scenes.generate import CLASSES

register(
    Card(
        name="scenes",
        title="Scenes",
        summary="A small InceptionV1 trained on drawn scenes whose parts are known: a benchmark with a known answer.",
        input=network.INPUT,
        build=network.build,
        weights=WeightsFile(filename="scenes/scenes.safetensors", packaged=True),
        classes=lambda: list(CLASSES),
        aliases=dict(LUCID_ALIASES),
        license="Apache-2.0",
        source="python -m tools.scenes.train",
        order=0,
    )
)
