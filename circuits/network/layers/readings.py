"""How a tensor is read as maps, from the labels of its axes."""

from __future__ import annotations

import math
from typing import Any

from circuits.network.layers.axes import IMAGES, Axes, Layouts, plain_axes
from circuits.network.layers.labels import (
    BATCH,
    RANK,
    SPACE,
    Atom,
    Axis,
    Labels,
    Lost,
    Root,
    is_plain,
    merged,
    new_axis,
    whole_root,
)  # fmt: skip


def layouts_of(labels: Labels | Lost | None, shape: tuple[int, ...]) -> Layouts:
    """How a tensor of `shape` is read, by its labels, once the pass has ended."""
    if labels is None:
        return "it is not computed from the image"
    if isinstance(labels, Lost):
        return f"what {labels!s} does to the axes is not known"
    labels = tuple(_resolved(axis) for axis in labels)
    tokens = [(d, root) for d, axis in enumerate(labels) if (root := whole_root(axis)) and root.kind == "tokens"]
    if len(tokens) == 2:
        return PATTERN
    if not tokens:
        return _single(labels, shape, None)
    dim, root = tokens[0]
    patches: list[tuple[int, int, Axis]] = []
    extra: list[int] = []
    at = 0
    for length, part in root.parts:
        if part is None:
            extra += range(at, at + length)
        else:
            patches.append((at, length, _resolved(part)))
        at += length
    if len(patches) != 1:
        return "it holds several maps one after another"
    first, number, axis = patches[0]
    result: dict[str, Axes] = {}
    taken: list[tuple[str, Axis, tuple[int, int, int] | None]] = [("", axis, (dim, first, number))]
    taken += [(str(k), (), (dim, i, 1)) for k, i in enumerate(extra)]
    taken += [("tokens", new_axis("column", root.size), None)]
    for name, part, where in taken:
        sizes = shape if where is None else (*shape[:dim], where[2], *shape[dim + 1 :])
        axes = _single((*labels[:dim], part, *labels[dim + 1 :]), sizes, where, root.size)
        if isinstance(axes, str):
            return axes
        result[name] = axes[""]
    return result


def _resolved(axis: Axis) -> Axis:
    root = whole_root(axis)
    return root.alias if root is not None and root.alias is not None else axis


def _single(labels: Labels, shape: tuple[int, ...], taken: tuple[int, int, int] | None, length: int = 0) -> Layouts:
    """The layout of one map."""
    groups: dict[str, list[tuple[int, Atom]]] = {kind: [] for kind in (*RANK,)}
    atoms = [(atom, axis) for axis in labels for atom in (axis or _LENGTH_ONE)]
    numbered = [(k, atom) for k, (atom, _) in enumerate(atoms)]
    for k, (atom, axis) in enumerate(atoms):
        # positions beside features in one axis are features: four neighbors, merged into one patch
        beside = atom.root.kind in SPACE and any(a.root.kind == "feature" for a in axis)
        if atom.root.kind in groups:
            groups["feature" if beside else atom.root.kind].append((k, atom))
    reason = _unreadable(groups)
    if reason:
        return reason
    depth, rows, columns = (sorted(groups[kind], key=lambda p: -p[1].inner) for kind in SPACE)
    rows = [*depth, *rows]
    features, images = groups["feature"], groups["image"]
    order = tuple(k for k, _ in (*images, *features, *rows, *columns))
    # axes of length one belong to no group, and go where they change nothing
    ones = tuple(k for k, _ in numbered if k not in order)
    order = (*order[: 1 + len(features)], *ones, *order[1 + len(features) :])
    counts = (len(features) + len(ones), len(rows), len(columns))
    if len(shape) == 2 and not rows and not columns and order[0] == 0:
        return {"": plain_axes(shape)}
    if len(shape) == 4 and is_plain(labels) and order == tuple(range(4)) and not _shift(rows, columns):
        return {"": plain_axes(shape)}
    sizes = tuple(tuple(IMAGES if a.root.kind == "image" else a.size for a in (axis or _LENGTH_ONE)) for axis in labels)
    height, width = (math.prod(a.size for _, a in group) for group in (rows, columns))
    grid = (height, width) if rows or columns else None
    axes = Axes(
        layout=_layout(labels, len(features), grid),
        channels=math.prod(a.size for _, a in features),
        grid=grid,
        sizes=sizes,
        order=order,
        counts=counts,
        tokens=taken,
        length=length,
        shift=_shift(rows, columns) or (0, 0),
        slices=math.prod(a.size for _, a in depth),
    )
    return {"": axes}


PATTERN = "it has two axes of positions, as an attention pattern has: those that read and those that are read"

_LENGTH_ONE: Axis = (Atom(Root("one", 1), 1, 1),)


def _unreadable(groups: dict[str, list[tuple[int, Atom]]]) -> str:
    if groups["mixed"]:
        return "one of its axes is a mixture of positions or of tensors"
    if groups["tokens"] or groups["extra"]:
        return "one of its axes is tokens of several kinds"
    if len(groups["image"]) != 1 or groups["image"][0][1].size != BATCH:
        return "none of its axes is the images"
    if len({id(atom.root) for _, atom in groups["feature"] if atom.root.kind == "feature"}) > 1:
        return "two of its axes are features"
    if groups["depth"] and any(atom.root.shift for kind in SPACE for _, atom in groups[kind]):
        return "it is a volume that was rolled"
    for kind in SPACE:
        atoms = sorted((atom for _, atom in groups[kind]), key=lambda a: -a.inner)
        if len(merged(atoms)) > 1:
            return PATTERN
        if atoms and atoms[0].inner * atoms[0].size != atoms[0].root.size:
            return f"it holds only some of the {kind}s of its map"
    return ""


def _shift(rows: list[tuple[int, Atom]], columns: list[tuple[int, Atom]]) -> tuple[int, int] | None:
    y, x = (group[0][1].root.shift if group else 0 for group in (rows, columns))
    return (y, x) if y or x else None


def _layout(labels: Labels, features: int, grid: tuple[int, int] | None) -> Any:
    kinds = [sorted({atom.root.kind for atom in axis}) for axis in labels]
    if kinds[0] != ["image"]:
        return "windows"
    if kinds == [["image"], ["row"], ["column"], ["feature"]]:
        return "channels-last"
    for layout, space in (("sequence", ["column"]), ("volume", [*SPACE])):
        if kinds[1:] in ([["feature"], *([kind] for kind in space)], [[], *([kind] for kind in space)]):
            return layout
    if features > 1:
        return "heads"
    return "tokens" if len(labels) == 3 or grid is None else "windows"
