"""What the objects look like: each function draws one, as shapes in its own coordinates.

Every object is about one unit wide or high and centered on the origin, y down. Objects that face a
side face left here; the generator mirrors them. The shapes of a `group` move together when the
generator breaks an arrangement, and a `part` is what the masks and boxes of a scene speak about.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zoo.scenes.parts import Color, Shape, blob, color, darker, ellipse, polygon, rectangle, ribbon, rounded, stroke

PARTS: tuple[str, ...] = (
    "window", "wheel", "car_body", "truck_cab", "cargo", "bus_body", "wall", "roof", "door",
    "dog_head", "dog_body", "tail", "leg", "cat_head", "cat_body", "frame", "plate", "pole",
    "eye", "mouth", "hair", "trunk", "crown", "hull", "sail",
)  # fmt: skip
"""Names of all parts. Wheels are shared by car, truck, bus and bicycle; windows by car, truck, bus and house."""


def _glass(rng: np.random.Generator) -> Color:
    return color(rng, hue=(0.5, 0.62), saturation=(0.15, 0.5), value=(0.75, 0.98))


def _pane(rng: np.random.Generator, left: float, top: float, right: float, bottom: float, glass: Color,
          group: str, instance: int, slant: tuple[float, float] = (0.0, 0.0)) -> list[Shape]:  # fmt: skip
    """A window: glass in a dark rim, with a glint. `slant` moves the top corners."""
    outline = polygon((left + slant[0], top), (right + slant[1], top), (right, bottom), (left, bottom))
    middle = outline.mean(axis=0)
    inner = (middle + (outline - middle) * np.array([0.86, 0.8])).astype(np.float32)
    x, width, height = left + slant[0], right - left, bottom - top
    glint = polygon((x + 0.35 * width, top + 0.18 * height), (x + 0.55 * width, top + 0.18 * height),
                    (left + 0.38 * width, bottom - 0.18 * height),
                    (left + 0.2 * width, bottom - 0.18 * height))  # fmt: skip
    return [
        Shape(outline, darker(glass, 0.22), group, "window", instance, shade=0.0),
        Shape(inner, glass, group, shade=0.35),
        Shape(glint, darker(glass, 1.25), group, shade=0.0),
    ]


def _wheel(rng: np.random.Generator, x: float, y: float, radius: float, rim: Color, instance: int) -> list[Shape]:
    """A dark tyre, a light rim, spokes and a hub."""
    tyre = color(rng, saturation=(0.0, 0.15), value=(0.07, 0.16))
    shapes = [Shape(ellipse(x, y, radius), tyre, "wheels", "wheel", instance, shade=0.3)]
    shapes.append(Shape(ellipse(x, y, radius * 0.62), rim, "wheels", shade=0.3))
    turn = rng.uniform(0, np.pi)
    for k in range(3):
        dx, dy = np.cos(turn + k * np.pi / 3) * radius * 0.6, np.sin(turn + k * np.pi / 3) * radius * 0.6
        shapes.append(Shape(stroke(x - dx, y - dy, x + dx, y + dy, radius * 0.13), darker(rim, 0.55), "wheels"))
    shapes.append(Shape(ellipse(x, y, radius * 0.22), darker(tyre, 1.3), "wheels"))
    return shapes


def _rim(rng: np.random.Generator) -> Color:
    return color(rng, saturation=(0.0, 0.1), value=(0.7, 0.95))


def car(rng: np.random.Generator) -> list[Shape]:
    """Windows above a body above two wheels."""
    paint, glass, rim = color(rng), _glass(rng), _rim(rng)
    waist, sill = rng.uniform(-0.06, -0.02), rng.uniform(0.15, 0.19)
    roof, lean, tail = rng.uniform(-0.29, -0.24), rng.uniform(0.08, 0.15), rng.uniform(0.02, 0.12)
    front, back = rng.uniform(-0.34, -0.26), rng.uniform(0.28, 0.4)
    split = (front + back) / 2 + rng.uniform(-0.03, 0.05)
    radius = rng.uniform(0.105, 0.13)
    cabin = polygon((front + lean, roof), (back - tail, roof), (back, waist + 0.03), (front, waist + 0.03))
    shapes = [Shape(cabin, darker(paint, 0.85), "windows", shade=0.4)]
    top, bottom = roof + 0.025, waist + 0.01
    shapes += _pane(rng, front + 0.045, top, split - 0.012, bottom, glass, "windows", 0, (lean * 0.85, 0.0))
    shapes += _pane(rng, split + 0.012, top, back - 0.04, bottom, glass, "windows", 1, (0.0, -tail * 0.85))
    hood = waist + rng.uniform(0.0, 0.03)
    body = polygon(
        (-0.5, hood + 0.06), (-0.46, hood + 0.01), (front, waist), (back, waist), (0.47, hood + 0.0),
        (0.5, hood + 0.05), (0.5, sill - 0.03), (0.47, sill), (-0.47, sill), (-0.5, sill - 0.03),
    )  # fmt: skip
    shapes.append(Shape(body, paint, "body", "car_body", shade=0.55))
    shapes.append(Shape(rectangle(-0.47, sill - 0.045, 0.47, sill - 0.005), darker(paint, 0.5), "body"))
    shapes.append(Shape(ellipse(-0.46, hood + 0.085, 0.03, 0.026), (1.0, 0.95, 0.6), "body"))
    shapes.append(Shape(rectangle(0.455, hood + 0.055, 0.495, hood + 0.11), (0.85, 0.1, 0.08), "body"))
    shapes.append(Shape(stroke(split, waist + 0.01, split, sill - 0.05, 0.012), darker(paint, 0.45), "body"))
    handle = rectangle(split + 0.03, waist + 0.045, split + 0.09, waist + 0.062)
    shapes.append(Shape(handle, darker(paint, 0.4), "body"))
    for instance, x in enumerate((-0.3, 0.3)):
        shapes += _wheel(rng, x + rng.uniform(-0.02, 0.02), sill + 0.005, radius, rim, instance)
    return shapes


def truck(rng: np.random.Generator) -> list[Shape]:
    """A cargo box behind a cab with a window, above three wheels."""
    paint, box, rim = color(rng), color(rng, saturation=(0.0, 0.5), value=(0.55, 0.95)), _rim(rng)
    top, floor, gap = rng.uniform(-0.36, -0.28), rng.uniform(0.13, 0.17), rng.uniform(-0.21, -0.17)
    cab_top = rng.uniform(-0.2, -0.14)
    shapes = [Shape(rectangle(-0.46, floor - 0.02, 0.48, floor + 0.035), (0.15, 0.15, 0.16), "cargo")]
    shapes.append(Shape(rectangle(gap, top, 0.5, floor), box, "cargo", "cargo", shade=0.3))
    for x in np.linspace(gap, 0.5, 7)[1:-1]:
        shapes.append(Shape(stroke(x, top + 0.02, x, floor - 0.02, 0.012), darker(box, 0.72), "cargo"))
    shapes.append(Shape(rectangle(gap, top, 0.5, top + 0.025), darker(box, 0.6), "cargo"))
    cab = polygon((-0.4, cab_top), (gap - 0.02, cab_top), (gap - 0.02, floor), (-0.49, floor), (-0.49, floor - 0.14))
    shapes.append(Shape(cab, paint, "cab", "truck_cab", shade=0.4))
    shapes += _pane(rng, -0.435, cab_top + 0.03, gap - 0.07, cab_top + 0.15, _glass(rng), "cab", 0, (0.03, 0.0))
    shapes.append(Shape(ellipse(-0.455, floor - 0.05, 0.025), (1.0, 0.95, 0.6), "cab"))
    radius = rng.uniform(0.085, 0.105)
    for instance, x in enumerate((-0.34, 0.2, 0.4)):
        shapes += _wheel(rng, x, floor + 0.05, radius, rim, instance)
    return shapes


def bus(rng: np.random.Generator) -> list[Shape]:
    """A row of windows in the upper half of a tall body, above two wheels."""
    paint, glass, rim = color(rng), _glass(rng), _rim(rng)
    top, floor, count = rng.uniform(-0.28, -0.22), rng.uniform(0.15, 0.19), int(rng.integers(4, 6))
    shapes = [Shape(rounded(-0.5, top, 0.5, floor, 0.05), paint, "body", "bus_body", shade=0.35)]
    shapes.append(Shape(rectangle(-0.49, floor - 0.13, 0.49, floor - 0.095), darker(paint, 1.5), "body"))
    shapes.append(Shape(ellipse(-0.465, floor - 0.05, 0.022), (1.0, 0.95, 0.6), "body"))
    edges = np.linspace(-0.46, 0.46, count + 1)
    for instance, (left, right) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        shapes += _pane(rng, left + 0.012, top + 0.05, right - 0.012, top + 0.2, glass, "windows", instance)
    radius = rng.uniform(0.085, 0.11)
    for instance, x in enumerate((-0.3, 0.29)):
        shapes += _wheel(rng, x, floor + 0.01, radius, rim, instance)
    return shapes


def house(rng: np.random.Generator) -> list[Shape]:
    """A roof above a wall with two windows and a door."""
    wall = color(rng, saturation=(0.05, 0.45), value=(0.6, 0.95))
    tiles = color(rng, hue=(-0.05, 0.08), saturation=(0.4, 0.9), value=(0.3, 0.75))
    half, eave, base = rng.uniform(0.33, 0.42), rng.uniform(-0.12, -0.05), rng.uniform(0.36, 0.42)
    ridge, flat = rng.uniform(-0.46, -0.38), rng.uniform(0.0, 0.2)
    chimney = rng.choice([-1.0, 1.0]) * rng.uniform(0.16, 0.24)
    shapes = [Shape(rectangle(-half, eave - 0.01, half, base), wall, "wall", "wall", shade=0.2)]
    for y in np.arange(eave + 0.06, base - 0.02, 0.085):
        shapes.append(Shape(rectangle(-half, float(y), half, float(y) + 0.012), darker(wall, 0.84), "wall"))
    shapes.append(Shape(rectangle(chimney - 0.05, ridge, chimney + 0.05, eave - 0.1), darker(tiles, 0.7), "roof"))
    outline = polygon((-flat, ridge), (flat, ridge), (half + 0.09, eave + 0.02), (-half - 0.09, eave + 0.02))
    shapes.append(Shape(outline, tiles, "roof", "roof", shade=0.4))
    for k in (0.35, 0.65, 0.9):
        y, reach = ridge + k * (eave - ridge), flat + k * (half + 0.05 - flat)
        shapes.append(Shape(stroke(-reach, y, reach, y, 0.014), darker(tiles, 0.7), "roof"))
    x = rng.uniform(-0.06, 0.06)
    leaf = color(rng, saturation=(0.4, 0.9), value=(0.25, 0.6))
    shapes.append(Shape(rectangle(x - 0.085, base - 0.25, x + 0.085, base), leaf, "door", "door"))
    shapes.append(Shape(rectangle(x - 0.055, base - 0.22, x + 0.055, base - 0.13), darker(leaf, 0.7), "door"))
    shapes.append(Shape(ellipse(x + 0.05, base - 0.1, 0.016), (0.95, 0.85, 0.4), "door"))
    glass, top = _glass(rng), eave + rng.uniform(0.07, 0.12)
    for instance, center in enumerate((-half * 0.62, half * 0.62)):
        shapes += _pane(rng, center - 0.085, top, center + 0.085, top + 0.15, glass, "windows", instance)
    return shapes


def dog(rng: np.random.Generator) -> list[Shape]:
    """A dog that faces left: head left of the body, tail right of it, legs below."""
    coat = color(rng, hue=(0.04, 0.11), saturation=(0.25, 0.75), value=(0.3, 0.85))
    dark = darker(coat, 0.6)
    legs, up = rng.uniform(0.34, 0.4), rng.uniform(-0.3, -0.22)
    shapes = []
    for instance, x in enumerate((-0.2, -0.1, 0.2, 0.3)):
        tone = darker(coat, 0.75) if instance % 2 else coat
        shift = rng.uniform(-0.03, 0.03)
        limb = polygon((x - 0.05, 0.05), (x + 0.05, 0.05), (x + 0.035 + shift, legs), (x - 0.05 + shift, legs))
        shapes.append(Shape(limb, tone, "legs", "leg", instance))
        shapes.append(Shape(ellipse(x - 0.02 + shift, legs, 0.05, 0.025), darker(tone, 0.8), "legs"))
    rise = rng.uniform(-0.32, -0.22)
    path = [(0.32, -0.02), (0.4, -0.08), (0.45, rise * 0.7), (0.44 + rng.uniform(-0.04, 0.05), rise)]
    shapes.append(Shape(ribbon(path, 0.075, 0.4), dark, "tail", "tail"))
    shapes.append(Shape(ellipse(0.05, 0.03, 0.34, rng.uniform(0.13, 0.16)), coat, "body", "dog_body", shade=0.5))
    if rng.random() < 0.5:
        shapes.append(Shape(blob(rng, rng.uniform(0.0, 0.2), 0.0, 0.08), darker(coat, 0.65), "body"))
    shapes.append(Shape(polygon((-0.3, 0.06), (-0.14, -0.1), (-0.2, up), (-0.38, up + 0.05)), coat, "head", shade=0.3))
    x, y = -0.33, up + 0.0
    shapes.append(Shape(ellipse(x, y, 0.14, 0.12), coat, "head", "dog_head", shade=0.3))
    muzzle = rounded(x - 0.24, y + 0.0, x + 0.0, y + 0.1, 0.045)
    shapes.append(Shape(muzzle, darker(coat, 1.1), "head", "dog_head", shade=0.3))
    shapes.append(Shape(ellipse(x - 0.225, y + 0.02, 0.035), (0.06, 0.05, 0.05), "head"))
    shapes.append(Shape(ellipse(x - 0.06, y - 0.03, 0.026), (0.05, 0.04, 0.04), "head"))
    ear = polygon((x + 0.03, y - 0.11), (x + 0.13, y - 0.08), (x + 0.16, y + 0.12), (x + 0.06, y + 0.11))
    shapes.append(Shape(ear, dark, "head", "dog_head"))
    return shapes


def cat(rng: np.random.Generator) -> list[Shape]:
    """A cat sitting to the front: head with pointed ears above a body, tail at a side."""
    coat = color(rng, hue=(0.03, 0.12), saturation=(0.0, 0.8), value=(0.25, 0.85))
    dark = darker(coat, 0.6)
    head, radius = rng.uniform(-0.24, -0.18), rng.uniform(0.18, 0.21)
    path = [(0.15, 0.38), (0.3, 0.38), (0.4, 0.28), (0.4, 0.1 + rng.uniform(-0.1, 0.05))]
    shapes = [Shape(ribbon(path, 0.085, 0.7), dark, "tail", "tail")]
    torso = polygon((-0.1, head + 0.1), (0.1, head + 0.1), (0.2, 0.15), (0.25, 0.36), (0.2, 0.43), (-0.2, 0.43),
                    (-0.25, 0.36), (-0.2, 0.15))  # fmt: skip
    shapes.append(Shape(torso, coat, "body", "cat_body", shade=0.4))
    shapes.append(Shape(ellipse(0, 0.15, 0.1, 0.16), darker(coat, 1.35), "body"))
    shapes.append(Shape(stroke(0, 0.24, 0, 0.43, 0.014), dark, "body"))
    for side in (-1, 1):
        shapes.append(Shape(ellipse(side * 0.09, 0.41, 0.08, 0.04), darker(coat, 1.15), "body"))
        ear = polygon((side * radius * 0.95, head - 0.05), (side * radius * 0.95, head - radius - 0.13),
                      (side * radius * 0.15, head - radius * 0.8))  # fmt: skip
        shapes.append(Shape(ear, coat, "head", "cat_head"))
        inner = ear.mean(axis=0) + (ear - ear.mean(axis=0)) * 0.5
        shapes.append(Shape(inner.astype(np.float32), (0.9, 0.6, 0.6), "head"))
    shapes.append(Shape(ellipse(0, head, radius * 1.12, radius), coat, "head", "cat_head", shade=0.3))
    iris = color(rng, hue=(0.15, 0.4), saturation=(0.5, 0.9), value=(0.7, 1.0))
    for side in (-1, 1):
        shapes.append(Shape(ellipse(side * 0.085, head - 0.02, 0.045, 0.04), iris, "head", shade=0.0))
        shapes.append(Shape(ellipse(side * 0.085, head - 0.02, 0.016, 0.036), (0.03, 0.03, 0.03), "head"))
        for slope in (0.0, 0.06):
            whisker = stroke(side * 0.05, head + 0.075, side * 0.3, head + 0.04 + slope, 0.011)
            shapes.append(Shape(whisker, (0.95, 0.95, 0.95), "head"))
    nose = polygon((-0.03, head + 0.04), (0.03, head + 0.04), (0, head + 0.075))
    shapes.append(Shape(nose, (0.9, 0.45, 0.5), "head"))
    return shapes


def bicycle(rng: np.random.Generator) -> list[Shape]:
    """A frame of thin tubes between two large wheels."""
    paint, rim = color(rng, value=(0.4, 0.95)), _rim(rng)
    radius, y, width = rng.uniform(0.19, 0.22), 0.13, rng.uniform(0.036, 0.048)
    shapes = []
    for instance, x in enumerate((-0.29, 0.29)):
        shapes += _wheel(rng, x, y, radius, rim, instance)
    seat, bar, pedal = (0.13, -0.13), (-0.19, -0.15), (0.02, 0.14)
    tubes = [((0.29, y), seat), ((0.29, y), pedal), (pedal, seat), (pedal, bar), (seat, bar), ((-0.29, y), bar)]
    tubes += [(seat, (0.15, -0.22)), (bar, (-0.17, -0.27))]
    for (x0, y0), (x1, y1) in tubes:
        shapes.append(Shape(stroke(x0, y0, x1, y1, width), paint, "frame", "frame"))
    shapes.append(Shape(rounded(0.07, -0.26, 0.24, -0.21, 0.025), (0.1, 0.09, 0.09), "frame", "frame"))
    shapes.append(Shape(stroke(-0.16, -0.27, -0.28, -0.29, width), (0.12, 0.12, 0.12), "frame", "frame"))
    shapes.append(Shape(ellipse(*pedal, 0.05), darker(rim, 0.7), "frame"))
    return shapes


def sign(rng: np.random.Generator) -> list[Shape]:
    """A road sign: a bordered plate on top of a pole."""
    metal = color(rng, saturation=(0.0, 0.12), value=(0.4, 0.75))
    center, radius, kind = -0.2, rng.uniform(0.24, 0.29), int(rng.integers(4))
    corners, turn = ((8, np.pi / 8), (4, 0.0), (26, 0.0), (3, -np.pi / 2))[kind]
    t = np.arange(corners) * 2 * np.pi / corners + turn
    ring = np.stack([np.cos(t), np.sin(t)], axis=1).astype(np.float32)
    middle = np.array([0.0, center], dtype=np.float32)
    rim = color(rng, hue=(-0.03, 0.03), saturation=(0.8, 1.0), value=(0.6, 0.95))
    field: Color = (0.95, 0.93, 0.88) if kind != 1 else (0.97, 0.8, 0.15)
    if kind == 0:
        rim, field = (0.95, 0.93, 0.9), rim
    shapes = [Shape(rectangle(-0.035, center, 0.035, 0.5), metal, "pole", "pole", shade=0.1)]
    shapes.append(Shape(middle + ring * radius, rim, "plate", "plate", shade=0.1))
    shapes.append(Shape(middle + ring * radius * 0.76, field, "plate", shade=0.1))
    ink: Color = (0.95, 0.95, 0.95) if kind == 0 else (0.08, 0.08, 0.1)
    if rng.random() < 0.5:
        shapes.append(Shape(rectangle(-radius * 0.45, center - 0.035, radius * 0.45, center + 0.035), ink, "plate"))
    else:
        shapes.append(Shape(rectangle(-0.03, center - radius * 0.4, 0.03, center + radius * 0.12), ink, "plate"))
        shapes.append(Shape(ellipse(0, center + radius * 0.3, 0.03), ink, "plate"))
    return shapes


def face(rng: np.random.Generator) -> list[Shape]:
    """Hair above two eyes above a mouth."""
    skin = color(rng, hue=(0.04, 0.09), saturation=(0.25, 0.6), value=(0.45, 0.95))
    dye = color(rng, hue=(0.0, 0.12), saturation=(0.2, 0.9), value=(0.1, 0.6))
    width, eyes, mouth = rng.uniform(0.3, 0.35), rng.uniform(-0.08, -0.02), rng.uniform(0.2, 0.25)
    shapes = [Shape(ellipse(0, -0.1, width + 0.06, 0.36), dye, "hair", "hair")]
    for side in (-1, 1):
        shapes.append(Shape(ellipse(side * width, 0.03, 0.05, 0.08), darker(skin, 0.85), "skin", erases=True))
    shapes.append(Shape(ellipse(0, 0.04, width, 0.4), skin, "skin", shade=0.3, erases=True))
    fringe = rng.uniform(-0.2, -0.14)
    t = np.linspace(np.pi, 2 * np.pi, 14)
    cap = [(float(np.cos(a)) * (width + 0.03), -0.12 + float(np.sin(a)) * 0.31) for a in t]
    parting = rng.uniform(-0.1, 0.1)
    cap += [(width * 0.7, fringe), (parting, fringe + 0.04), (-width * 0.7, fringe)]
    shapes.append(Shape(polygon(*cap), dye, "hair", "hair", shade=0.4))
    iris = color(rng, saturation=(0.3, 0.8), value=(0.2, 0.6))
    for instance, side in enumerate((-1, 1)):
        x = side * width * 0.45
        shapes.append(Shape(ellipse(x, eyes, 0.085, 0.06), (0.97, 0.97, 0.97), "eyes", "eye", instance, shade=0.0))
        shapes.append(Shape(ellipse(x, eyes, 0.045), iris, "eyes"))
        shapes.append(Shape(ellipse(x, eyes, 0.022), (0.02, 0.02, 0.02), "eyes"))
        shapes.append(Shape(stroke(x - 0.09, eyes - 0.09, x + 0.09, eyes - 0.1, 0.028), darker(dye, 0.8), "eyes"))
    shapes.append(Shape(polygon((-0.01, eyes + 0.06), (0.05, 0.14), (-0.05, 0.14)), darker(skin, 0.78), "skin"))
    curve = rng.uniform(-0.02, 0.08)
    lips = [(-0.14, mouth), (0.0, mouth + curve - 0.03), (0.14, mouth), (0.0, mouth + curve + 0.06)]
    shapes.append(Shape(polygon(*lips), (0.75, 0.2, 0.22), "mouth", "mouth", shade=0.0))
    return shapes


def tree(rng: np.random.Generator) -> list[Shape]:
    """A leafy crown above a trunk."""
    bark = color(rng, hue=(0.05, 0.1), saturation=(0.4, 0.7), value=(0.25, 0.5))
    leaf = color(rng, hue=(0.2, 0.38), saturation=(0.45, 0.9), value=(0.3, 0.75))
    width = rng.uniform(0.05, 0.075)
    stem = polygon((-width * 0.8, 0.0), (width * 0.8, 0.0), (width * 1.4, 0.48), (-width * 1.4, 0.48))
    shapes = [Shape(stem, bark, "trunk", "trunk")]
    shapes.append(Shape(stroke(-width * 0.2, 0.15, -width * 0.4, 0.46, 0.02), darker(bark, 0.6), "trunk"))
    if rng.random() < 0.3:
        for k in range(3):
            y, reach = -0.5 + 0.17 * k, 0.16 + 0.08 * k
            tier = polygon((0, y), (reach, y + 0.28), (-reach, y + 0.28))
            shapes.append(Shape(tier, darker(leaf, 1 - 0.1 * k), "crown", "crown", shade=0.5))
        return shapes
    shapes.append(Shape(blob(rng, 0, -0.17, rng.uniform(0.28, 0.33)), leaf, "crown", "crown", shade=0.6))
    for _ in range(5):
        spot = blob(rng, rng.uniform(-0.18, 0.18), rng.uniform(-0.34, -0.02), rng.uniform(0.06, 0.1), 0.4)
        shapes.append(Shape(spot, darker(leaf, rng.uniform(0.75, 1.25)), "crown", shade=0.5))
    return shapes


def boat(rng: np.random.Generator) -> list[Shape]:
    """Sails above a hull."""
    paint = color(rng, saturation=(0.4, 0.95), value=(0.3, 0.85))
    cloth = color(rng, saturation=(0.0, 0.35), value=(0.8, 1.0))
    deck, keel, mast = rng.uniform(0.16, 0.2), rng.uniform(0.33, 0.38), rng.uniform(-0.05, 0.04)
    shapes = [Shape(stroke(mast, deck + 0.02, mast, -0.47, 0.03), (0.4, 0.26, 0.15), "sail")]
    main = polygon((mast + 0.03, -0.45), (mast + 0.03, deck - 0.05), (mast + rng.uniform(0.32, 0.4), deck - 0.06))
    shapes.append(Shape(main, cloth, "sail", "sail", 0, shade=0.2))
    jib = polygon((mast - 0.03, -0.38), (mast - 0.03, deck - 0.05), (mast - rng.uniform(0.24, 0.32), deck - 0.05))
    shapes.append(Shape(jib, darker(cloth, 0.85), "sail", "sail", 1, shade=0.2))
    side = polygon((-0.48, deck), (0.48, deck), (0.34, keel), (-0.34, keel))
    shapes.append(Shape(side, paint, "hull", "hull", shade=0.5))
    rail = polygon((-0.48, deck), (0.48, deck), (0.46, deck + 0.04), (-0.46, deck + 0.04))
    shapes.append(Shape(rail, (0.93, 0.9, 0.85), "hull"))
    for x in (-0.2, 0.0, 0.2):
        shapes.append(Shape(ellipse(x, deck + 0.1, 0.028), darker(paint, 0.35), "hull"))
    return shapes


OBJECTS: dict[str, Callable[[np.random.Generator], list[Shape]]] = {
    "car": car, "truck": truck, "bus": bus, "house": house, "dog_left": dog, "dog_right": dog, "cat": cat,
    "bicycle": bicycle, "sign": sign, "face": face, "tree": tree, "boat": boat,
}  # fmt: skip
"""Class name -> function that draws one. Both dogs are the same drawing; "dog_right" is mirrored."""
