"""Arrangements: the same parts in their place, or in a place where they no longer make the object."""

from __future__ import annotations

import numpy as np

from zoo.scenes.parts import Floats, Shape

ADVERSARIAL: tuple[str, ...] = (
    "wheels_above", "windows_below", "body_above", "no_body", "no_wheels", "no_windows", "scattered", "upside_down",
)  # fmt: skip
"""Arrangements of a car's parts that are not a car; "scattered" exists for every class."""

_STACKS = {
    "wheels_above": ("wheels", "windows", "body"),
    "windows_below": ("body", "wheels", "windows"),
    "body_above": ("body", "windows", "wheels"),
}
_MISSING = {"no_body": "body", "no_wheels": "wheels", "no_windows": "windows"}


def bounds(shapes: list[Shape]) -> Floats:
    """`[[left, top], [right, bottom]]` of the shapes together."""
    points = np.concatenate([s.points for s in shapes])
    return np.stack([points.min(axis=0), points.max(axis=0)])


def groups(shapes: list[Shape]) -> dict[str, list[Shape]]:
    """Group name -> its shapes, in painting order."""
    shapes_of: dict[str, list[Shape]] = {}
    for shape in shapes:
        shapes_of.setdefault(shape.group, []).append(shape)
    return shapes_of


def rearrange(shapes: list[Shape], arrangement: str, rng: np.random.Generator) -> list[Shape]:
    """The shapes of an object in the arrangement named, in the object's coordinates.

    "normal" changes nothing. The car's arrangements restack, drop or turn over its three groups;
    "scattered" moves every group of any object away from where it belongs relative to the others.
    """
    if arrangement == "normal":
        return shapes
    if arrangement == "scattered":
        return _scatter(shapes, rng)
    if arrangement == "upside_down":
        return [Shape(s.points * np.array([1, -1], dtype=np.float32), s.color, s.group, s.part, s.instance, -s.shade,
                      s.erases) for s in shapes]  # fmt: skip
    if arrangement in _MISSING:
        return [s for s in shapes if s.group != _MISSING[arrangement]]
    pieces = groups(shapes)
    stacked: list[Shape] = []
    top = 0.0
    for name in _STACKS[arrangement]:
        (_, upper), (_, lower) = bounds(pieces[name])
        stacked += [s.moved(0.0, top - float(upper)) for s in pieces[name]]
        top += float(lower - upper) + float(rng.uniform(-0.03, 0.02))
    return stacked


def _scatter(shapes: list[Shape], rng: np.random.Generator, room: float = 1.35) -> list[Shape]:
    """Each group at a random place of a square `room` wide; of several tries, the least like the object."""
    pieces = groups(shapes)
    boxes = {name: bounds(piece) for name, piece in pieces.items()}
    best: dict[str, Floats] = {}
    best_distance = -1.0
    for _ in range(16):
        shifts = {}
        for name, (low, high) in boxes.items():
            free = np.maximum(room - (high - low), 0.0)
            shifts[name] = (rng.uniform(0, 1, 2) * free - low).astype(np.float32)
        moves = np.stack(list(shifts.values()))
        pairs = np.linalg.norm(moves[:, None] - moves[None], axis=2)[np.triu_indices(len(moves), 1)]
        distance = float(pairs.min()) if len(pairs) else 0.0
        if distance > best_distance:
            best, best_distance = shifts, distance
    return [s.moved(float(best[s.group][0]), float(best[s.group][1])) for s in shapes]
