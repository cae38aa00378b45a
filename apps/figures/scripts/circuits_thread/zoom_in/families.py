"""Zoom In: two families of units, each in many orientations: curves, and high-low frequency boundaries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure

if TYPE_CHECKING:
    from apps.cli.verify.checks import Check
    from apps.figures.context import FigureContext
    from apps.figures.helpers.tuned_units import Search
    from circuits.stimuli import Stimuli
    from circuits.tuning.curves import Curve, Tuning


def _published(context: FigureContext) -> list[Check]:
    from apps.cli.verify import tuned

    return list(tuned.published(context.model))


@figure(
    "Z1",
    "curves",
    "Curve detectors, in every orientation",
    paper="zoom-in",
    shows="Units of mixed3b look for curves of a certain radius, and together cover all orientations.",
    also=("C1",),
    cost=70,
    published=_published,
)
def curves(context: FigureContext) -> FigureResult:
    """Search for curve detectors, choose ten by orientation, and draw what each looks for and its radial tuning."""
    from apps.figures.helpers.tuned_units import search
    from circuits import stimuli

    found = search(context, "curve", context.layer("mixed3b", "fire5"), at_least=context.size(10, 8, 4))
    radii = sorted({float(u.about["preferred"]["radius"]) for u in found.units})
    shown = stimuli.curves(context.size(48, 24, 12), tuple(radii[:: max(1, len(radii) // 3)]))
    return _family(context, found, shown, "curve detectors")


@figure(
    "Z3",
    "high-low-frequency",
    "High-low frequency detectors, in every orientation",
    paper="zoom-in",
    shows="Units of mixed3a look for fine texture on one side of a boundary and coarse on the other.",
    also=("H1",),
    cost=60,
)
def high_low(context: FigureContext) -> FigureResult:
    """Search for high-low frequency detectors, choose ten by orientation, and draw them as curves are drawn."""
    from apps.figures.helpers.tuned_units import search
    from circuits import stimuli

    found = search(context, "high-low", context.layer("mixed3a", "fire4"), at_least=context.size(10, 8, 4))
    return _family(
        context, found, stimuli.high_low(context.size(36, 24, 12), (4.0,), samples=2), "high-low frequency detectors"
    )


def _family(context: FigureContext, found: Search, stimuli: Stimuli, what: str) -> FigureResult:
    import numpy as np

    from apps.figures.helpers.unit_images import looks
    from circuits.plot.drawing.unit_rows import unit_grid
    from circuits.tuning import tune

    chosen = found.spread(context.size(10, 8, 4))
    units = [u.unit for u in chosen]
    tuning = tune(context.model, units, stimuli=stimuli)
    notes = {u.unit: (f"{u.orientation:.0f}°", f"score {u.score:.2f}") for u in chosen}
    about = f"{found.layer} of {context.model.name}; below each its radial tuning, in shares of its peak"
    drawing = unit_grid(
        looks(context, units, curves={u: _dial(tuning, u) for u in units}, notes=notes),
        title=what[0].upper() + what[1:],
        about=about,
    )
    n = len(found.units)
    chance = 360.0 / n * float(np.sum(1 / np.arange(1, n + 1)))  # expected largest gap of n random directions
    best = found.units[0].score
    claims = [
        Claim(
            f"the best unit passes the tests of {what}", best, max(found.best_untrained, 0.5),
            best > max(found.best_untrained, 0.5), "0.5, or the best unit of the same layer untrained",
        ),
        Claim(
            "their orientations go round the circle: the largest gap, degrees", found.gap, chance,
            found.passed > 1 and found.gap <= chance, f"expected of {n} random orientations",
        ),
    ]  # fmt: skip
    numbers = {
        "layer": found.layer,
        "passed": found.passed,
        "of": found.of,
        "best_untrained": found.best_untrained,
        "units": [
            {
                "unit": u.unit,
                "score": u.score,
                "orientation": u.orientation,
                "responses": _dial(tuning, u.unit).responses.tolist(),
            }
            for u in chosen
        ],
        "orientations": list(stimuli.axis("orientation").values),
    }
    caption = (
        f"What {len(units)} {what} look for (pictures made by optimization), in order of orientation, with their "
        f"radial tuning to synthetic stimuli; {found.how}; shown are those most even in orientation."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)


def _dial(tuning: Tuning, unit: str) -> Curve:
    """Responses around the circle at the best size (radius or ratio), the mean over light and dark."""
    from circuits.tuning.curves import Curve

    size = next(axis.name for axis in tuning.axes if axis.name in ("radius", "ratio"))
    table = tuning.over("orientation", size, reduce="mean")[tuning.row(unit)]
    best = int(table.amax(dim=0).argmax())
    return Curve(unit, tuning.axis("orientation"), table[:, best], {size: tuning.axis(size).values[best]})
