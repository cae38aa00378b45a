"""High-Low Frequency Detectors: what they are made of, units for fine and for coarse textures on either side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure

if TYPE_CHECKING:
    from apps.cli.verify.checks import Check
    from apps.figures.context import FigureContext
    from apps.figures.helpers.tuned_units import Search


def _published(context: FigureContext) -> list[Check]:
    from apps.cli.verify import families

    return list(families.high_low_factors(context.model, context.seed))


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
    import math

    import numpy as np

    from apps.figures.helpers.unit_images import renders
    from circuits import expanded_weights
    from circuits.common.statistics import correlation, shuffled_correlations
    from circuits.plot.circuit.edge_columns import EdgeLook, edge_columns
    from circuits.plot.drawing.unit_rows import UnitLook
    from circuits.plot.drawing.wording import short
    from circuits.units.high_low_factors import preferred_frequencies

    model, found = context.model, _found(context, 1)
    published = [u for u in found.units if context.published and u.unit.endswith("mixed3a:110")]
    one = (published or found.units)[0]
    below = model.before(found.layer)
    assert below is not None
    kernels = np.asarray(expanded_weights(model, source=below, target=one.unit).kernels[0].detach(), dtype=np.float64)
    kh, kw = kernels.shape[1:]
    rows, columns = np.mgrid[:kh, :kw]
    turn = math.radians(one.orientation)
    along = (columns - (kw - 1) / 2) * math.cos(turn) + ((kh - 1) / 2 - rows) * math.sin(turn)
    lean = (kernels * along).sum(axis=(1, 2))  # above zero: excites from the fine side
    frequency = np.asarray(
        context.cached("frequencies", lambda: preferred_frequencies(model, below).tolist(), layer=below)
    )
    most = np.sqrt(np.square(kernels).sum(axis=(1, 2)))
    order = np.argsort(-most, kind="stable")[: context.size(6, 6, 2)].tolist()
    units = {s: str(model.unit(f"{below}:{s}")) for s in order}
    shown = renders(context, [one.unit, *units.values()])
    sides = {"lean to its fine side": [s for s in order if lean[s] > 0],
             "lean to its coarse side": [s for s in order if lean[s] <= 0]}  # fmt: skip
    groups = {
        name: [
            EdgeLook(UnitLook(units[s], shown[units[s]]), UnitLook(one.unit, shown[one.unit]), kernels[s],
                     (f"prefers {frequency[s]:.3f} cycles per pixel",))
            for s in some
        ]
        for name, some in sides.items()
        if some
    }  # fmt: skip
    drawing = edge_columns(groups, tile=104, title=f"What {short(one.unit)} is made of",
                           about=f"its strongest inputs from {below}; its own fine side lies at "
                           f"{one.orientation:.0f}°")  # fmt: skip
    logs = np.log2(frequency)
    value = correlation(lean, logs)
    rng = np.random.default_rng(context.seed)
    chance = shuffled_correlations(lean, logs, draws=context.size(2000, 1000, 100), generator=rng)
    bound = float(np.quantile(chance, 0.95))
    claims = [
        Claim("inputs for higher frequencies excite from the fine side (correlation, all inputs)", value, bound,
              value > bound, "95 % of shuffled frequencies stay below"),
    ]  # fmt: skip
    numbers = {
        "unit": one.unit,
        "orientation": one.orientation,
        "inputs": [
            {"unit": units[s], "frequency": float(frequency[s]), "lean": float(lean[s]), "kernel": kernels[s].tolist()}
            for s in order
        ],
    }
    which = "the published one" if published else "the best-scoring one"
    caption = (
        f"The {len(order)} strongest inputs of {short(one.unit)}, {which} of the high-low frequency detectors "
        f"({found.how}), by the L2 norm of their weights, with the frequency each prefers by gratings."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)


@figure(
    "H8",
    "frequency-factors",
    "Two factors of the weights of high-low frequency detectors",
    paper="high-low",
    shows="The weights into a whole family fall into groups for high and low frequencies, on opposite sides.",
    cost=50,
    published=_published,
)
def factors(context: FigureContext) -> FigureResult:
    """Factorize the weights into all detectors in two, and measure which frequencies the factors' channels like."""
    import math

    import numpy as np
    from scipy.stats import binomtest

    from apps.figures.drawing.high_low_factors import frequency_factor_figure
    from apps.figures.helpers.unit_images import renders
    from circuits.tuning.detectors import frequency_factors

    model, found = context.model, _found(context, 4)
    got = frequency_factors(model, found.detectors, shuffles=context.size(2000, 1000, 100), seed=context.seed)
    n = context.size(5, 4, 1)
    channels = [f"{model.name}/{got.source}:{c}" for k in (0, 1) for c, *_ in got.top(k, n)]
    shown = renders(context, list(dict.fromkeys(channels)))
    spread = [found.units.index(u) for u in found.spread(8)]
    drawing = frequency_factor_figure(got, shown, detectors=spread, n=n)
    sides = [a for a in got.alignment if not math.isnan(a)]
    right = sum(bool(a > 0) for a in sides)
    bound = float(np.quantile(got.shuffled, 0.95))
    p = float(binomtest(right, len(sides), alternative="greater").pvalue) if sides else 1.0
    claims = [
        Claim("the two groups like different frequencies (octaves)", got.octaves, bound, got.octaves > bound,
              "95 % of shuffled frequencies stay below"),
        Claim("the high group lies on each detector's fine side (share)", float(right / max(1, len(sides))), 0.5,
              p < 0.05, "a coin; by the sign test"),
    ]  # fmt: skip
    numbers = {
        **{k: v for k, v in got.describe().items() if k != "provenance"},
        "maps": got.maps[spread].tolist(),
        "shown": [got.targets[i] for i in spread],
        "sign_test_p": p,
    }
    caption = (
        f"The weights of {len(got.targets)} high-low frequency detectors ({found.how}) from {got.source}, factorized "
        f"in two ({100 * got.explained:.0f} % of the squared weights): the strongest channels of each, and where "
        f"it acts on {len(spread)} of the detectors, in order of orientation."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)


def _found(context: FigureContext, at_least: int) -> Search:
    from apps.figures.helpers.tuned_units import search

    return search(context, "high-low", context.layer("mixed3a", "fire4"), at_least=at_least)
