"""Curve Circuits: curves read curves, and what the negative weights between them are for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import curve_layer, curve_stimuli, layer_before, mean_echo, search

if TYPE_CHECKING:
    from apps.figures.context import FigureContext


@figure(
    "K5",
    "curve-weight-matrix",
    "Curves read curves: the weights between two layers of curve detectors",
    paper="curve-circuits",
    shows="Sorted by orientation, the weights between two layers of curve detectors have a positive diagonal.",
    cost=10,
)
def matrix(context: FigureContext) -> FigureResult:
    """Early against later detectors, in the order of their orientation, and shuffled."""
    import numpy as np

    from apps.figures.drawing.orientation_matrix import orientation_matrix
    from circuits.tuning.detectors import sign_rule

    layer = curve_layer(context)
    later = search(context, "curve", layer, at_least=8)
    early = search(context, "curve", layer_before(context, layer), at_least=8)
    sources, targets = early.detectors[:20], later.detectors[:24]
    rule = sign_rule(context.model, sources, targets, shuffles=context.size(2000, 1000, 200), seed=context.seed)
    first, second = (np.array([d.orientation for d in side]) for side in (sources, targets))
    drawing = orientation_matrix(rule, first, second, seed=context.seed, title=f"Curves of {early.layer} into {layer}")
    level = float(np.quantile(rule.shuffled, 0.95))
    claims = [
        Claim("like orientations excite, opposite ones inhibit: correlation of the weight with the cosine of the angle",
              rule.correlation, level, rule.correlation > level, "95 % of shuffles"),
        Claim("opposite curves inhibit: mean weight beyond 120°", rule.mean(120, 181), rule.mean(0, 60),
              rule.mean(120, 181) < min(0.0, rule.mean(0, 60)), "mean weight within 60°"),
    ]  # fmt: skip
    numbers = {**rule.describe(), "source_orientations": first, "target_orientations": second}
    numbers.pop("provenance")
    caption = f"The best {len(targets)} and {len(sources)} detectors. Rows: {later.how}. Columns: {early.how}."
    return FigureResult({"": drawing}, numbers, caption, claims)


@figure(
    "K6",
    "curve-echoes-uncut",
    "Without negative weights between curves the echoes come back",
    paper="curve-circuits",
    shows="Negative weights from earlier curves keep curve detectors silent at the opposite orientation.",
    cost=60,
)
def without_negatives(context: FigureContext) -> FigureResult:
    """Radial tuning as it is, without the negative weights from earlier curves, and without as many others."""
    import numpy as np

    import circuits
    from apps.figures.analysis.weight_ablation import cut, negative_part
    from circuits.plot.units.curve_detectors import radial_panels

    layer = curve_layer(context)
    later = search(context, "curve", layer, at_least=8)
    early = search(context, "curve", layer_before(context, layer), at_least=8)
    units = [u.unit for u in later.units[:10]]
    made = curve_stimuli(context, layer, context.size(48, 24, 12), context.size(5, 5, 3))
    weights = circuits.expanded_weights(context.model, source=early.layer, target=units)
    curves = [u.index for u in early.units]
    left = [i for i in range(weights.kernels.shape[1]) if i not in curves]
    lot = np.random.default_rng(context.seed).permutation(left)[: len(curves)].tolist()
    panels: dict[str, Any] = {}
    echoes = {}
    for name, sources in (
        ("as it is", []),
        (f"without negatives of {len(curves)} curves", curves),
        (f"without those of {len(lot)} by lot", lot),
    ):
        with cut(context.model, weights, negative_part(weights, sources)):
            found = circuits.tune(context.model, units, stimuli=made)
        panels[name] = [found.radial(unit) for unit in units]
        echoes[name] = mean_echo(found, units)
    drawing = radial_panels(
        panels,
        notes={name: f"mean echo {echo:.3f}" for name, echo in echoes.items()},
        title=f"Curve detectors of {layer} without negative weights from {early.layer}",
        about="each in shares of its own peak, its peak turned up; the echo is what points down",
    )
    before, after, control = echoes.values()
    numbers = {"units": units, "cut": curves, "cut_by_lot": lot, "echo": echoes,
               "responses": {n: {c.unit: c.responses for c in rows} for n, rows in panels.items()}}  # fmt: skip
    claims = [
        Claim("echoes come back: mean echo", after, before, after > before, "as it is"),
        Claim("it is the curves' negative weights that matter: mean echo", after, control, after > control,
              f"without those of {len(lot)} units drawn by lot"),
    ]  # fmt: skip
    caption = (
        f"Weights were cut by taking the contribution of the expanded weights out of the units' pre-activations. "
        f"Detectors: {later.how}. Earlier: {early.how}."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)
