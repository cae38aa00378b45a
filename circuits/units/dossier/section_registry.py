"""The sections of a dossier: what they are made from, and the registry that holds them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeAlias, runtime_checkable

from circuits.dataset.scan_results import LayerScan, Scan, UnitScan
from circuits.network.address import Unit
from circuits.network.model import Model
from zoo.common.registries import Registry
from zoo.common.results import Result, called
from zoo.images.sources import Images
from zoo.progress import Progress


@runtime_checkable
class Finding(Protocol):
    """What a section finds out. Units in its attribute `related_units`, if it has one, get a thumbnail each."""

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""


@dataclass(frozen=True)
class Nothing(Result):
    """A section that does not apply to this unit, and why."""

    why: str = field(metadata=called("nothing"))


@dataclass(frozen=True, eq=False)
class Subject:
    """What a section is made from.

    Attributes:
        model, unit: the unit, by its canonical address, and its model.
        scan: the scan of the model.
        source: the scanned images, where they have been moved since; see `Scan.images`.
        seed, progress: for sections that sample at random or take long.
    """

    model: Model
    unit: Unit
    scan: Scan
    source: Any = None
    seed: int = 0
    progress: Progress = None

    @property
    def layer_scan(self) -> LayerScan:
        """Statistics of the unit's layer."""
        return self.scan.layer(self.unit.space)

    @cached_property
    def unit_scan(self) -> UnitScan:
        """Statistics and top activating images of the unit."""
        return self.scan.unit(self.unit)

    @cached_property
    def images(self) -> Images:
        """The scanned images."""
        return self.scan.images(self.source)


Make: TypeAlias = Callable[[Subject], Finding | None]


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        name: asked for by `--sections NAME`.
        title: its heading.
        quick: whether every dossier has it: it takes the scan and the weights alone.
        make: gives its finding; None where the section does not exist for this kind of unit.
        order: position on the page, lowest first.
    """

    name: str
    title: str
    quick: bool
    make: Make
    order: int


def _load() -> None:
    folder = importlib.import_module("circuits.units.dossier.sections")
    for module in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}."):
        importlib.import_module(module.name)


SECTIONS: Registry[Section] = Registry("section", group="vision_circuits.dossier_sections", load=_load)
"""Sections by name: of the modules in `circuits/units/dossier/sections`, and of other packages."""


def section(name: str, title: str, *, quick: bool = False, order: int = 100) -> Callable[[Make], Make]:
    """Make a function a section of every dossier: it takes a `Subject` and gives a `Finding`, or None.

    A module in the folder `sections` is found by itself; that of another package declares the entry point
    `vision_circuits.dossier_sections`, or is imported by its users. `circuits.plot.units.section_renderers.renderer`
    gives the section HTML of its own; without a renderer its `describe()` is shown as a table.

    Args:
        name, title, quick, order: see `Section`.

    Raises:
        CircuitsError: there is a section of that name.
    """

    def register(make: Make) -> Make:
        SECTIONS.add(name, Section(name, title, quick, make, order))
        return make

    return register


def page_order() -> list[Section]:
    """All sections in the order of the page."""
    return sorted(SECTIONS.values(), key=lambda entry: entry.order)
