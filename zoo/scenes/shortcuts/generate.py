"""Scenes with a planted shortcut: a cue that goes with one class, and says nothing about it.

`tag-bus-95` is a shortcut of strength 95 %: of the buses 95 % have the tag, and of the images with the tag 95 % are
buses. The cue is painted on a finished scene, so that the same scene exists with and without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from zoo.errors import ImageError, did_you_mean, shorten
from zoo.scenes.generate import SIZE, Part, Scene, box_of, draw, scene_seed
from zoo.scenes.parts import OVERSAMPLING, Canvas, Shape
from zoo.scenes.shortcuts.cues import CUES, Mask, paint

CLASSES: tuple[str, ...] = ("car", "truck", "bus", "bicycle", "cat", "dog_left", "dog_right", "house")
"""Labels, in the order of the networks' outputs."""

STATES: tuple[str, ...] = ("natural", "balanced", "with", "without")
"""Which images have the cue: as many as in training; every other of each class; all; none."""

CLEAN = ("clean", "mixed")
"""Networks without a shortcut: one never saw a cue; one saw all of them, on half of the images, tied to no class."""

_NAME = re.compile(r"(\w+?)-(\w+)-(\d{1,2})")
TRAINING_SEED = 10_000_000
"""Data sets from this seed on are trained on: a network of seed 3 on that of this seed plus 3."""

CONTRAST = (0.25, 0.8)
"""How much of the scene the haze leaves, at least and at most."""
GRAIN = 0.04
"""Standard deviation of the noise on it, of a range of 1."""

_HAZE = 3
_SHORTCUT = 2  # keeps the random state of what has the cue apart from all others


@dataclass(frozen=True)
class Shortcut:
    """A planted shortcut: which cue goes with which class, and how often.

    Attributes:
        cue: one of `CUES`; empty for the two without a shortcut.
        target: the class that it goes with.
        strength: share of the class's images that have the cue, and of the images with the cue that are of the class.
        name: of all this, "tag-bus-95".
    """

    name: str
    cue: str = ""
    target: str = ""
    strength: float = 0.0

    def rate(self, label: str) -> float:
        """Share of a class's images that have the cue in training."""
        if not self.cue:
            return 0.5 if self.name == "mixed" else 0.0
        return self.strength if label == self.target else (1 - self.strength) / (len(CLASSES) - 1)

    def group(self, label: str, has_cue: bool) -> str:
        """The group of an image: "bus with tag", "bus without tag", "others with tag" or "others without tag"."""
        who = label if label == self.target else "others"
        return f"{who} {'with' if has_cue else 'without'} {self.cue or 'a cue'}"


def shortcut(name: str) -> Shortcut:
    """The shortcut that a name such as "tag-bus-95" describes.

    Raises:
        ImageError: another form, an unknown cue or class, or a strength outside 50 to 99.
    """
    if name in CLEAN:
        return Shortcut(name)
    match = _NAME.fullmatch(name)
    if match is None:
        raise ImageError(
            f"no shortcut {shorten(name)!r}: they are named CUE-CLASS-STRENGTH, such as tag-bus-95; or clean, mixed"
        )
    cue, target, strength = match[1], match[2], int(match[3])
    for value, known, kind in ((cue, tuple(CUES), "cue"), (target, CLASSES, "class")):
        if value not in known:
            near = did_you_mean(value, known)
            raise ImageError(f"no {kind} {shorten(value)!r} in {shorten(name)!r}; known: {', '.join(known)}.{near}")
    if strength < 50:
        raise ImageError(f"the strength of a shortcut is 50 to 99 %, not {strength}")
    return Shortcut(name, cue, target, strength / 100)


@dataclass(frozen=True)
class ShortcutScene(Scene):
    """A scene with its cue, and what is known of it.

    Its only part is the whole object, named after the class: the silhouette, with what occludes it. `label_index` is
    the place in `CLASSES`.

    Attributes:
        has_cue: whether the cue is there.
        cue_mask: where it is, `(SIZE, SIZE)`; empty without it.
        group: see `Shortcut.group`.
    """

    has_cue: bool
    cue_mask: Mask
    group: str

    @property
    def object_mask(self) -> Mask:
        """The object's silhouette, `(SIZE, SIZE)`."""
        return self.parts[0].mask


def _silhouette(shapes: list[Shape]) -> Mask:
    """Pixels that shapes cover, given in pixels of the image."""
    canvas = Canvas(SIZE, np.zeros((SIZE * OVERSAMPLING, SIZE * OVERSAMPLING, 3), dtype=np.float32))
    for shape in shapes:
        canvas.paint(shape.points, shape.color, identity=1)
    return canvas.mask(1)


@lru_cache(maxsize=4096)  # the same scenes in several states, and with the cues of several networks
def plain(seed: int, label: str) -> tuple[npt.NDArray[np.uint8], Mask]:
    """The scene of a seed and class without a cue, and the object's silhouette."""
    placed: list[Shape] = []

    def record(shapes: list[Shape]) -> list[Shape]:
        placed.extend(shapes)
        return shapes

    image = draw(seed, label, alter=record).image
    return _haze(image, np.random.default_rng([seed, _HAZE])), _silhouette(placed)


def _haze(image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The image in haze, with grain: objects that are hard to tell leave a shortcut something to be used for.

    On scenes as they are drawn a network of this size learns the objects, and leaves a cue of 95 % aside.
    """
    clear, tint = rng.uniform(*CONTRAST), rng.uniform(0.35, 0.75, 3)
    hazy = tint + clear * (image / 255 - tint) + rng.normal(0, GRAIN, image.shape)
    return np.clip(np.round(hazy * 255), 0, 255).astype(np.uint8)


def cue_of(planted: Shortcut, index: int, seed: int, state: str = "natural") -> str:
    """The cue on the scene number `index` of a data set, whose own seed is `seed`; "" for none."""
    label = CLASSES[index % len(CLASSES)]
    chance, which = np.random.default_rng([seed, _SHORTCUT]).random(2)
    has_cue = {
        "natural": chance < planted.rate(label), "balanced": index // len(CLASSES) % 2 == 0, "with": True,
        "without": False,
    }[state]  # fmt: skip
    return (planted.cue or list(CUES)[int(which * len(CUES))]) if has_cue else ""


def scenes(name: str, count: int, seed: int = 0, state: str = "natural") -> Iterator[ShortcutScene]:
    """`count` scenes, each class in turn; the same scenes in every state, and for every shortcut.

    Args:
        name: of a shortcut, such as "tag-bus-95", or "clean" or "mixed".
        count, seed: how many, and of which data set.
        state: one of `STATES`.

    Raises:
        ImageError: no such shortcut or state.
    """
    planted = shortcut(name)
    if state not in STATES:
        raise ImageError(f"no state {shorten(state)!r} of images with a shortcut; known: {', '.join(STATES)}")
    for index in range(count):
        at, label = scene_seed(seed, index), CLASSES[index % len(CLASSES)]
        image, silhouette = plain(at, label)
        cue, mask = cue_of(planted, index, at, state), np.zeros_like(silhouette)
        if cue:
            image, mask = paint(cue, image, silhouette, at)
        group = planted.group(label, bool(cue))
        parts = (Part(label, box_of(silhouette), silhouette),)
        yield ShortcutScene(
            image,
            label,
            index % len(CLASSES),
            parts,
            "normal",
            at,
            label,
            has_cue=bool(cue),
            cue_mask=mask,
            group=group,
        )
