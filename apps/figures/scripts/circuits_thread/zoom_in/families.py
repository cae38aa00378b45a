"""Zoom In: two families of units, each in many orientations: curves, and high-low frequency boundaries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apps.cli.verify import tuned
from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import search
from apps.figures.helpers.unit_images import visualizations

if TYPE_CHECKING:
    from apps.figures.helpers.tuned_units import Search
    from circuits.stimuli import Stimuli
    from circuits.tuning.curves import Curve, Tuning


@figure(
    "Z1",
    "curves",
    "Curve detectors, in every orientation",
    paper="zoom-in",
    shows="Units of mixed3b detect curves of a certain radius, and together cover all orientations.",
    also=("C1",),
    cost=70,
    published=lambda context: tuned.published(context.model),
)
def curves(context: FigureContext) -> FigureResult:
    """Search for curve detectors, choose ten by orientation, and draw visualization and radial tuning of each."""
    from circuits import stimuli

    detectors = search(context, "curve", context.layer("mixed3b", "fire5"), at_least=context.size(10, 8, 4))
    radii = sorted({float(u.about["preferred"]["radius"]) for u in detectors.units})
    stimulus_set = stimuli.curves(context.size(48, 24, 12), tuple(radii[:: max(1, len(radii) // 3)]))
    return _family(context, detectors, stimulus_set, "curve detectors")


@figure(
    "Z3",
    "high-low-frequency",
    "High-low frequency detectors, in every orientation",
    paper="zoom-in",
    shows="Units of mixed3a detect fine texture on one side of a boundary and coarse texture on the other.",
    also=("H1",),
    cost=60,
)
def high_low(context: FigureContext) -> FigureResult:
    """Search for high-low frequency detectors, choose ten by orientation, and draw them like curve detectors."""
    from circuits import stimuli

    detectors = search(context, "high-low", context.layer("mixed3a", "fire4"), at_least=context.size(10, 8, 4))
    return _family(
        context,
        detectors,
        stimuli.high_low(context.size(36, 24, 12), (4.0,), samples=2),
        "high-low frequency detectors",
    )


def _family(context: FigureContext, detectors: Search, stimuli: Stimuli, plural: str) -> FigureResult:
    from circuits.plot.drawing.unit_rows import UnitLook, unit_grid
    from circuits.tuning import tune

    chosen = detectors.spread(context.size(10, 8, 4))
    units = [u.unit for u in chosen]
    tuning = tune(context.model, units, stimuli=stimuli)
    crops = visualizations(context, units)
    looks = [
        UnitLook(u.unit, crops[u.unit], (), _dial(tuning, u.unit), (f"{u.orientation:.0f}°", f"score {u.score:.2f}"))
        for u in chosen
    ]
    about = f"{detectors.layer} of {context.model.name}; below each unit its radial tuning, in shares of its peak"
    drawing = unit_grid(looks, title=plural[0].upper() + plural[1:], about=about)
    n = len(detectors.units)
    chance = 360.0 / n * float(np.sum(1 / np.arange(1, n + 1)))  # expected largest gap of n random directions
    best = detectors.units[0].score
    claims = [
        Claim.above(
            f"the best unit passes the tests of {plural}",
            best,
            max(detectors.best_untrained, 0.5),
            "0.5, or the best unit of the same layer untrained",
        ),
        Claim(
            "their orientations cover the circle: largest gap, degrees",
            detectors.gap,
            chance,
            detectors.passed > 1 and detectors.gap <= chance,
            f"expected of {n} random orientations",
        ),
    ]
    numbers = {
        "layer": detectors.layer,
        "passed": detectors.passed,
        "of": detectors.of,
        "best_untrained": detectors.best_untrained,
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
        f"Feature visualizations of {len(units)} {plural}, in order of orientation, with their radial "
        f"tuning to synthetic stimuli; {detectors.how}; shown are those most even in orientation."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)


def _dial(tuning: Tuning, unit: str) -> Curve:
    """Responses around the circle at the best size (radius or ratio), the mean over light and dark."""
    from circuits.tuning.curves import Curve

    size = next(axis.name for axis in tuning.axes if axis.name in ("radius", "ratio"))
    table = tuning.over("orientation", size, reduce="mean")[tuning.row(unit)]
    best = int(table.amax(dim=0).argmax())
    return Curve(unit, tuning.axis("orientation"), table[:, best], {size: tuning.axis(size).values[best]})
