"""All figures: the scripts of `apps.figures.scripts`, found by themselves."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Sequence

from apps.figures import scripts
from apps.figures.figure import KNOWN, Figure
from apps.figures.papers import PAPERS
from zoo.errors import CircuitsError, did_you_mean, shorten


def figures() -> list[Figure]:
    """All figures, by paper and in the order of their ids."""
    for found in pkgutil.walk_packages(scripts.__path__, f"{scripts.__name__}."):
        importlib.import_module(found.name)
    order = {paper: i for i, paper in enumerate(PAPERS)}
    return sorted(KNOWN.values(), key=lambda one: (order[one.paper], _counted(one.id)))


def _counted(id: str) -> list[tuple[int, str]]:
    """Sorts Z2 before Z11."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.findall(r"\d+|\D+", id)]


def chosen(names: Sequence[str]) -> list[Figure]:
    """The figures asked for: by id, by name, by the short name of a paper, or all.

    Raises:
        CircuitsError: nothing of that name.
    """
    every = figures()
    if not names or "all" in names:
        return every
    wanted: dict[str, Figure] = {}
    for name in names:
        hits = [f for f in every if name.lower() in (f.paper, *(n.lower() for n in f.names))]
        if not hits:
            known = [n for f in every for n in f.names] + list(PAPERS)
            raise CircuitsError(
                f"there is no figure {shorten(name)!r}.{did_you_mean(name, known)} `circuits figures list` has them all"
            )
        wanted.update((f.id, f) for f in hits)
    return [f for f in every if f.id in wanted]
