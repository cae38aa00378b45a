"""Settings objects: a frozen dataclass instead of many keyword arguments that are passed from function to function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from zoo.errors import CircuitsError, did_you_mean, shorten

S = TypeVar("S")


def settings_of(
    kind: type[S], settings: S | None, options: Mapping[str, Any], *, error: type[CircuitsError] = CircuitsError
) -> S:
    """Settings of dataclass `kind` made of keyword options, or `settings` with these fields replaced.

    Raises:
        CircuitsError: an option that is no field, with the nearest ones; settings of another class.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Blur:
    ...     radius: int = 1
    >>> settings_of(Blur, None, {"radius": 3})
    Blur(radius=3)
    >>> settings_of(Blur, None, {"raduis": 3})
    Traceback (most recent call last):
    zoo.errors.CircuitsError: no option 'raduis'. Nearest: radius. There are: radius
    """
    if settings is not None and not isinstance(settings, kind):
        raise error(f"settings= takes a {kind.__name__}, not a {type(settings).__name__}")
    check_options(options, (f.name for f in fields(kind)), error=error)  # type: ignore[arg-type]
    return kind(**options) if settings is None else replace(settings, **options)  # type: ignore[type-var]


def check_options(options: Iterable[str], known: Iterable[str], *, error: type[CircuitsError] = CircuitsError) -> None:
    """Raise, with the nearest names, where one of `options` is not among `known`."""
    names = list(known)
    for option in options:
        if option not in names:
            raise error(f"no option {shorten(option)!r}.{did_you_mean(option, names)} There are: {', '.join(names)}")
