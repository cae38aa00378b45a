"""High-Low Frequency Detectors: their inputs, units for high and for low frequencies on either side."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binomtest

from apps.cli.verify import families
from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import high_low_detectors, layer_before
from apps.figures.helpers.unit_images import visualizations


@figure(
    "H6",
    "high-low-inputs",
    "Six inputs of a high-low frequency detector",
    paper="high-low",
    shows="Inputs for high frequencies excite it from one side and inhibit it from the other; for low, the reverse.",
    cost=30,
)
def inputs(context: FigureContext) -> FigureResult:
    """The strongest inputs of one detector, the frequency each prefers, and on which side it excites."""
    from circuits import expanded_weights
    from circuits.common.statistics import correlation, shuffled_correlations
    from circuits.plot.circuit.edge_columns import EdgeLook, edge_columns
    from circuits.plot.drawing.unit_rows import UnitLook
    from circuits.plot.drawing.wording import short
    from circuits.units.high_low_factors import preferred_frequencies

    model, detectors = context.model, high_low_detectors(context, 1)
    detector, below = detectors.example, layer_before(context, detectors.layer)
    kernels = np.asarray(
        expanded_weights(model, source=below, target=detector.unit).kernels[0].detach(), dtype=np.float64
    )
    kh, kw = kernels.shape[1:]
    rows, columns = np.mgrid[:kh, :kw]
    turn = math.radians(detector.orientation)
    along = (columns - (kw - 1) / 2) * math.cos(turn) + ((kh - 1) / 2 - rows) * math.sin(turn)
    lean = (kernels * along).sum(axis=(1, 2))  # above zero: excites from the fine side
    frequency = np.asarray(
        context.cached("frequencies", lambda: preferred_frequencies(model, below).tolist(), layer=below)
    )
    most = np.sqrt(np.square(kernels).sum(axis=(1, 2)))
    order = np.argsort(-most, kind="stable")[: context.size(6, 6, 2)].tolist()
    units = {s: str(model.unit(f"{below}:{s}")) for s in order}
    crops = visualizations(context, [detector.unit, *units.values()])
    sides = {"excite from the fine side": [s for s in order if lean[s] > 0],
             "excite from the coarse side": [s for s in order if lean[s] <= 0]}  # fmt: skip
    groups = {
        name: [
            EdgeLook(UnitLook(units[s], crops[units[s]]), UnitLook(detector.unit, crops[detector.unit]), kernels[s],
                     (f"prefers {frequency[s]:.3f} cycles per pixel",))
            for s in members
        ]
        for name, members in sides.items()
        if members
    }  # fmt: skip
    drawing = edge_columns(groups, tile=104, title=f"Inputs of {short(detector.unit)}",
                           about=f"the strongest from {below}; the fine side of the detector lies at "
                           f"{detector.orientation:.0f}°")  # fmt: skip
    logs = np.log2(frequency)
    value = correlation(lean, logs)
    rng = np.random.default_rng(context.seed)
    chance = shuffled_correlations(lean, logs, draws=context.size(2000, 1000, 100), generator=rng)
    bound = float(np.quantile(chance, 0.95))
    claims = [
        Claim.above(
            "inputs for higher frequencies excite from the fine side (correlation, all inputs)",
            value,
            bound,
            "95 % of shuffled frequencies are below",
        ),
    ]
    numbers = {
        "unit": detector.unit,
        "orientation": detector.orientation,
        "inputs": [
            {"unit": units[s], "frequency": float(frequency[s]), "lean": float(lean[s]), "kernel": kernels[s].tolist()}
            for s in order
        ],
    }
    which = "the best-scoring one" if detector is detectors.units[0] else "the published one"
    caption = (
        f"The {len(order)} strongest inputs of {short(detector.unit)}, {which} of the high-low frequency detectors "
        f"({detectors.how}), by the L2 norm of their weights, with the frequency each prefers by gratings."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)


@figure(
    "H8",
    "frequency-factors",
    "Two factors of the weights of high-low frequency detectors",
    paper="high-low",
    shows="The weights into a whole family fall into groups for high and low frequencies, on opposite sides.",
    cost=50,
    published=lambda context: families.high_low_factors(context.model, context.seed),
)
def factors(context: FigureContext) -> FigureResult:
    """Factorize the weights into all detectors, and measure the preferred frequencies of the factors' channels."""
    from apps.figures.drawing.high_low_factors import frequency_factor_figure
    from circuits.tuning.detectors import frequency_factors

    model, detectors = context.model, high_low_detectors(context, 4)
    result = frequency_factors(model, detectors.detectors, shuffles=context.size(2000, 1000, 100), seed=context.seed)
    n = context.size(5, 4, 1)
    channels = [f"{model.name}/{result.source}:{c}" for k in (0, 1) for c, *_ in result.top(k, n)]
    crops = visualizations(context, list(dict.fromkeys(channels)))
    spread = [detectors.units.index(u) for u in detectors.spread(8)]
    drawing = frequency_factor_figure(result, crops, detectors=spread, n=n)
    sides = [a for a in result.alignment if not math.isnan(a)]
    right = sum(bool(a > 0) for a in sides)
    bound = float(np.quantile(result.shuffled, 0.95))
    p = float(binomtest(right, len(sides), alternative="greater").pvalue) if sides else 1.0
    claims = [
        Claim.above(
            "the two groups prefer different frequencies (octaves apart)",
            result.octaves,
            bound,
            "95 % of shuffled frequencies are below",
        ),
        Claim(
            "the high group lies on each detector's fine side (share)",
            float(right / max(1, len(sides))),
            0.5,
            p < 0.05,
            "0.5; by the sign test",
        ),
    ]
    numbers = {
        **{k: v for k, v in result.describe().items() if k != "provenance"},
        "maps": result.maps[spread].tolist(),
        "shown": [result.targets[i] for i in spread],
        "sign_test_p": p,
    }
    caption = (
        f"The weights of {len(result.targets)} high-low frequency detectors ({detectors.how}) from "
        f"{result.source}, factorized in two ({100 * result.explained:.0f} % of the squared weights): the strongest "
        f"channels of each, and their weights into {len(spread)} of the detectors, in order of orientation."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)
