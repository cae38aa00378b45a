"""Curve Detectors: responses of curve detectors to synthetic curves of every orientation and many radii."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from apps.cli.verify import tuned
from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import Search, curve_detectors, curve_layer, curve_stimuli, mean_echo, tuning
from apps.figures.helpers.unit_roles import random_units

if TYPE_CHECKING:
    from circuits.plot.drawing.crops import Crop
    from circuits.stimuli import Stimuli
    from circuits.tuning import Curve, Tuning

RANDOM = 20
"""Random units, as a control."""


def _measured(context: FigureContext) -> tuple[Search, Tuning, list[str]]:
    """Curve detectors and random units, under the same stimuli."""
    layer = curve_layer(context)
    detectors = curve_detectors(context, 4)
    units = [u.unit for u in detectors.spread(12, best=24)]
    control = random_units(context, layer, RANDOM, but=[u.unit for u in detectors.units])
    stimuli = curve_stimuli(context, layer, context.size(72, 36, 12), context.size(7, 7, 4))
    return detectors, tuning(context, [*units, *control], stimuli), control


@figure(
    "C2",
    "one-curve-detector",
    "One curve detector activates on one orientation",
    paper="curve-detectors",
    shows="A curve detector activates on curves of its orientation, less on rotated ones, and not on the opposite.",
    cost=60,
    published=lambda context: tuned.published(context.model),
)
def single_detector(context: FigureContext) -> FigureResult:
    """The best detector, at its best radius and at a straight line."""
    from circuits.plot.units.curve_detectors import orientation_plot

    detectors, measured, control = _measured(context)
    example = detectors.example
    curve = measured.radial(example.unit)
    row = measured.rows()[measured.row(example.unit)]
    straight = measured.along(example.unit, "orientation", radius=float("inf"))
    level = mean_echo(measured, control)
    drawing = orientation_plot(
        [curve],
        _stimuli(context, detectors.layer, curve),
        shares=False,
        control=[straight],
        label="gray: the straight lines that these curves touch",
        title=f"{example.unit.rpartition('/')[2]} against the orientation of a curve",
        about=f"radius {curve.at['radius']:g} pixels, {curve.at['polarity']} on gray; half width at half maximum "
        f"{row.width or 0:.0f}°, echo {row.echo or 0:.2f}",
    )
    numbers = {
        "unit": example.unit,
        "score": example.score,
        "orientations": curve.axis.values,
        "responses": curve.responses,
        "straight": straight.responses,
        "at": dict(curve.at),
        "direction": row.direction,
        "half_width": row.width,
        "echo": row.echo,
        "echo_of_random_units": level,
    }
    echo = 1.0 if row.echo is None else row.echo
    claims = [
        Claim.below("silent to the opposite curve", echo, level, f"mean of {len(control)} random units"),
        Claim.above(
            "a curve activates it more than the straight line that touches it",
            float(curve.responses.max()),
            float(straight.responses.max()),
            "its strongest response to straight lines",
        ),
    ]
    return FigureResult({"": drawing}, numbers, f"Responses of {_example(detectors)}; {detectors.how}.", claims)


@figure(
    "C3",
    "all-curve-detectors",
    "Curve detectors cover the orientations",
    paper="curve-detectors",
    shows="Together the curve detectors of a layer span all orientations, each silent at its opposite.",
    cost=20,
)
def all_detectors(context: FigureContext) -> FigureResult:
    """The responses of up to twelve, each in shares of its peak."""
    from circuits.plot.units.curve_detectors import orientation_plot
    from sae.evaluation.orientation_coverage import coverage

    detectors, measured, control = _measured(context)
    units = [u.unit for u in detectors.spread(12, best=24)]
    curves = [measured.radial(unit) for unit in units]
    echo, level = mean_echo(measured, units), mean_echo(measured, control)
    spread = coverage([u.orientation for u in detectors.units], seed=context.seed)
    drawing = orientation_plot(
        curves,
        _stimuli(context, detectors.layer, curves[0]),
        title=f"{len(curves)} units of {detectors.layer} against the orientation of a curve",
        about=f"each at its own best radius; mean echo {echo:.2f} (random units: {level:.2f}); largest gap "
        f"between preferred orientations {spread.largest_gap:.0f}° (at random {spread.chance[0]:.0f}°)",
    )
    numbers = {
        "orientations": curves[0].axis.values,
        "responses": {c.unit: c.responses for c in curves},
        "found": [{"unit": u.unit, "score": u.score, "orientation": u.orientation} for u in detectors.units],
        "echo": {unit: measured.rows()[measured.row(unit)].echo for unit in units},
        "echo_of_random_units": level,
        "coverage": spread.describe(),
    }
    claims = [
        Claim.below("silent to opposite curves: mean echo", echo, level, f"{len(control)} random units"),
        Claim.below(
            "orientations are more even than random ones: largest gap in degrees",
            spread.largest_gap,
            spread.chance[0],
            "median of as many random orientations",
        ),
    ]
    caption = f"Responses of {len(curves)} of the 24 best units, spread over the orientations; {detectors.how}."
    return FigureResult({"": drawing}, numbers, caption, claims)


@figure(
    "C10",
    "curve-heat-map",
    "A curve detector's response to curves of every orientation and radius",
    paper="curve-detectors",
    shows="A curve detector activates on curves of a range of radii, at one orientation.",
    cost=20,
)
def heat_map(context: FigureContext) -> FigureResult:
    """Orientation across, radius down."""
    from circuits.plot import tuning_map

    detectors, measured, control = _measured(context)
    example = detectors.example
    drawing = tuning_map(measured, example.unit, "radius", "orientation")
    table = measured.over("radius", "orientation")[:, :-1].double().numpy()
    shares = {unit: _by_orientation(table[measured.row(unit)]) for unit in measured.units}
    own = shares[example.unit]
    level = float(np.mean([shares[unit] for unit in control]))
    numbers = {
        "unit": example.unit,
        "orientations": measured.axis("orientation").values,
        "radii": measured.axis("radius").labels,
        "responses": measured.over("radius", "orientation")[measured.row(example.unit)],
        "variance_by_orientation": own,
        "of_random_units": level,
    }
    claim = Claim.above(
        "orientation matters, radius does not: share of the variance that orientation explains",
        own,
        level,
        f"mean of {len(control)} random units",
    )
    caption = f"{_example(detectors)}; the stimuli of the last row are straight lines; {detectors.how}."
    return FigureResult({"": drawing}, numbers, caption, [claim])


def _example(detectors: Search) -> str:
    best = detectors.example is detectors.units[0]
    return f"{detectors.example.unit.rpartition('/')[2]}{', the best-scoring curve detector' if best else ''}"


def _by_orientation(table: Any) -> float:
    """Share of the variance of responses `(radii, orientations)` that their mean over radii explains."""
    total = float(((table - table.mean()) ** 2).sum())
    means = table.mean(axis=0)
    return float(len(table) * ((means - means.mean()) ** 2).sum() / total) if total > 0 else 0.0


def _stimuli(context: FigureContext, layer: str, curve: Curve) -> list[Crop]:
    """Images of the curves at eight orientations."""
    from circuits import stimuli
    from circuits.plot.drawing.crops import pixels
    from zoo.inputs import InputSpec

    radius = float(curve.at["radius"])
    field = context.model.layers[layer].receptive_field
    size = 64 if field is None else min(min(context.model.input.hw), max(field.size))
    curves: Stimuli = stimuli.curves(8, (radius,), width=3.0, polarity=("light",))
    return [pixels(p, 3) for p in curves.tensor(InputSpec(size=max(32, size)))]
