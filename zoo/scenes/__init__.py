"""Scenes: procedurally drawn images with known parts, and a small network trained on them."""

from zoo.scenes.generate import ADVERSARIAL, CLASSES, PARTS, Part, Scene, adversarial, dataset, draw

__all__ = ["ADVERSARIAL", "CLASSES", "PARTS", "Part", "Scene", "adversarial", "dataset", "draw"]
