"""The sections of a dossier. A new one is registered, and drawn by a function of the same name in `circuits.plot`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from circuits.dataset.scan_results import LayerScan, Scan, UnitScan
from circuits.errors import CircuitsError, did_you_mean, shorten
from circuits.network.address import Unit
from circuits.network.model import Model
from zoo.images.sources import Images
from zoo.progress import Progress


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


@dataclass(frozen=True, eq=False)
class Subject:
    """What a section is made from.

    Attributes:
        model, unit: the unit, by its canonical address, and its model.
        scan: what was found on pictures.
        images: those pictures, where they are not where they were.
        seed, progress: for sections that draw lots or take long.
    """

    model: Model
    unit: Unit
    scan: Scan
    images: Any = None
    seed: int = 0
    progress: Progress = None

    @property
    def layer(self) -> LayerScan:
        """What the scan found of the unit's layer."""
        return self.scan.layer(self.unit.space)

    @cached_property
    def found(self) -> UnitScan:
        """What the scan found of the unit."""
        return self.scan.unit(self.unit)

    @cached_property
    def pictures(self) -> Images:
        """The pictures that were scanned."""
        return self.scan.pictures(self.images)
