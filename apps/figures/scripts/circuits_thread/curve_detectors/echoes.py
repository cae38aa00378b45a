"""Curve Detectors: the echoes of curve detectors, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import curve_layer, curve_stimuli, mean_echo, search, tuning
from apps.figures.helpers.unit_roles import random_units

if TYPE_CHECKING:
    from circuits.tuning import Curve


RANDOM = 20
"""Random units of each layer."""


@figure(
    "C13",
    "curve-echoes",
    "Curve detectors lose their echoes over the layers",
    paper="curve-detectors",
    shows="Early curve detectors also activate on the opposite curve; later ones do not.",
    cost=120,
)
def layers(context: FigureContext) -> FigureResult:
    """The radial tuning of the best eight units in each of four layers, all rotated to point up."""
    from circuits.plot.units.curve_detectors import radial_panels

    chain = [curve_layer(context)]
    while len(chain) < 4 and (below := context.model.before(chain[0])) is not None:
        chain.insert(0, below)
    panels: dict[str, list[Curve]] = {}
    notes, echoes, hows = {}, {}, []
    for layer in chain:
        detectors = search(context, "curve", layer, at_least=4)
        units = [u.unit for u in detectors.units[:8]]
        control = random_units(context, layer, RANDOM, but=[u.unit for u in detectors.units])
        stimuli = curve_stimuli(context, layer, context.size(72, 36, 12), context.size(5, 5, 3))
        measured = tuning(context, [*units, *control], stimuli)
        panels[layer] = [measured.radial(unit) for unit in units]
        echoes[layer] = (mean_echo(measured, units), mean_echo(measured, control))
        notes[layer] = f"echo {echoes[layer][0]:.2f}, random units {echoes[layer][1]:.2f}"
        hows.append(f"{layer}: {detectors.passed} of {detectors.of} pass")
    drawing = radial_panels(
        panels,
        notes=notes,
        title="Echoes of curve detectors, layer by layer",
        about="responses in shares of each unit's peak; the preferred orientation points up, the opposite down",
    )
    numbers = {
        "layers": {
            layer: {
                "echo": echoes[layer][0],
                "echo_of_random_units": echoes[layer][1],
                "responses": {c.unit: c.responses for c in panels[layer]},
            }
            for layer in chain
        }
    }
    first, last = echoes[chain[0]][0], echoes[chain[-1]][0]
    claims = [
        Claim.below(f"the echo falls from {chain[0]} to {chain[-1]}", last, first, f"the echo in {chain[0]}"),
        Claim.below(f"no echo in {chain[-1]}", last, echoes[chain[-1]][1], f"{RANDOM} random units of it"),
    ]
    caption = (
        f"The (up to) eight units of each layer that score best in the search for curve detectors ({'; '.join(hows)}); "
        "the search itself prefers units without echoes, equally in every layer."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)
