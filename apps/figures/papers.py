"""The papers whose figures are made again: each is declared by the `__init__` of the folder that holds its scripts."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field

from zoo.common.registries import Registry
from zoo.common.results import HIDDEN, Result

GROUP = "vision_circuits.figures"
"""Entry points by which other packages add figures and papers: modules that hold scripts like those here."""


@dataclass(frozen=True)
class Paper(Result):
    """A paper or article.

    Attributes:
        title, authors, year: as published; url: where it can be read.
        order: position in the list and in the gallery; papers without one come last.
    """

    title: str
    authors: str
    year: int
    url: str
    order: int = field(default=1000, metadata=HIDDEN)


class _Papers(Registry[Paper]):
    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__(), key=lambda name: self._things[name].order))


def load_scripts() -> None:
    """Import all folders and scripts of `apps.figures.scripts`: folders declare papers, scripts declare figures."""
    scripts = importlib.import_module("apps.figures.scripts")
    for module in pkgutil.walk_packages(scripts.__path__, f"{scripts.__name__}."):
        importlib.import_module(module.name)


PAPERS = _Papers("paper", group=GROUP, load=load_scripts)
"""By the short name that a script gives, in the order of the gallery."""
