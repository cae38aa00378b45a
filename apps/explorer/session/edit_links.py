"""Edits as a parameter of a view's address: `11:set:2x@4,0,7,7~39:above:0.5x/7:ablate`.

An edit is LATENT:KIND:VALUE, with x after a value in multiples of the maximum; then `@` and a box of positions (top,
left, bottom, right, all inside it), or `last`, or tokens of a text; then `~` and a condition.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, cast

from apps.explorer.server.security import UploadError
from circuits.errors import shorten
from sae.errors import SAEError
from sae.steering import LatentEdit, When
from sae.steering.edits import NUMBER

MOST = 12
"""Largest number of edits in a view."""
LARGEST = 1e4
"""Largest absolute value of an edit: no network has larger activations."""
_EDIT = re.compile(rf"(\d{{1,7}}):(set|add|scale|ablate)(?::({NUMBER})(x?))?", re.ASCII)
_FORM = "edits have the form 11:set:2x@4,0,7,7~39:above:0.5x, with / between them"

Edits = tuple[LatentEdit, ...]


def parse_edits(text: str, count: int, size: tuple[int, int] | None) -> Edits:
    """Edits from an address.

    Args:
        text: of `format_edits`; count: number of latents; size: of the map, or None for texts.

    Raises:
        UploadError: too many edits, another form, or a latent or position that does not exist. SAEError: values that
            make no edit.
    """
    parts = text.split("/") if text else []
    if len(parts) > MOST:
        raise UploadError(f"at most {MOST} edits at a time, not {len(parts)}")
    return tuple(_edit(part, count, size) for part in parts)


def _edit(text: str, count: int, size: tuple[int, int] | None) -> LatentEdit:
    head, *conditions = text.split("~")
    first, *positions = head.split("@")
    match = _EDIT.fullmatch(first)
    if match is None or (match[3] is None) != (match[2] == "ablate"):
        raise UploadError(f"{_FORM}; {shorten(text, 60)!r} does not")
    kind, value = cast(Any, match[2]), None if match[3] is None else _bounded(float(match[3]))
    return LatentEdit(
        _latent(int(match[1]), count), kind, value, "max" if match[4] else "absolute",
        at=_positions(positions, size), when=tuple(_when(condition, count, size) for condition in conditions),
    )  # fmt: skip


def _when(text: str, count: int, size: tuple[int, int] | None) -> When:
    try:
        condition = When.parse(text)
    except SAEError as error:
        raise UploadError(f"{_FORM}; the condition {shorten(text, 60)!r} does not") from error
    if size is None and condition.anywhere:
        raise UploadError(f"a text has no map, so conditions have no anywhere; got {shorten(text, 60)!r}")
    for bound in (condition.above, condition.below):
        if bound is not None:
            _bounded(bound)
    _latent(condition.latent, count)
    return condition


def _bounded(value: float) -> float:
    if abs(value) > LARGEST:
        raise UploadError(f"values are between -{LARGEST:g} and {LARGEST:g}; got {value:g}")
    return value


def _latent(number: int, count: int) -> int:
    if number >= count:
        raise UploadError(f"there are units 0 to {count - 1}; an edit names {number}")
    return number


def _positions(parts: Sequence[str], size: tuple[int, int] | None) -> Any:
    if not parts:
        return "all"
    if size is None and list(parts) == ["last"]:
        return "last"
    numbers = [tuple(int(n) for n in part.split(",") if n.isdecimal() and len(n) < 5) for part in parts]
    if any(len(row) != part.count(",") + 1 for row, part in zip(numbers, parts, strict=True)):
        raise UploadError(f"{_FORM}; the positions {shorten('@'.join(parts), 60)!r} do not")
    if size is None:
        return tuple(sorted({n for row in numbers for n in row}))
    for row in numbers:
        if len(row) != 4 or not (row[0] <= row[2] < size[0] and row[1] <= row[3] < size[1]):
            raise UploadError(
                f"a box is top, left, bottom, right within {size[0]}x{size[1]}; got {','.join(map(str, row))}"
            )
    return tuple(
        sorted({position for row in numbers for position in positions_in(cast(tuple[int, int, int, int], row))})
    )


def format_edits(edits: Iterable[LatentEdit]) -> str:
    """Edits as `parse_edits` reads them."""
    return "/".join(_format(edit) for edit in edits)


def _format(edit: LatentEdit) -> str:
    value = "" if edit.value is None else f":{_short(edit.value)}{'x' * (edit.unit == 'max')}"
    text = f"{edit.latent}:{edit.kind}{value}"
    if edit.on_map:
        text += "".join("@" + ",".join(map(str, box)) for box in boxes(edit.at))
    elif edit.at != "all":
        text += "@" + (edit.at if isinstance(edit.at, str) else ",".join(map(str, edit.at)))
    for condition in edit.conditions:
        for name in ("above", "below"):
            bound = getattr(condition, name)
            if bound is not None:
                unit = "x" * (condition.unit == "max")
                text += f"~{condition.latent}:{name}:{_short(bound)}{unit}" + ":anywhere" * condition.anywhere
    return text


def _short(value: float) -> str:
    return f"{value:.9g}".replace("e+", "e").replace("e0", "e").replace("e-0", "e-")


def boxes(positions: Iterable[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """Positions as boxes (top, left, bottom, right, all inside them) that do not overlap.

    >>> boxes([(0, 0), (0, 1), (1, 0), (1, 1), (3, 2)])
    [(0, 0, 1, 1), (3, 2, 3, 2)]
    """
    remaining, rectangles = set(positions), []
    while remaining:
        top, start = min(remaining)
        right, bottom = start, top
        while (top, right + 1) in remaining:
            right += 1
        while all((bottom + 1, x) in remaining for x in range(start, right + 1)):
            bottom += 1
        box = (top, start, bottom, right)
        remaining -= set(positions_in(box))
        rectangles.append(box)
    return rectangles


def positions_in(box: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    """All positions of a box."""
    top, left, bottom, right = box
    return [(y, x) for y in range(top, bottom + 1) for x in range(left, right + 1)]


def as_python(edits: Iterable[LatentEdit]) -> str:
    """Edits as a Python list, with positions as ranges over boxes."""
    return "[\n" + "".join(f"    {_code(edit)},\n" for edit in edits) + "]"


def _code(edit: LatentEdit) -> str:
    parts = [str(edit.latent), repr(edit.kind), *([] if edit.value is None else [repr(edit.value)])]
    if edit.unit != "absolute":
        parts.append(f"unit={edit.unit!r}")
    if edit.on_map:
        ranges = [
            f"[(y, x) for y in range({t}, {b + 1}) for x in range({le}, {r + 1})]" for t, le, b, r in boxes(edit.at)
        ]
        parts.append("at=" + " + ".join(ranges))
    elif edit.at != "all":
        parts.append(f"at={edit.at!r}")
    if edit.conditions:
        whens = ", ".join(_when_code(condition) for condition in edit.conditions)
        parts.append(f"when={whens}" if len(edit.conditions) == 1 else f"when=({whens})")
    return f"LatentEdit({', '.join(parts)})"


def _when_code(condition: When) -> str:
    parts = [
        str(condition.latent),
        *(f"{n}={getattr(condition, n)!r}" for n in ("above", "below") if getattr(condition, n) is not None),
    ]
    parts += [f"unit={condition.unit!r}"] * (condition.unit != "absolute") + ["anywhere=True"] * condition.anywhere
    return f"When({', '.join(parts)})"
