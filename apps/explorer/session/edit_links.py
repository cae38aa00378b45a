"""Edits as a part of a view's address, so that a link opens the same: `11:set:2x@4,0,7,7~39:above:0.5x/7:ablate`.

Each edit is LATENT:KIND:VALUE, with x behind a value that is in multiples of the maximum; then `@` and a box of places
(top, left, bottom, right, counted with them) or `last` or tokens of a text; then `~` and a condition.
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
"""Edits in one view."""
LARGEST = 1e4
"""Values beyond are of no network's making."""
_EDIT = re.compile(rf"(\d{{1,7}}):(set|add|scale|ablate)(?::({NUMBER})(x?))?", re.ASCII)
_FORM = "edits are written 11:set:2x@4,0,7,7~39:above:0.5x, with / between them"

Edits = tuple[LatentEdit, ...]


def parsed(text: str, count: int, size: tuple[int, int] | None) -> Edits:
    """Edits from an address.

    Args:
        text: of `written`; count: how many latents there are; size: of the map, or None for texts.

    Raises:
        UploadError: none, too many, a latent or a place that there is not. SAEError: an edit that says nothing.
    """
    parts = text.split("/") if text else []
    if len(parts) > MOST:
        raise UploadError(f"at most {MOST} edits at a time, not {len(parts)}")
    return tuple(_edit(part, count, size) for part in parts)


def _edit(text: str, count: int, size: tuple[int, int] | None) -> LatentEdit:
    head, *conditions = text.split("~")
    first, *places = head.split("@")
    found = _EDIT.fullmatch(first)
    if found is None or (found[3] is None) != (found[2] == "ablate"):
        raise UploadError(f"{_FORM}; {shorten(text, 60)!r} is none")
    kind, value = cast(Any, found[2]), None if found[3] is None else _bounded(float(found[3]))
    return LatentEdit(
        _latent(int(found[1]), count), kind, value, "max" if found[4] else "absolute",
        at=_places(places, size), when=tuple(_when(one, count, size) for one in conditions),
    )  # fmt: skip


def _when(text: str, count: int, size: tuple[int, int] | None) -> When:
    try:
        found = When.parse(text)
    except SAEError as error:
        raise UploadError(f"{_FORM}; the condition {shorten(text, 60)!r} is none") from error
    if size is None and found.anywhere:
        raise UploadError(f"a text has no map: anywhere is of pictures; got {shorten(text, 60)!r}")
    for bound in (found.above, found.below):
        if bound is not None:
            _bounded(bound)
    _latent(found.latent, count)
    return found


def _bounded(value: float) -> float:
    if abs(value) > LARGEST:
        raise UploadError(f"values are between -{LARGEST:g} and {LARGEST:g}; got {value:g}")
    return value


def _latent(number: int, count: int) -> int:
    if number >= count:
        raise UploadError(f"there are units 0 to {count - 1}; an edit is of {number}")
    return number


def _places(parts: Sequence[str], size: tuple[int, int] | None) -> Any:
    if not parts:
        return "all"
    if size is None and list(parts) == ["last"]:
        return "last"
    numbers = [tuple(int(n) for n in part.split(",") if n.isdecimal() and len(n) < 5) for part in parts]
    if any(len(row) != part.count(",") + 1 for row, part in zip(numbers, parts, strict=True)):
        raise UploadError(f"{_FORM}; the places {shorten('@'.join(parts), 60)!r} are none")
    if size is None:
        return tuple(sorted({n for row in numbers for n in row}))
    for row in numbers:
        if len(row) != 4 or not (row[0] <= row[2] < size[0] and row[1] <= row[3] < size[1]):
            raise UploadError(
                f"a box of places is top, left, bottom, right within {size[0]}x{size[1]}; got {','.join(map(str, row))}"
            )
    return tuple(sorted({place for row in numbers for place in filled(cast(tuple[int, int, int, int], row))}))


def written(edits: Iterable[LatentEdit]) -> str:
    """Edits as `parsed` reads them."""
    return "/".join(_written(one) for one in edits)


def _written(one: LatentEdit) -> str:
    value = "" if one.value is None else f":{_short(one.value)}{'x' * (one.unit == 'max')}"
    text = f"{one.latent}:{one.kind}{value}"
    if one.on_map:
        text += "".join("@" + ",".join(map(str, box)) for box in boxes(one.at))
    elif one.at != "all":
        text += "@" + (one.at if isinstance(one.at, str) else ",".join(map(str, one.at)))
    for condition in one.conditions:
        for name in ("above", "below"):
            bound = getattr(condition, name)
            if bound is not None:
                unit = "x" * (condition.unit == "max")
                text += f"~{condition.latent}:{name}:{_short(bound)}{unit}" + ":anywhere" * condition.anywhere
    return text


def _short(value: float) -> str:
    return f"{value:.9g}".replace("e+", "e").replace("e0", "e").replace("e-0", "e-")


def boxes(places: Iterable[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """Places as boxes (top, left, bottom, right, counted with them) that do not overlap.

    >>> boxes([(0, 0), (0, 1), (1, 0), (1, 1), (3, 2)])
    [(0, 0, 1, 1), (3, 2, 3, 2)]
    """
    left, found = set(places), []
    while left:
        top, start = min(left)
        right, bottom = start, top
        while (top, right + 1) in left:
            right += 1
        while all((bottom + 1, x) in left for x in range(start, right + 1)):
            bottom += 1
        box = (top, start, bottom, right)
        left -= set(filled(box))
        found.append(box)
    return found


def filled(box: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    """All places of a box."""
    top, left, bottom, right = box
    return [(y, x) for y in range(top, bottom + 1) for x in range(left, right + 1)]


def as_python(edits: Iterable[LatentEdit]) -> str:
    """Edits as a list in Python, with places as boxes where that is shorter."""
    return "[\n" + "".join(f"    {_code(one)},\n" for one in edits) + "]"


def _code(one: LatentEdit) -> str:
    parts = [str(one.latent), repr(one.kind), *([] if one.value is None else [repr(one.value)])]
    if one.unit != "absolute":
        parts.append(f"unit={one.unit!r}")
    if one.on_map:
        ranges = [
            f"[(y, x) for y in range({t}, {b + 1}) for x in range({le}, {r + 1})]" for t, le, b, r in boxes(one.at)
        ]
        parts.append("at=" + " + ".join(ranges))
    elif one.at != "all":
        parts.append(f"at={one.at!r}")
    if one.conditions:
        whens = ", ".join(_when_code(condition) for condition in one.conditions)
        parts.append(f"when={whens}" if len(one.conditions) == 1 else f"when=({whens})")
    return f"LatentEdit({', '.join(parts)})"


def _when_code(one: When) -> str:
    parts = [str(one.latent), *(f"{n}={getattr(one, n)!r}" for n in ("above", "below") if getattr(one, n) is not None)]
    parts += [f"unit={one.unit!r}"] * (one.unit != "absolute") + ["anywhere=True"] * one.anywhere
    return f"When({', '.join(parts)})"
