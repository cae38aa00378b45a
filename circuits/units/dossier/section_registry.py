"""The sections of a dossier. A new one is registered, and drawn by a function of the same name in `circuits.plot`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from circuits.errors import CircuitsError, did_you_mean, shorten

if TYPE_CHECKING:
    from typing import Any

    from circuits.units.dossier.explain import Subject


class Finding(Protocol):
    """What a section finds out. Addresses of units in `shown`, if it has that, get a thumbnail each."""

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""


@dataclass(frozen=True)
class Nothing:
    """A section that has nothing to say of this unit, and why."""

    why: str

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"nothing": self.why}


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        name: what it is asked for by.
        title: its heading.
        quick: whether it is made unasked, from the scan and the weights alone.
        make: finds it out; None where there is no such thing to say of this kind of unit.
    """

    name: str
    title: str
    quick: bool
    make: Callable[[Subject], Finding | None]


SECTIONS: dict[str, Section] = {}
"""In the order in which they stand on the page."""


def register(section: Section) -> Section:
    """Add a section.

    Raises:
        CircuitsError: there is one of that name.
    """
    if section.name in SECTIONS:
        raise CircuitsError(f"there is a section {section.name!r} already")
    SECTIONS[section.name] = section
    return section


def section(name: str) -> Section:
    """The section called `name`.

    Raises:
        CircuitsError: there is none.
    """
    if name not in SECTIONS:
        hint = did_you_mean(name, SECTIONS)
        raise CircuitsError(f"there is no section {shorten(name)!r}.{hint} There are {', '.join(SECTIONS)}")
    return SECTIONS[name]
