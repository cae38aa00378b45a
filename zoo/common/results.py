"""Results as data: a frozen dataclass that becomes JSON by its own fields."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Result:
    """Base of results: `describe()` gives every field, ready for JSON.

    A field says otherwise in its metadata: `field(metadata=HIDDEN)` leaves it out, `field(metadata=called("weights"))`
    gives it another key. Derived values are added by a class attribute `described = ("fvu", ...)`, the names of
    properties. A class whose document is no list of its fields writes `describe` itself.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Peak(Result):
    ...     unit: str
    ...     at: tuple[int, int]
    ...     map: object = dataclasses.field(default=None, metadata=HIDDEN)
    >>> Peak("mixed4a:11", (3, 5)).describe()
    {'unit': 'mixed4a:11', 'at': [3, 5]}
    """

    described: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        entries = {
            field.metadata.get("called", field.name): getattr(self, field.name)
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
            if not field.metadata.get("hidden")
        }
        entries |= {name: getattr(self, name) for name in self.described}
        return {name: plain(value) for name, value in entries.items()}


HIDDEN: Mapping[str, Any] = {"hidden": True}
"""Metadata of a field that `describe` leaves out: arrays, images."""


def called(name: str) -> Mapping[str, Any]:
    """Metadata of a field that has another key in JSON."""
    return {"called": name}


def plain(value: Any, digits: int | None = None) -> Any:
    """`value` as JSON has it: results described, arrays as lists, numbers that are not finite as None.

    With `digits`, numbers are rounded to so many that count.
    """
    if hasattr(value, "describe"):
        return value.describe() if digits is None else plain(value.describe(), digits)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if digits is None else float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {str(key): plain(item, digits) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy arrays and numbers, tensors
        return plain(value.tolist(), digits)
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name), digits) for field in dataclasses.fields(value)}
    if isinstance(value, Sequence | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [plain(item, digits) for item in items]
    raise TypeError(f"{type(value).__name__} has no place in JSON")
