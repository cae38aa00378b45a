"""High-Low Frequency Detectors: the photographs they answer to, and their tuning to drawn textures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure

if TYPE_CHECKING:
    from apps.figures.context import FigureContext
    from apps.figures.helpers.tuned_units import Search


@figure(
    "H3",
    "high-low-examples",
    "Photographs that high-low frequency detectors answer to",
    paper="high-low",
    shows="Places with fine texture on one side and coarse or none on the other: often an object before a blur.",
    cost=30,
)
def examples(context: FigureContext) -> FigureResult:
    """The strongest places of a few detectors, and on which side of them the finer texture lies."""
    import numpy as np

    from apps.figures.analysis.texture_side import fine_side
    from apps.figures.helpers.unit_images import photographs, renders
    from apps.figures.helpers.unit_roles import random_units
    from circuits.plot.drawing.unit_rows import UnitLook, unit_rows
    from circuits.plot.drawing.wording import minus

    found = _found(context, context.size(6, 4, 2))
    chosen = found.spread(context.size(6, 4, 2))
    n = context.size(24, 12, 6)
    crops = photographs(context, [u.unit for u in chosen], n)
    others = random_units(context, found.layer, context.size(24, 12, 4), but=[u.unit for u in found.units])
    plain = photographs(context, others, n)
    shown = renders(context, [u.unit for u in chosen])
    sides = {u.unit: float(np.mean([fine_side(c, u.orientation) for c in crops[u.unit]] or [0.0])) for u in chosen}
    # the places of random units, each asked for the same orientations
    chance = [
        float(np.mean([fine_side(c, u.orientation) for c in some])) for u in chosen for some in plain.values() if some
    ]
    looks = [
        UnitLook(
            u.unit, shown[u.unit], crops[u.unit][:10],
            notes=(f"fine side {u.orientation:.0f}°", minus(f"finer there by {sides[u.unit]:+.2f}"), "octaves"),
        )
        for u in chosen
    ]  # fmt: skip
    drawing = unit_rows(looks, columns=5, rows=2, tile=78, title="Photographs of high-low frequency detectors",
                        about=f"{found.layer} of {context.model.name}; each with its strongest places")  # fmt: skip
    value = float(np.mean(list(sides.values())))
    bound = float(np.mean(chance)) + 2 * float(np.std(chance)) / len(chosen) ** 0.5
    claims = [
        Claim("photographs are finer on the side that drawn textures say (octaves)", value, bound, value > bound,
              "random units of the layer: two standard errors above their mean"),
    ]  # fmt: skip
    numbers = {
        "layer": found.layer,
        "sides": sides,
        "orientation": {u.unit: u.orientation for u in chosen},
        "random_mean": float(np.mean(chance)),
        "examples": {
            u.unit: [[e.id, list(e.position), e.value] for e in context.scan.unit(u.unit).top[:10]] for u in chosen
        },
    }
    caption = (
        f"The ten strongest photographs of {len(chosen)} high-low frequency detectors ({found.how}; shown are those "
        f"most even in orientation). How much finer one side is was measured on {n} places of each."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)


@figure(
    "H5",
    "high-low-tuning",
    "Tuning of high-low frequency detectors to drawn textures",
    paper="high-low",
    shows="Each answers to one orientation of the boundary, the more the further apart the two frequencies are.",
    cost=30,
)
def tuning(context: FigureContext) -> FigureResult:
    """Heat maps of six detectors over the boundary's orientation and the ratio of the two frequencies."""
    import numpy as np

    from apps.figures.drawing.tuning_maps import tuning_maps
    from apps.figures.helpers.unit_roles import random_units
    from circuits import stimuli
    from circuits.tuning import tune

    found = _found(context, context.size(6, 6, 2))
    chosen = found.spread(context.size(6, 6, 2))
    units = [u.unit for u in chosen]
    others = random_units(context, found.layer, context.size(60, 30, 8), but=[u.unit for u in found.units])
    ratios = context.size((1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0), (1.0, 2.0, 4.0, 8.0), (1.0, 4.0))
    shown = stimuli.high_low(context.size(36, 24, 12), ratios, samples=context.size(4, 2, 1), seed=context.seed)
    measured = tune(context.model, [*units, *others], stimuli=shown)
    drawing = tuning_maps(measured, units, "ratio", title="Tuning of high-low frequency detectors",
                          about=f"{found.layer} of {context.model.name}; the orientation points to the fine side; at "
                          "ratio 1 both sides are alike")  # fmt: skip
    table = measured.over("ratio", "orientation").clamp_min(0).double().numpy()
    rows = measured.rows()
    echo = [np.nan if r.echo is None else r.echo for r in rows]
    peaks = table.max(axis=(1, 2))
    flat = np.where(peaks > 0, table[:, 0].max(axis=1) / np.maximum(peaks, 1e-30), np.nan)
    k = len(units)
    claims = [
        Claim(f"{what} (over the peak)", float(np.nanmean(values[:k])), float(np.nanmean(values[k:])),
              float(np.nanmean(values[:k])) < float(np.nanmean(values[k:])), "mean of random units of the layer")
        for what, values in (
            ("the opposite boundary leaves them silent", np.asarray(echo)),
            ("so do sides of one frequency", flat),
        )
    ]  # fmt: skip
    numbers = {
        "layer": found.layer,
        "ratios": list(ratios),
        "orientations": list(shown.axis("orientation").values),
        "responses": {u: table[i].tolist() for i, u in enumerate(units)},
    }
    caption = f"Responses of {k} high-low frequency detectors ({found.how}) to a fine texture beside a coarse one."
    return FigureResult({"": drawing}, numbers, caption, claims)


def _found(context: FigureContext, at_least: int) -> Search:
    from apps.figures.helpers.tuned_units import search

    return search(context, "high-low", context.layer("mixed3a", "fire4"), at_least=at_least)
