"""Zoom In: the same families of units in networks of other architectures."""

from __future__ import annotations

from dataclasses import replace

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import search
from apps.figures.helpers.unit_images import visualizations

_NETS = ("scenes", "squeezenet-1.1", "googlenet-bvlc")
"""Networks for the comparison, where their weights are available."""
_LAYERS = {"curve": ("mixed3b", "fire5"), "high-low": ("mixed3a", "fire4")}


@figure(
    "Z13",
    "universality",
    "Curve and high-low frequency detectors in several networks",
    paper="zoom-in",
    shows="The same families of units form in networks of different architectures that were trained independently.",
    cost=150,
)
def draw(context: FigureContext) -> FigureResult:
    """Search each network for both families by their tuning, and draw the best of each, beside untrained ones."""
    from circuits.plot.drawing.unit_rows import UnitLook, unit_rows

    contexts, missing = _contexts(context)
    count = context.size(5, 3, 2)
    drawings, numbers, claims = {}, {}, []
    for kind, layers in _LAYERS.items():
        searches = {name: search(c, kind, c.layer(*layers), at_least=count) for name, c in contexts.items()}
        looks = []
        for name, result in searches.items():
            units = [u.unit for u in result.units[:count]]
            crops = visualizations(contexts[name], units)
            notes = (result.layer, f"{result.passed} of {result.of} pass", f"best {result.units[0].score:.2f}",
                     f"untrained {result.best_untrained:.2f}")  # fmt: skip
            looks.append(UnitLook(name, [crops[u][0] for u in units], notes=notes, heading=name))
        title = "Curve detectors" if kind == "curve" else "High-low frequency detectors"
        drawings[kind] = unit_rows(looks, columns=0, tile=140, title=title,
                                   about=f"the {count} best of each network, by their tuning")  # fmt: skip
        numbers[kind] = {
            name: {"layer": s.layer, "passed": s.passed, "of": s.of, "best_untrained": s.best_untrained,
                   "units": [[u.unit, u.score, u.orientation] for u in s.units[:count]]}
            for name, s in searches.items()
        }  # fmt: skip
        present = sum(s.passed > 0 and s.units[0].score > s.best_untrained for s in searches.values())
        claims.append(
            Claim(
                f"networks of {len(searches)} with {kind} detectors, better than any untrained unit",
                present,
                sum(s.best_untrained >= 0.5 for s in searches.values()),
                present == len(searches) and present > 1,
                "networks in which an untrained unit passes",
            )
        )
    absent = f" Not available: {', '.join(missing)}." if missing else ""
    caption = (
        f"The {count} units of each network that score best as curve detectors and as high-low frequency detectors, by "
        f"their tuning to synthetic stimuli, and how many pass the tests. Networks: {', '.join(contexts)}.{absent}"
    )
    return FigureResult(drawings, numbers, caption, claims)


def _contexts(context: FigureContext) -> tuple[dict[str, FigureContext], list[str]]:
    """A context for each network whose weights are available, and the names of the others."""
    from zoo.errors import CircuitsError

    contexts, missing = {context.model.name: context}, []
    for name in context.size(_NETS, _NETS[:2], _NETS[:1]):
        if name in contexts:
            continue
        other = FigureContext(replace(context.settings, model=name, weights=None, images=()), context.shared)
        try:
            contexts[other.model.name] = other
        except CircuitsError:
            missing.append(name)
    return contexts, missing
