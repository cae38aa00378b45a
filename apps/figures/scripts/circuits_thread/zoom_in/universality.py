"""Zoom In: the same families of units in networks of other makes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure

if TYPE_CHECKING:
    from apps.figures.context import FigureContext
    from apps.figures.helpers.tuned_units import Search

_NETS = ("scenes", "squeezenet-1.1", "googlenet-bvlc")
"""Networks that are compared with, where their weights are here."""
_LAYERS = {"curve": ("mixed3b", "fire5"), "high-low": ("mixed3a", "fire4")}


@figure(
    "Z13",
    "universality",
    "Curve and high-low frequency detectors in several networks",
    paper="zoom-in",
    shows="The same families of units come up in networks of different makes, trained apart.",
    cost=150,
)
def draw(context: FigureContext) -> FigureResult:
    """Search each network for both families by their tuning, and draw the best of each, beside untrained ones."""
    from apps.figures.helpers.unit_images import renders
    from circuits.plot.drawing.unit_rows import UnitLook, unit_rows

    benches, missing = _benches(context)
    n = context.size(5, 3, 2)
    pictures, numbers, claims = {}, {}, []
    for kind, names in _LAYERS.items():
        found = {name: _search(one, kind, names, n) for name, one in benches.items()}
        looks = []
        for name, one in found.items():
            units = [u.unit for u in one.units[:n]]
            made = renders(benches[name], units)
            notes = (one.layer, f"{one.passed} of {one.of} pass", f"best {one.units[0].score:.2f}",
                     f"untrained {one.best_untrained:.2f}")  # fmt: skip
            looks.append(UnitLook(name, [made[u][0] for u in units], notes=notes, heading=name))
        what = "Curve detectors" if kind == "curve" else "High-low frequency detectors"
        pictures[kind] = unit_rows(looks, columns=0, tile=140, title=what,
                                   about=f"the {n} best of each network, by their tuning")  # fmt: skip
        numbers[kind] = {
            name: {"layer": s.layer, "passed": s.passed, "of": s.of, "best_untrained": s.best_untrained,
                   "units": [[u.unit, u.score, u.orientation] for u in s.units[:n]]}
            for name, s in found.items()
        }  # fmt: skip
        there = sum(s.passed > 0 and s.units[0].score > s.best_untrained for s in found.values())
        claims.append(
            Claim(f"networks of {len(found)} with {kind} detectors, better than any untrained unit", there,
                  sum(s.best_untrained >= 0.5 for s in found.values()), there == len(found) and there > 1,
                  "networks in which an untrained unit passes")
        )  # fmt: skip
    without = f" Not here: {', '.join(missing)}." if missing else ""
    caption = (
        f"The {n} units of each network that score best as curve detectors and as high-low frequency detectors, found "
        f"by their tuning to synthetic stimuli, and how many pass the tests. Networks: {', '.join(benches)}.{without}"
    )
    return FigureResult(pictures, numbers, caption, claims)


def _benches(context: FigureContext) -> tuple[dict[str, FigureContext], list[str]]:
    """A workbench for each network that is here, and the names of those that are not."""
    from apps.figures.context import FigureContext as Workbench
    from zoo.errors import CircuitsError

    found, missing = {context.model.name: context}, []
    for name in context.size(_NETS, _NETS[:2], _NETS[:1]):
        if name in found:
            continue
        other = Workbench(replace(context.settings, model=name, weights=None, images=()), context.shared)
        try:
            found[other.model.name] = other
        except CircuitsError:
            missing.append(name)
    return found, missing


def _search(context: FigureContext, kind: str, layers: tuple[str, ...], n: int) -> Search:
    from apps.figures.helpers.tuned_units import search

    return search(context, kind, context.layer(*layers), at_least=n)
