"""All figures, and the choice among them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from apps.figures.figure import FIGURES, Figure
from apps.figures.papers import PAPERS
from zoo.errors import CircuitsError, did_you_mean, shorten


def figures() -> list[Figure]:
    """All figures, by paper and in the order of their ids."""
    order = list(PAPERS)
    return sorted(FIGURES.values(), key=lambda figure: (order.index(figure.paper), _natural(figure.id)))


def _natural(id: str) -> list[tuple[int, str]]:
    """Sorts Z2 before Z11."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.findall(r"\d+|\D+", id)]


def select(names: Sequence[str]) -> list[Figure]:
    """Figures by id, by name or by the short name of a paper; all for none or "all".

    Raises:
        CircuitsError: nothing of that name.
    """
    available = figures()
    if not names or "all" in names:
        return available
    ids: set[str] = set()
    for name in names:
        hits = {f.id for f in available if name.lower() in (f.paper, *(n.lower() for n in f.names))}
        if not hits:
            hint = did_you_mean(name, [n for f in available for n in f.names] + list(PAPERS))
            raise CircuitsError(f"there is no figure {shorten(name)!r}.{hint} `circuits figures list` has them all")
        ids |= hits
    return [f for f in available if f.id in ids]
