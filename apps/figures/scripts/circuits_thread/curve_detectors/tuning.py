"""Curve Detectors: responses of curve detectors to drawn curves of every orientation and many radii."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import Search, curve_layer, curve_stimuli, mean_echo, search, tuning
from apps.figures.helpers.unit_roles import random_units

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apps.cli.verify.checks import Check
    from apps.figures.context import FigureContext
    from circuits.plot.drawing.crops import Crop
    from circuits.stimuli import Stimuli
    from circuits.tuning import Curve, Tuning

RANDOM = 20
"""Units drawn by lot that stand beside the detectors."""


def _published(context: FigureContext) -> Iterator[Check]:
    from apps.cli.verify import tuned

    return tuned.published(context.model)


def _measured(context: FigureContext) -> tuple[Search, Tuning, list[str]]:
    """Curve detectors and units drawn by lot, under the same stimuli."""
    layer = curve_layer(context)
    found = search(context, "curve", layer, at_least=4)
    shown = [u.unit for u in found.spread(12, best=24)]
    control = random_units(context, layer, RANDOM, but=[u.unit for u in found.units])
    made = curve_stimuli(context, layer, context.size(72, 36, 12), context.size(7, 7, 4))
    return found, tuning(context, [*shown, *control], made), control


@figure(
    "C2",
    "one-curve-detector",
    "One curve detector answers to one orientation",
    paper="curve-detectors",
    shows="A curve detector answers to curves of its orientation, less and less as they turn, and not to the opposite.",
    cost=60,
    published=_published,
)
def one(context: FigureContext) -> FigureResult:
    """The best detector, at its best radius and at a straight line."""
    from circuits.plot.units.curve_detectors import orientation_plot

    found, measured, control = _measured(context)
    best = found.one
    curve = measured.radial(best.unit)
    row = measured.rows()[measured.row(best.unit)]
    straight = measured.along(best.unit, "orientation", radius=float("inf"))
    level = mean_echo(measured, control)
    drawing = orientation_plot(
        [curve],
        _stimuli(context, found.layer, curve),
        shares=False,
        control=[straight],
        label="gray: the straight lines that these curves touch",
        title=f"{best.unit.rpartition('/')[2]} against the orientation of a curve",
        about=f"radius {curve.at['radius']:g} pixels, {curve.at['polarity']} on gray; half width at half maximum "
        f"{row.width or 0:.0f}°, echo {row.echo or 0:.2f}",
    )
    numbers = {
        "unit": best.unit,
        "score": best.score,
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
        Claim("silent to the opposite curve", echo, level, echo < level, f"mean of {len(control)} random units"),
        Claim(
            "a curve arouses it more than the straight line that touches it",
            float(curve.responses.max()),
            float(straight.responses.max()),
            bool(curve.responses.max() > straight.responses.max()),
            "its strongest response to straight lines",
        ),
    ]
    return FigureResult({"": drawing}, numbers, f"Responses of {_named(found)}; {found.how}.", claims)


@figure(
    "C3",
    "all-curve-detectors",
    "Curve detectors share out the orientations",
    paper="curve-detectors",
    shows="Together the curve detectors of a layer span all orientations, each silent at its opposite.",
    cost=20,
)
def all_of_them(context: FigureContext) -> FigureResult:
    """The responses of up to twelve, each in shares of its peak."""
    from circuits.plot.units.curve_detectors import orientation_plot
    from sae.evaluation.orientation_coverage import coverage

    found, measured, control = _measured(context)
    shown = [u.unit for u in found.spread(12, best=24)]
    curves = [measured.radial(unit) for unit in shown]
    echo, level = mean_echo(measured, shown), mean_echo(measured, control)
    spread = coverage([u.orientation for u in found.units], seed=context.seed)
    drawing = orientation_plot(
        curves,
        _stimuli(context, found.layer, curves[0]),
        title=f"{len(curves)} units of {found.layer} against the orientation of a curve",
        about=f"each at its own best radius; mean echo {echo:.2f} (units drawn by lot: {level:.2f}); largest gap "
        f"between preferred orientations {spread.largest_gap:.0f}° (by lot {spread.chance[0]:.0f}°)",
    )
    numbers = {
        "orientations": curves[0].axis.values,
        "responses": {c.unit: c.responses for c in curves},
        "found": [{"unit": u.unit, "score": u.score, "orientation": u.orientation} for u in found.units],
        "echo": {unit: measured.rows()[measured.row(unit)].echo for unit in shown},
        "echo_of_random_units": level,
        "coverage": spread.describe(),
    }
    claims = [
        Claim("silent to opposite curves: mean echo", echo, level, echo < level, f"{len(control)} random units"),
        Claim(
            "orientations more even than by lot: largest gap in degrees",
            spread.largest_gap,
            spread.chance[0],
            spread.largest_gap < spread.chance[0],
            "median of as many orientations drawn by lot",
        ),
    ]
    caption = f"Responses of {len(curves)} of the 24 best units, spread over the orientations; {found.how}."
    return FigureResult({"": drawing}, numbers, caption, claims)


@figure(
    "C10",
    "curve-heat-map",
    "A curve detector under curves of every orientation and radius",
    paper="curve-detectors",
    shows="A curve detector takes curves of a range of radii, at one orientation.",
    cost=20,
)
def heat_map(context: FigureContext) -> FigureResult:
    """Orientation across, radius down."""
    import numpy as np

    from circuits.plot import tuning_map

    found, measured, control = _measured(context)
    best = found.one
    drawing = tuning_map(measured, best.unit, "radius", "orientation")
    table = measured.over("radius", "orientation")[:, :-1].double().numpy()
    shares = {unit: _by_orientation(table[measured.row(unit)]) for unit in measured.units}
    own = shares[best.unit]
    level = float(np.mean([shares[unit] for unit in control]))
    numbers = {
        "unit": best.unit,
        "orientations": measured.axis("orientation").values,
        "radii": measured.axis("radius").labels,
        "responses": measured.over("radius", "orientation")[measured.row(best.unit)],
        "variance_by_orientation": own,
        "of_random_units": level,
    }
    claim = Claim(
        "orientation, not radius, decides: share of the variance over curves that orientation alone explains",
        own, level, own > level, f"mean of {len(control)} random units",
    )  # fmt: skip
    caption = f"{_named(found)}; the stimuli of the last row are straight lines; {found.how}."
    return FigureResult({"": drawing}, numbers, caption, [claim])


def _named(found: Search) -> str:
    best = found.one is found.units[0]
    return f"{found.one.unit.rpartition('/')[2]}{', the best-scoring curve detector' if best else ''}"


def _by_orientation(table: Any) -> float:
    """Share of the variance of responses `(radii, orientations)` that their mean over radii explains."""
    total = float(((table - table.mean()) ** 2).sum())
    means = table.mean(axis=0)
    return float(len(table) * ((means - means.mean()) ** 2).sum() / total) if total > 0 else 0.0


def _stimuli(context: FigureContext, layer: str, curve: Curve) -> list[Crop]:
    """Pictures of the curves at every eighth of a turn."""
    from circuits import stimuli
    from circuits.plot.drawing.crops import pixels
    from zoo.inputs import InputSpec

    radius = float(curve.at["radius"])
    field = context.model.layers[layer].receptive_field
    size = 64 if field is None else min(min(context.model.input.hw), max(field.size))
    made: Stimuli = stimuli.curves(8, (radius,), width=3.0, polarity=("light",))
    return [pixels(p, 3) for p in made.tensor(InputSpec(size=max(32, size)))]
