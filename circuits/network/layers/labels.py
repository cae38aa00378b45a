"""Labels of a tensor's axes while they are followed through a network: what each is a product of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

BATCH = 2
"""Images in the pass: with one, the axis of the images would look like any other axis of length one."""


@dataclass(eq=False)
class Root:
    """An axis as it was made.

    Attributes:
        kind: "image", "feature", "depth" (of volumes), "row", "column", "tokens" (patches and others, one after
            another), "extra" (tokens that are no patches) or "mixed" (what a linear layer makes of positions).
        size: its length.
        parts: of "tokens": the axes of each run of tokens; None for those that are no patches.
        shift: positions that it was rolled by; `rolled` is the axis as it was before.
        alias: of "mixed": the positions that its values were added to.
    """

    kind: str
    size: int
    parts: tuple[tuple[int, Axis | None], ...] = ()
    shift: int = 0
    rolled: Root | None = None
    alias: Axis | None = field(default=None)


class Atom(NamedTuple):
    """A factor of an axis: `size` indices, `inner` apart in the root."""

    root: Root
    size: int
    inner: int


Axis = tuple[Atom, ...]
"""One axis of a tensor as a product, outermost factor first; empty for length one."""
Labels = tuple[Axis, ...]


class Lost(str):
    """Instead of labels: the function that they were lost in."""


SPACE = ("depth", "row", "column")
POSITIONAL = (*SPACE, "patches", "tokens")
RANK = {"depth": 4, "row": 4, "column": 4, "patches": 4, "tokens": 4, "image": 4, "feature": 3, "extra": 2, "mixed": 1}


def new_axis(kind: str, size: int, **more: Any) -> Axis:
    """A new axis of its own."""
    return (Atom(Root(kind, size, **more), size, 1),) if size > 1 else ()


def fresh(shape: Sequence[int]) -> Labels:
    """Labels of a map with channels first, of a vector, of sequences `(N, C, T)` or of volumes `(N, C, D, H, W)`."""
    space = {3: ("column",), 5: SPACE}.get(len(shape), ("row", "column"))
    return tuple(new_axis(kind, n) for kind, n in zip(("image", "feature", *space), shape, strict=False))


def kind_of(axis: Axis) -> str:
    """The kind of an axis: "" for length one, "patches" for rows and columns, "mixed" for others of several kinds."""
    kinds = {atom.root.kind for atom in axis}
    if len(kinds) > 1:
        return "patches" if kinds <= {*SPACE} else "mixed"
    return kinds.pop() if kinds else ""


def whole_root(axis: Axis) -> Root | None:
    """The root that an axis is, unsplit."""
    return axis[0].root if len(axis) == 1 and axis[0].size == axis[0].root.size else None


def like(axis: Axis, size: int) -> Axis:
    """An axis of the same meaning and another length."""
    kind = kind_of(axis)
    same = kind == "feature" or (kind in (*SPACE, "extra", "mixed") and whole_root(axis) is not None)
    return new_axis(kind if same else "mixed", size)


def merged(atoms: Sequence[Atom]) -> Axis:
    """Neighboring factors that belong together become one."""
    result: list[Atom] = []
    for atom in atoms:
        last = result[-1] if result else None
        if last is not None and last.root is atom.root and last.inner == atom.inner * atom.size:
            result[-1] = Atom(atom.root, last.size * atom.size, atom.inner)
        else:
            result.append(atom)
    return tuple(result)


def regrouped(labels: Labels, shape: Sequence[int]) -> Labels | None:
    """Labels after a reshape to `shape`; None where an axis would be cut in uneven parts."""
    todo = [atom for axis in labels for atom in axis][::-1]
    result = []
    for size in shape:
        axis: list[Atom] = []
        while size > 1:
            if not todo:
                return None
            atom = todo.pop()
            if size % atom.size == 0:
                size //= atom.size
                axis.append(atom)
            elif atom.size % size == 0 and atom.root.kind not in ("tokens", "image"):
                inner = atom.size // size
                axis.append(Atom(atom.root, size, atom.inner * inner))
                todo.append(Atom(atom.root, inner, atom.inner))
                size = 1
            else:
                return None
        result.append(merged(axis))
    return None if todo else tuple(result)


def better(a: Axis, b: Axis) -> Axis:
    """What an axis of a sum is, by what it is in two of the tensors."""
    if not a or not b:
        return a or b
    first, second = (RANK[kind_of(axis)] if kind_of(axis) else 0 for axis in (a, b))
    best, other = (a, b) if first >= second else (b, a)
    root = whole_root(other)
    if root is not None and root.kind == "mixed" and kind_of(best) in POSITIONAL:
        root.alias = root.alias or best  # values that are added to these positions are values of these positions
    return best


def sliced(axis: Axis, start: int, stop: int, size: int) -> Axis:
    """The axis of the indices from `start` up to `stop`."""
    if (start, stop) == (0, size):
        return axis
    root = whole_root(axis)
    if root is None or root.kind != "tokens":
        return like(axis, stop - start)
    taken, at = [], 0
    for length, part in root.parts:
        low, high = max(start, at) - at, min(stop, at + length) - at
        if low < high:
            if part is not None and (low, high) != (0, length):
                return new_axis("mixed", stop - start)
            taken.append((high - low, part))
        at += length
    if len(taken) == 1:
        return taken[0][1] if taken[0][1] is not None else new_axis("extra", stop - start)
    return new_axis("tokens", stop - start, parts=tuple(taken))


def known_labels(x: Any) -> Labels | None:
    """The labels that a tensor carries; None for anything else."""
    labels = getattr(x, "_axes", None) if isinstance(x, Tensor) else None
    return None if isinstance(labels, Lost) else labels


def is_plain(labels: Labels) -> bool:
    """Whether they are those of a map with channels first, or of a vector."""
    kinds = zip(labels, MAP_KINDS, strict=False)
    return len(labels) in (2, 4) and all(kind_of(axis) in ("", kind) for axis, kind in kinds)


MAP_KINDS = ["image", "feature", "row", "column"]
