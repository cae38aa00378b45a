"""Checks of arguments: each returns the value, or raises one line that names the argument, the value and the range."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import TypeVar

from zoo.errors import CircuitsError, shorten

T = TypeVar("T")


def whole_number(
    name: str, value: object, *, least: int = 1, most: int | None = None, error: type[CircuitsError] = CircuitsError
) -> int:
    """`value` as an int, when it is a whole number between `least` and `most`; True and False are none.

    >>> whole_number("top", 0)
    Traceback (most recent call last):
    zoo.errors.CircuitsError: top=0 must be a whole number of at least 1
    """
    good = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not good or value < least or (most is not None and value > most):  # type: ignore[operator]
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        quoted = repr(value) if isinstance(value, str) else value  # 3 is fine where "3" is not
        raise error(f"{name}={shorten(quoted)} must be a whole number {bounds}")
    return int(value)  # type: ignore[call-overload, no-any-return]


def number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    error: type[CircuitsError] = CircuitsError,
) -> float:
    """`value` as a float, when it is finite, above `above`, at least `least` and at most `most`.

    >>> number("share", 1.5, least=0, most=1)
    Traceback (most recent call last):
    zoo.errors.CircuitsError: share=1.5 must be a number of at least 0 and at most 1
    """
    good = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if good:
        real = float(value)  # type: ignore[arg-type]
        good = (above is None or real > above) and (least is None or real >= least) and (most is None or real <= most)
    if not good:
        bounds = [f"above {above:g}"] if above is not None else []
        bounds += [f"of at least {least:g}"] if least is not None else []
        bounds += [f"at most {most:g}"] if most is not None else []
        raise error(f"{name}={shorten(value)} must be a number {' and '.join(bounds) or 'that is finite'}")
    return real


def one_of(name: str, value: T, known: Iterable[T], *, error: type[CircuitsError] = CircuitsError) -> T:
    """`value`, when it is among `known`.

    >>> one_of("pool", "max", ("max", "mean"))
    'max'
    """
    choices = list(known)
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise error(f"{name}={shorten(repr(value))}: use one of {listed}")
    return value
