"""High-Low Frequency Detectors: their top activating images, and their tuning to synthetic textures."""

from __future__ import annotations

import numpy as np

from apps.figures.analysis.texture_side import fine_side
from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import high_low_detectors
from apps.figures.helpers.unit_images import top_crops, visualizations
from apps.figures.helpers.unit_roles import random_units


@figure(
    "H3",
    "high-low-examples",
    "Images that activate high-low frequency detectors",
    paper="high-low",
    shows="Positions with fine texture on one side and coarse or none on the other: often an object before a blur.",
    cost=30,
)
def examples(context: FigureContext) -> FigureResult:
    """The top activating positions of a few detectors, and the side of the finer texture at each."""
    from circuits.plot.drawing.unit_rows import UnitLook, unit_rows
    from circuits.plot.drawing.wording import minus

    detectors = high_low_detectors(context, context.size(6, 4, 2))
    chosen = detectors.spread(context.size(6, 4, 2))
    n = context.size(24, 12, 6)
    photos = top_crops(context, [u.unit for u in chosen], n)
    control = random_units(context, detectors.layer, context.size(24, 12, 4), but=[u.unit for u in detectors.units])
    plain = top_crops(context, control, n)
    crops = visualizations(context, [u.unit for u in chosen])
    fineness = {u.unit: float(np.mean([fine_side(c, u.orientation) for c in photos[u.unit]] or [0.0])) for u in chosen}
    # the control: crops of random units, measured at the same orientations
    chance = [
        float(np.mean([fine_side(c, u.orientation) for c in control_crops]))
        for u in chosen
        for control_crops in plain.values()
        if control_crops
    ]
    looks = [
        UnitLook(
            u.unit, crops[u.unit], photos[u.unit][:10],
            notes=(f"fine side {u.orientation:.0f}°", minus(f"finer there by {fineness[u.unit]:+.2f}"), "octaves"),
        )
        for u in chosen
    ]  # fmt: skip
    drawing = unit_rows(
        looks, columns=5, rows=2, tile=78, title="Top activating images of high-low frequency detectors",
        about=f"{detectors.layer} of {context.model.name}; each with its top activating positions",
    )  # fmt: skip
    value = float(np.mean(list(fineness.values())))
    bound = float(np.mean(chance)) + 2 * float(np.std(chance)) / len(chosen) ** 0.5
    claims = [
        Claim.above(
            "dataset images are finer on the side that synthetic textures predict (octaves)",
            value,
            bound,
            "random units of the layer: two standard errors above their mean",
        ),
    ]
    numbers = {
        "layer": detectors.layer,
        "sides": fineness,
        "orientation": {u.unit: u.orientation for u in chosen},
        "random_mean": float(np.mean(chance)),
        "examples": {
            u.unit: [[e.id, list(e.position), e.value] for e in context.scan.unit(u.unit).top[:10]] for u in chosen
        },
    }
    caption = (
        f"The ten top activating images of {len(chosen)} high-low frequency detectors ({detectors.how}; shown are "
        f"those most even in orientation). The fineness of the sides was measured on {n} crops of each."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)


@figure(
    "H5",
    "high-low-tuning",
    "Tuning of high-low frequency detectors to synthetic textures",
    paper="high-low",
    shows="Each activates on one orientation of the boundary, more strongly for a larger ratio of the two frequencies.",
    cost=30,
)
def tuning(context: FigureContext) -> FigureResult:
    """Heat maps of six detectors over the boundary's orientation and the ratio of the two frequencies."""
    from apps.figures.drawing.tuning_maps import tuning_maps
    from circuits import stimuli
    from circuits.tuning import tune

    detectors = high_low_detectors(context, context.size(6, 6, 2))
    chosen = detectors.spread(context.size(6, 6, 2))
    units = [u.unit for u in chosen]
    control = random_units(context, detectors.layer, context.size(60, 30, 8), but=[u.unit for u in detectors.units])
    ratios = context.size((1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0), (1.0, 2.0, 4.0, 8.0), (1.0, 4.0))
    textures = stimuli.high_low(context.size(36, 24, 12), ratios, samples=context.size(4, 2, 1), seed=context.seed)
    measured = tune(context.model, [*units, *control], stimuli=textures)
    drawing = tuning_maps(
        measured,
        units,
        "ratio",
        title="Tuning of high-low frequency detectors",
        about=f"{detectors.layer} of {context.model.name}; the orientation points to the fine side; at "
        "ratio 1 both sides are equal",
    )
    table = measured.over("ratio", "orientation").clamp_min(0).double().numpy()
    rows = measured.rows()
    echo = [np.nan if r.echo is None else r.echo for r in rows]
    peaks = table.max(axis=(1, 2))
    flat = np.where(peaks > 0, table[:, 0].max(axis=1) / np.maximum(peaks, 1e-30), np.nan)
    k = len(units)
    claims = [
        Claim.below(
            f"{statement} (over the peak)",
            float(np.nanmean(values[:k])),
            float(np.nanmean(values[k:])),
            "mean of random units of the layer",
        )
        for statement, values in (
            ("the opposite boundary does not activate them", np.asarray(echo)),
            ("two sides of one frequency do not activate them", flat),
        )
    ]
    numbers = {
        "layer": detectors.layer,
        "ratios": list(ratios),
        "orientations": list(textures.axis("orientation").values),
        "responses": {u: table[i].tolist() for i, u in enumerate(units)},
    }
    caption = f"Responses of {k} high-low frequency detectors ({detectors.how}) to a fine texture beside a coarse one."
    return FigureResult({"": drawing}, numbers, caption, claims)
