"""Curve Circuits: the weights between curve detectors, and the function of the negative ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from apps.figures.analysis.weight_ablation import ablate_weights, negative_part
from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import (
    curve_detectors,
    curve_layer,
    curve_stimuli,
    early_curve_detectors,
    mean_echo,
)


@figure(
    "K5",
    "curve-weight-matrix",
    "The weights between two layers of curve detectors",
    paper="curve-circuits",
    shows="Sorted by orientation, the weights between two layers of curve detectors have a positive diagonal.",
    cost=10,
)
def matrix(context: FigureContext) -> FigureResult:
    """Early against later detectors, in the order of their orientation, and shuffled."""
    from apps.figures.drawing.orientation_matrix import orientation_matrix
    from circuits.tuning.detectors import sign_rule

    layer = curve_layer(context)
    later, early = curve_detectors(context, 8), early_curve_detectors(context, 8)
    sources, targets = early.detectors[:20], later.detectors[:24]
    rule = sign_rule(context.model, sources, targets, shuffles=context.size(2000, 1000, 200), seed=context.seed)
    first, second = (np.array([d.orientation for d in side]) for side in (sources, targets))
    drawing = orientation_matrix(rule, first, second, seed=context.seed, title=f"Curves of {early.layer} into {layer}")
    level = float(np.quantile(rule.shuffled, 0.95))
    claims = [
        Claim.above(
            "similar orientations excite, opposite ones inhibit: correlation of weight and cosine of the angle",
            rule.correlation,
            level,
            "95 % of shuffles",
        ),
        Claim(
            "opposite curves inhibit: mean weight beyond 120°",
            rule.mean(120, 181),
            rule.mean(0, 60),
            rule.mean(120, 181) < min(0.0, rule.mean(0, 60)),
            "mean weight within 60°",
        ),
    ]
    numbers = {**rule.describe(), "source_orientations": first, "target_orientations": second}
    numbers.pop("provenance")
    caption = f"The best {len(targets)} and {len(sources)} detectors. Rows: {later.how}. Columns: {early.how}."
    return FigureResult({"": drawing}, numbers, caption, claims)


@figure(
    "K6",
    "curve-echoes-uncut",
    "Without negative weights between curves the echoes return",
    paper="curve-circuits",
    shows="Negative weights from earlier curves keep curve detectors silent at the opposite orientation.",
    cost=60,
)
def without_negatives(context: FigureContext) -> FigureResult:
    """Radial tuning with all weights, without negative ones from earlier curves, and without those from other units."""
    import circuits
    from circuits.plot.units.curve_detectors import radial_panels

    layer = curve_layer(context)
    later, early = curve_detectors(context, 8), early_curve_detectors(context, 8)
    units = [u.unit for u in later.units[:10]]
    stimuli = curve_stimuli(context, layer, context.size(48, 24, 12), context.size(5, 5, 3))
    weights = circuits.expanded_weights(context.model, source=early.layer, target=units)
    curves = [u.index for u in early.units]
    others = [i for i in range(weights.kernels.shape[1]) if i not in curves]
    sample = np.random.default_rng(context.seed).permutation(others)[: len(curves)].tolist()
    panels: dict[str, Any] = {}
    echoes = {}
    for name, sources in (
        ("unchanged", []),
        (f"without negatives of {len(curves)} curves", curves),
        (f"without negatives of {len(sample)} random units", sample),
    ):
        with ablate_weights(context.model, weights, negative_part(weights, sources)):
            measured = circuits.tune(context.model, units, stimuli=stimuli)
        panels[name] = [measured.radial(unit) for unit in units]
        echoes[name] = mean_echo(measured, units)
    drawing = radial_panels(
        panels,
        notes={name: f"mean echo {echo:.3f}" for name, echo in echoes.items()},
        title=f"Curve detectors of {layer} without negative weights from {early.layer}",
        about="responses in shares of each unit's peak, which points up; the echo points down",
    )
    before, after, control = echoes.values()
    numbers = {"units": units, "cut": curves, "cut_by_lot": sample, "echo": echoes,
               "responses": {n: {c.unit: c.responses for c in rows} for n, rows in panels.items()}}  # fmt: skip
    claims = [
        Claim.above("echoes return: mean echo", after, before, "unchanged weights"),
        Claim.above(
            "the negative weights of curves are the cause: mean echo",
            after,
            control,
            f"without negative weights of {len(sample)} random units",
        ),
    ]
    caption = (
        "Weights were ablated by subtracting the contribution of the expanded weights from pre-activations. "
        f"Detectors: {later.how}. Earlier: {early.how}."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)
