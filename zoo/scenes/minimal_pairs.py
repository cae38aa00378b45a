"""Minimal pairs: a scene, and the same scene with one part removed, moved or replaced, and nothing else changed.

The background, the other parts, light, blur and noise are the same draws, so that the two images are equal bit for bit
outside of the boxes of the part. What a network makes of the difference is therefore about that part and its place.

    >>> pair = pair_of(7, "car", "wheel", "removed")
    >>> pair.original.label, pair.changed.label, pair.changed.arrangement
    ('car', 'nothing', 'removed')
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from zoo.errors import ImageError, did_you_mean, shorten
from zoo.scenes.arrange import bounds, groups
from zoo.scenes.generate import CLASSES, SIZE, SMALLEST_PART, Scene, draw, others
from zoo.scenes.objects import OBJECTS
from zoo.scenes.parts import Floats, Shape

CHANGES: tuple[str, ...] = ("removed", "moved", "replaced")
"""What can be done to a part: left out, shifted elsewhere, or replaced by a part of another object of its size."""

Box = tuple[int, int, int, int]

_MARGIN = 2
"""Pixels around an outline that its edge and the blur of the lens can reach."""
_PAIRS = 3  # keeps the seeds of pairs apart from those of data sets and of training
_ALTERATION = 4  # likewise for what is drawn of a change
_MOVES = 64
_ATTEMPTS = 50


@dataclass(frozen=True)
class ScenePair:
    """Two scenes that differ in one part.

    Attributes:
        original: as `draw(seed, kind)` gives it.
        changed: with the part changed; its label is "nothing", as that of all wrong arrangements, its arrangement the
            change, its `kind` still the object's class.
        part: name of the part; change: one of `CHANGES`.
        boxes: `(x0, y0, x1, y1)` in pixels, end exclusive, around each of the part where it was and where it is now;
            outside of all of them the images are equal.
    """

    original: Scene
    changed: Scene
    part: str
    change: str
    boxes: tuple[Box, ...]


@cache
def parts_of(kind: str) -> tuple[str, ...]:
    """Names of the parts that a class is drawn of, in painting order.

    Raises:
        ImageError: no class of that name is made of parts.

    >>> parts_of("car")
    ('window', 'car_body', 'wheel')
    """
    if kind not in OBJECTS:
        raise ImageError(
            f"no scene class {shorten(kind)!r} is made of parts.{did_you_mean(kind, OBJECTS)} "
            f"Classes: {', '.join(OBJECTS)}"
        )
    shapes = OBJECTS[kind](np.random.default_rng(0))
    return tuple(dict.fromkeys(shape.part for shape in shapes if shape.part is not None))


def pair_of(seed: int, kind: str, part: str, change: str = "removed") -> ScenePair:
    """The scene `draw(seed, kind)`, and the same with all of one part of its object changed.

    Args:
        seed: any non-negative integer; the same seed gives the same bytes.
        kind: a class of `CLASSES` but "nothing".
        part: one of `parts_of(kind)`; all wheels of a car go together.
        change: one of `CHANGES`.

    Raises:
        ImageError: no such class, part or change.
    """
    _check(kind, part, change)
    return _pair(draw(seed, kind), part, change)


def _check(kind: str, part: str, change: str) -> None:
    if part not in parts_of(kind):
        near = did_you_mean(part, parts_of(kind))
        raise ImageError(f"a {kind} has no part {shorten(part)!r}; its parts: {', '.join(parts_of(kind))}.{near}")
    if change not in CHANGES:
        near = did_you_mean(change, CHANGES)
        raise ImageError(f"no change {shorten(change)!r}; known: {', '.join(CHANGES)}.{near}")


def _pair(original: Scene, part: str, change: str) -> ScenePair:
    boxes: list[Box] = []
    alter = partial(_altered, original.kind, part, change, original.seed, boxes)
    changed = draw(original.seed, original.kind, alter=alter)
    changed = replace(changed, label="nothing", label_index=CLASSES.index("nothing"), arrangement=change)
    return ScenePair(original, changed, part, change, tuple(boxes))


def pairs(n: int, kind: str, part: str, change: str = "removed", seed: int = 0) -> Iterator[ScenePair]:
    """`n` pairs of a class and one of its parts; the first of more pairs are those of fewer.

    The originals are the same for every change: scenes in which the part can be seen to be missing when it is removed
    (something in front may hide it).

    Raises:
        ImageError: no such class, part or change.
    """
    _check(kind, part, change)
    for index in range(n):
        for attempt in range(_ATTEMPTS):
            entropy = np.random.SeedSequence([seed, index, attempt, _PAIRS])
            at = int(entropy.generate_state(1, np.uint64)[0])
            removed = _pair(draw(at, kind), part, "removed")
            differs = (removed.original.image != removed.changed.image).any(axis=2)
            if int(differs.sum()) >= SMALLEST_PART:
                yield removed if change == "removed" else _pair(removed.original, part, change)
                break
        else:
            raise ImageError(f"{part} of {kind} cannot be seen in any of {_ATTEMPTS} scenes")


def _altered(kind: str, part: str, change: str, seed: int, boxes: list[Box], shapes: list[Shape]) -> list[Shape]:
    """The shapes of the object in pixels with a part changed; `boxes` gets the boxes that change."""
    owners = _owners(shapes)
    own = [i for i, owner in enumerate(owners) if owner is not None and owner[0] == part]
    rng = np.random.default_rng([seed, _ALTERATION])
    shift = _shift(bounds([shapes[i] for i in own]), rng) if change == "moved" else (0.0, 0.0)
    instances = sorted({owner[1] for owner in owners if owner is not None and owner[0] == part})
    pieces = {k: [shapes[i] for i in own if owners[i] == (part, k)] for k in instances}
    stand_in = _stand_in(kind, rng) if change == "replaced" else []
    altered: list[Shape] = []
    placed = set()
    for i, shape in enumerate(shapes):
        owner = owners[i]
        if i not in own or owner is None:
            altered.append(shape)
        elif change == "moved":
            altered.append(shape.moved(*shift))
        elif change == "replaced" and owner[1] not in placed:
            placed.add(owner[1])
            altered += _fitted(stand_in, bounds(pieces[owner[1]]), owner[1])
    boxes += [_box(bounds(piece)) for piece in pieces.values()]
    if change == "moved":
        boxes += [_box(bounds(piece) + np.array(shift, dtype=np.float32)) for piece in pieces.values()]
    return altered


def _owners(shapes: list[Shape]) -> list[tuple[str, int] | None]:
    """Part and instance that each shape belongs to: a detail goes with the outline of its group that it lies on.

    One that lies on none goes with the last outline before it in its group (a foot with its leg), or with the first
    of all (the cabin around the windows); shapes of a group without parts belong to none (the skin of a face).
    """
    owners: list[tuple[str, int] | None] = []
    for i, shape in enumerate(shapes):
        if shape.part is not None:
            owners.append((shape.part, shape.instance))
            continue
        outlines = [s for s in shapes[:i] if s.group == shape.group and s.part is not None][::-1]
        outlines += [s for s in shapes[i:] if s.group == shape.group and s.part is not None]
        center = bounds([shape]).mean(axis=0)
        below = (s for s in outlines if (bounds([s])[0] <= center).all() and (center <= bounds([s])[1]).all())
        owner = next(below, outlines[0] if outlines else None)
        owners.append(None if owner is None or owner.part is None else (owner.part, owner.instance))
    return owners


def _shift(box: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """Where a part moves: of several positions the one that overlaps least with its own, then the farthest."""
    low, high = box
    size = high - low
    best, best_rank = (0.0, 0.0), (-np.inf, 0.0)
    for _ in range(_MOVES):
        corner = 1 + rng.uniform(0, 1, 2) * np.maximum(SIZE - 2 - size, 0.0)
        move = corner - low
        overlap = float(np.prod(np.maximum(size - np.abs(move), 0.0)))
        rank = (-overlap, float(np.linalg.norm(move)))
        if rank > best_rank:
            best, best_rank = (float(move[0]), float(move[1])), rank
    return best


def _stand_in(kind: str, rng: np.random.Generator) -> list[Shape]:
    """A group of parts of an object of another family, none of which this class has."""
    own = set(parts_of(kind))
    choices = [
        (other, group)
        for other in others(kind)
        for group, shapes in groups(OBJECTS[other](np.random.default_rng(0))).items()
        if (names := {s.part for s in shapes if s.part is not None}) and not names & own
    ]
    other, group = choices[int(rng.integers(len(choices)))]
    return groups(OBJECTS[other](rng))[group]


def _fitted(shapes: list[Shape], box: Floats, instance: int) -> list[Shape]:
    """Shapes stretched to fill a box, as a thing of their own."""
    (low, high), (left_top, right_bottom) = bounds(shapes), box
    scale = (right_bottom - left_top) / np.maximum(high - low, 1e-6)
    return [
        replace(
            shape,
            points=((shape.points - low) * scale + left_top).astype(np.float32),
            group="distractor",
            instance=shape.instance + 100 * (instance + 1),
        )
        for shape in shapes
    ]


def _box(box: Floats) -> Box:
    """Whole pixels around an outline, with what its edge and the blur can reach."""
    x0, y0 = np.maximum(np.floor(box[0]).astype(int) - _MARGIN, 0).tolist()
    x1, y1 = np.minimum(np.ceil(box[1]).astype(int) + _MARGIN, SIZE).tolist()
    return x0, y0, x1, y1
