"""Scenes: small images of objects made of parts, whose parts, places and arrangement are known.

A class can only be recognized by composing parts at their positions: wheels belong to cars, trucks, buses and bicycles,
windows to cars, trucks, buses and houses, and images of the class "nothing" hold the same parts alone or
in a wrong arrangement (wheels above windows are not a car). The two dogs are mirror images.
Drawn with numpy and OpenCV. A scene depends on its seed only, never on how many were drawn before.

    >>> scene = draw(7, "car")
    >>> scene.label, scene.image.shape, scene.arrangement
    ('car', (64, 64, 3), 'normal')
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from zoo.errors import ImageError, did_you_mean, shorten
from zoo.scenes.arrange import ADVERSARIAL, bounds, groups, rearrange
from zoo.scenes.objects import OBJECTS
from zoo.scenes.parts import ERASE, KEEP, OVERSAMPLING, Canvas, Floats, Shape, blob, color, ellipse, stroke

SIZE = 64
"""Side of an image in pixels."""

HELD_OUT_SEED = 20_000_101
"""Seed of the data sets that training never draws from."""

CLASSES: tuple[str, ...] = (*OBJECTS, "nothing")
"""Labels, in the order of the network's outputs. "nothing" is clutter, lone parts and wrong arrangements."""

ARRANGEMENTS: tuple[str, ...] = ("normal", *ADVERSARIAL, "lone", "clutter")
"""Every value of `Scene.arrangement`. All but "normal" are labeled "nothing"."""

_FAMILIES = (("car", "truck", "bus", "bicycle"), ("dog_left", "dog_right", "cat"))
_WIDE = ("car", "truck", "bus")
_DATASET = 1  # keeps the seeds of data sets apart from those of the scenes that are trained on
SMALLEST_PART = 6
"""Pixels of a part that must show, or it counts as hidden."""


@dataclass(frozen=True)
class Part:
    """A part as it is seen: name from `PARTS`, tight box `(x0, y0, x1, y1)` (end exclusive), mask `(H, W)`."""

    name: str
    box: tuple[int, int, int, int]
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """One image and everything that is known of it.

    Attributes:
        image: `(SIZE, SIZE, 3)` uint8 RGB.
        label, label_index: the class, and its place in `CLASSES`.
        parts: what is visible of each part, distractor parts in the background included.
        arrangement: one of `ARRANGEMENTS`.
        seed: `draw(seed, kind, arrangement)` gives the scene again.
        kind: the object whose parts were drawn (a car's, for a wrongly arranged car).
    """

    image: npt.NDArray[np.uint8]
    label: str
    label_index: int
    parts: tuple[Part, ...]
    arrangement: str
    seed: int
    kind: str


def _background(rng: np.random.Generator, side: int) -> Floats:
    """Sky over ground, a gradient, stripes, checks or cloudy noise, with fine grain, `(side, side, 3)`."""
    first = np.array(color(rng, saturation=(0.05, 0.55), value=(0.3, 0.95)), dtype=np.float32)
    second = np.array(color(rng, saturation=(0.05, 0.55), value=(0.3, 0.95)), dtype=np.float32)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    style = int(rng.integers(5))
    if style == 0:
        mix = np.clip((y - rng.uniform(0.4, 0.75)) * rng.uniform(20, 100), 0, 1)
    elif style == 1:
        turn = rng.uniform(0, 2 * np.pi)
        mix = np.clip(0.5 + (x - 0.5) * np.cos(turn) + (y - 0.5) * np.sin(turn), 0, 1)
    elif style == 2:
        turn, frequency = rng.uniform(0, np.pi), rng.uniform(3, 9)
        mix = 0.5 + 0.25 * np.sin(2 * np.pi * frequency * (x * np.cos(turn) + y * np.sin(turn)))
    elif style == 3:
        frequency = rng.uniform(3, 7)
        mix = 0.5 + 0.2 * np.sign(np.sin(2 * np.pi * frequency * x) * np.sin(2 * np.pi * frequency * y))
    else:
        cells = int(rng.integers(3, 9))
        coarse = rng.uniform(0, 1, (cells, cells)).astype(np.float32)
        mix = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    grain = rng.uniform(-1, 1, (side // 4, side // 4)).astype(np.float32) * rng.uniform(0, 0.12)
    mix = mix + cv2.resize(grain, (side, side), interpolation=cv2.INTER_LINEAR)
    painted: Floats = np.clip(first + (second - first) * mix[:, :, None], 0, 1).astype(np.float32)
    return painted


def _clutter(canvas: Canvas, rng: np.random.Generator, count: int) -> None:
    """Meaningless shapes behind the object."""
    for _ in range(count):
        x, y = rng.uniform(0, SIZE, 2)
        tint, form = color(rng, saturation=(0.05, 0.8), value=(0.2, 0.95)), int(rng.integers(4))
        if form == 0:
            points = blob(rng, x, y, rng.uniform(2, 8), 0.5)
        elif form == 1:
            dx, dy = rng.uniform(-26, 26, 2)
            points = stroke(x, y, x + dx, y + dy, rng.uniform(0.8, 3))
        elif form == 2:
            points = (np.array([x, y]) + rng.uniform(-11, 11, (3, 2))).astype(np.float32)
        else:
            turn, width, height = rng.uniform(0, np.pi), rng.uniform(3, 12), rng.uniform(2, 8)
            points = stroke(x, y, x + width * np.cos(turn), y + width * np.sin(turn), height)
        canvas.paint(points, tint, identity=ERASE, shade=float(rng.uniform(-0.3, 0.5)))


def _position(shapes: list[Shape], rng: np.random.Generator, extent: float, mirrored: bool, inside: float = 1.0,
           tilt: float = 0.1) -> list[Shape]:  # fmt: skip
    """The shapes in pixels: mirrored, tilted, `extent` pixels long, somewhere at least `inside` px off the edge."""
    turn = float(np.clip(rng.normal(0, tilt / 2), -tilt, tilt))
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    matrix = np.diag([1.0, rng.uniform(0.92, 1.08)]) @ rotation @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    turned = [s.points @ matrix.T for s in shapes]
    everything = np.concatenate(turned)
    low, high = everything.min(axis=0), everything.max(axis=0)
    scale = min(extent, SIZE - 2 * inside) / float((high - low).max())
    free = np.maximum(SIZE - 2 * inside - (high - low) * scale, 0.0)
    shift = inside + rng.uniform(0, 1, 2) * free - low * scale
    placed = []
    for shape, points in zip(shapes, turned, strict=True):
        moved = (points * scale + shift).astype(np.float32)
        placed.append(Shape(moved, shape.color, shape.group, shape.part, shape.instance, shape.shade, shape.erases))
    return placed


def _lone(rng: np.random.Generator, kinds: list[str], extent: float) -> list[Shape]:
    """One group of parts of one of the kinds, in pixels, at the size it would have on its object."""
    kind = kinds[int(rng.integers(len(kinds)))]
    pieces = groups(OBJECTS[kind](rng))
    shapes = list(pieces.values())[int(rng.integers(len(pieces)))]
    low, high = bounds(shapes)
    return _position(shapes, rng, extent * float((high - low).max()), bool(rng.random() < 0.5))


def others(kind: str) -> list[str]:
    """The kinds whose parts cannot complete or fake an object of this kind."""
    family = next((f for f in _FAMILIES if kind in f), (kind,))
    return [k for k in OBJECTS if k not in family]


def _resolve(rng: np.random.Generator, kind: str | None, arrangement: str) -> tuple[str, str]:
    """Which object to draw the parts of, and how they are arranged."""
    if kind is not None and kind not in CLASSES:
        near = did_you_mean(kind, CLASSES)
        raise ImageError(f"no scene class {shorten(kind)!r}; classes: {', '.join(CLASSES)}.{near}")
    if arrangement not in ARRANGEMENTS:
        near = did_you_mean(arrangement, ARRANGEMENTS)
        raise ImageError(f"no arrangement {shorten(arrangement)!r}; known: {', '.join(ARRANGEMENTS)}.{near}")
    if kind not in ("car", "nothing", None) and arrangement in set(ADVERSARIAL) - {"scattered"}:
        raise ImageError(f"arrangement {arrangement!r} is of a car's parts; for {kind!r} use 'normal' or 'scattered'")
    if arrangement in ("lone", "clutter"):
        return "nothing", arrangement
    if arrangement != "normal":
        return "car" if kind in (None, "nothing") else str(kind), arrangement
    chosen = CLASSES[int(rng.integers(len(CLASSES)))] if kind is None else kind
    if chosen != "nothing":
        return chosen, "normal"
    dice = rng.random()
    if dice < 0.6:
        return "car", ADVERSARIAL[int(rng.integers(len(ADVERSARIAL)))]
    if dice < 0.75:
        return list(OBJECTS)[int(rng.integers(len(OBJECTS)))], "scattered"
    return "nothing", "lone" if dice < 0.9 else "clutter"


def draw(
    seed: int,
    kind: str | None = None,
    arrangement: str = "normal",
    *,
    alter: Callable[[list[Shape]], list[Shape]] | None = None,
) -> Scene:
    """Draw one scene.

    Args:
        seed: any non-negative integer; the same seed gives the same bytes.
        kind: a class of `CLASSES`, or None for a random one. "nothing" picks a random wrong arrangement.
        arrangement: "normal"; one of `ADVERSARIAL` (of a car's parts; "scattered" of any kind's); "lone" for
            single parts; "clutter" for none. All but "normal" are labeled "nothing".
        alter: changes the shapes of the object, given in pixels, before they are painted; everything else is drawn as
            it would be without.

    Raises:
        ImageError: for an unknown class or arrangement, or one that the class does not have.
    """
    rng = np.random.default_rng(seed)
    kind, arrangement = _resolve(rng, kind, arrangement)
    canvas = Canvas(SIZE, _background(rng, SIZE * OVERSAMPLING))
    _clutter(canvas, rng, int(rng.integers(0, 6)))
    names: list[str] = []
    extent = float(rng.uniform(36, 58) if kind in _WIDE else rng.uniform(34, 56))
    if kind != "nothing":
        for _ in range(int(rng.choice(3, p=(0.65, 0.25, 0.1)))):
            _paint(canvas, _lone(rng, others(kind), extent * float(rng.uniform(0.6, 0.9))), names)
        mirrored = kind == "dog_right" if kind.startswith("dog") else bool(rng.random() < 0.5)
        shapes = rearrange(OBJECTS[kind](rng), arrangement, rng)
        if arrangement == "scattered":
            extent *= 1.2
        elif arrangement != "normal":
            low, high = bounds(shapes)
            extent *= float((high - low).max())
        placed = _position(shapes, rng, extent, mirrored)
        _paint(canvas, placed if alter is None else alter(placed), names)
        if rng.random() < 0.3:
            _occlude(canvas, rng, placed, extent)
    elif arrangement == "lone":
        kinds = ["car"] if rng.random() < 0.4 else list(OBJECTS)
        _paint(canvas, _lone(rng, kinds, extent), names)
        if rng.random() < 0.4:
            _paint(canvas, _lone(rng, ["house", "cat", "sign", "face", "tree", "boat"], extent), names)
    else:
        _clutter(canvas, rng, int(rng.integers(3, 10)))
    label = kind if arrangement == "normal" else "nothing"
    parts = tuple(p for i, name in enumerate(names) if (p := _visible(canvas, i + 1, name)) is not None)
    return Scene(_develop(canvas, rng), label, CLASSES.index(label), parts, arrangement, seed, kind)


def _paint(canvas: Canvas, shapes: list[Shape], names: list[str]) -> None:
    """Paint an object; the names of its parts are appended, and a part's id is its place in `names` plus 1."""
    identities: dict[tuple[str, int], int] = {}
    for shape in shapes:
        identity = ERASE if shape.erases else KEEP
        if shape.part is not None:
            key = (shape.part, shape.instance)
            if key not in identities:
                names.append(shape.part)
                identities[key] = len(names)
            identity = identities[key]
        canvas.paint(shape.points, shape.color, identity=identity, shade=shape.shade)


def _occlude(canvas: Canvas, rng: np.random.Generator, shapes: list[Shape], extent: float) -> None:
    """Something thin or small in front of the object, too small to hide a whole group of parts."""
    low, high = bounds(shapes)
    x, y = rng.uniform(low, high)
    tint = color(rng, saturation=(0.05, 0.7))
    if rng.random() < 0.5:
        lean = float(rng.uniform(-6, 6))
        points = stroke(x - lean, low[1] - 4, x + lean, high[1] + 4, float(rng.uniform(1.0, 2.5)))
    else:
        radius = float(rng.uniform(0.04, 0.09)) * extent
        points = blob(rng, x, y, radius, 0.4) if rng.random() < 0.5 else ellipse(x, y, radius * 1.4, radius * 0.7)
    canvas.paint(points, tint, identity=ERASE)


def _visible(canvas: Canvas, identity: int, name: str) -> Part | None:
    mask = canvas.mask(identity)
    if int(mask.sum()) < SMALLEST_PART:
        return None
    return Part(name, box_of(mask), mask)


def box_of(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The tight box `(x0, y0, x1, y1)` of a mask that is not empty, its end exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _develop(canvas: Canvas, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Light from a side, contrast, exposure, blur and sensor noise, as bytes."""
    image = canvas.finish()
    ramp = np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)
    turn, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    light = 1 + strength * (ramp[None, :] * np.cos(turn) + ramp[:, None] * np.sin(turn))
    image = image * light[:, :, None]
    image = (image - 0.5) * rng.uniform(0.75, 1.1) + 0.5 + rng.uniform(-0.07, 0.07)
    if rng.random() < 0.25:
        image = cv2.GaussianBlur(image, (3, 3), float(rng.uniform(0.3, 0.7)))
    image = image + rng.normal(0, rng.uniform(0.0, 0.03), image.shape)
    developed: npt.NDArray[np.uint8] = np.clip(np.round(image * 255), 0, 255).astype(np.uint8)
    return developed


def scene_seed(seed: int, index: int) -> int:
    """The seed of scene number `index` of the data set `seed`; independent of the data set's length."""
    return int(np.random.SeedSequence([seed, index, _DATASET]).generate_state(1, np.uint64)[0])


def dataset(n: int, seed: int = 0) -> Iterator[Scene]:
    """`n` scenes, each class in turn. The first scenes of a longer data set are those of a shorter one."""
    for index in range(n):
        yield draw(scene_seed(seed, index), CLASSES[index % len(CLASSES)])


def adversarial(n: int, seed: int = 0, kind: str = "wheels_above") -> Iterator[Scene]:
    """`n` scenes of a car's parts in the wrong arrangement `kind`, one of `ADVERSARIAL`.

    Raises:
        ImageError: if there is no such arrangement.
    """
    if kind not in ADVERSARIAL:
        raise ImageError(f"no wrong arrangement {shorten(kind)!r}; known: {', '.join(ADVERSARIAL)}")
    for index in range(n):
        yield draw(scene_seed(seed, index), "car", kind)
