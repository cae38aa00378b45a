"""Scenes: procedurally drawn images with known parts, and a small network trained on them."""

from zoo.scenes.arrange import ADVERSARIAL
from zoo.scenes.generate import CLASSES, Part, Scene, adversarial, dataset, draw
from zoo.scenes.minimal_pairs import CHANGES, ScenePair, pair_of, pairs, parts_of
from zoo.scenes.objects import PARTS

__all__ = [
    "ADVERSARIAL", "CHANGES", "CLASSES", "PARTS", "Part", "Scene", "ScenePair", "adversarial", "dataset", "draw",
    "pair_of", "pairs", "parts_of",
]  # fmt: skip
