"""Zoom In: six arguments that a curve detector detects curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from apps.cli.verify import inceptionv1
from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import search
from apps.figures.helpers.unit_images import top_crops, visualizations
from apps.figures.helpers.unit_roles import random_units

if TYPE_CHECKING:
    from collections.abc import Sequence


@figure(
    "Z2",
    "seven-arguments",
    "Arguments that a curve detector detects curves",
    paper="zoom-in",
    shows="Visualization, dataset examples, synthetic and rotated curves, incoming and outgoing weights all agree.",
    cost=60,
    published=lambda context: inceptionv1.strongest(context.model),
)
def draw(context: FigureContext) -> FigureResult:
    """One curve detector: visualization, dataset examples, synthetic curves, rotated examples, inputs and outputs."""
    from apps.figures.drawing.evidence_strip import evidence_strip
    from circuits import stimuli
    from circuits.tuning import joint_tuning, tune
    from circuits.tuning.curves import echo_of, opposites

    model = context.model
    detectors = search(context, "curve", context.layer("mixed3b", "fire5"), at_least=3)
    detector = detectors.example
    control = random_units(context, detectors.layer, context.size(31, 15, 5), but=[u.unit for u in detectors.units])
    field = model.layers[detectors.layer].receptive_field
    edge = min(*model.input.hw, *(field.size if field else model.input.hw))
    radii = [
        round(edge * share) for share in context.size((0.08, 0.12, 0.18, 0.25, 0.35, 0.5), (0.1, 0.2, 0.4), (0.2,))
    ]
    synthetic = tune(model, [detector.unit, *control], stimuli=stimuli.curves(context.size(36, 24, 12), radii), reach=1)
    examples = context.scan.unit(detector.unit).top[: context.size(10, 5, 2)]
    rotated = joint_tuning(
        model, detector.unit, examples, context.images, units=control[:8], turns=context.size(36, 18, 8), batch_size=36
    )
    incoming, outgoing = _neighbors(context, detector.unit, detectors.layer)
    crops = visualizations(context, [detector.unit, *(u for u, _ in incoming), *(u for u, _ in outgoing)])
    photos = top_crops(context, [detector.unit], 9)[detector.unit]
    drawing = evidence_strip(
        detector.unit,
        crops,
        photos,
        synthetic,
        rotated,
        incoming,
        outgoing,
        about=f"orientation {detector.orientation:.0f}°",
    )
    echo = [1.0 if row.echo is None else row.echo for row in synthetic.rows()]
    half = opposites(rotated.angles)
    opposite = [1.0 if half is None else float(echo_of(r, half).nan_to_num(1.0).mean()) for r in rotated.responses]
    claims = [
        Claim.below(
            "synthetic curves activate it at its own orientation only: response to the opposite over the peak",
            echo[0],
            float(np.mean(echo[1:])),
            "mean of random units",
        ),
        Claim.below(
            "rotated examples activate it at one orientation only: response half a turn from the peak over the peak",
            opposite[0],
            float(np.mean(opposite[1:])),
            "mean of random units",
        ),
    ]
    numbers = {
        "unit": detector.unit,
        "score": detector.score,
        "orientation": detector.orientation,
        "radii": radii,
        "drawn": synthetic.over("radius", "orientation")[0].tolist(),
        "turned": rotated.responses[0].tolist(),
        "inputs": {u: k.tolist() for u, k in incoming},
        "clients": {u: k.tolist() for u, k in outgoing},
    }
    which = "the best-scoring one" if detector is detectors.units[0] else "the published one"
    caption = (
        f"Six of the paper's seven arguments for {detector.unit.partition('/')[2]}, {which} ({detectors.how}): "
        f"{len(examples)} top activating images are rotated about their peaks. The seventh, handwritten weights, is "
        "omitted."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)


def _neighbors(
    context: FigureContext, unit: str, layer: str
) -> tuple[Sequence[tuple[str, Any]], Sequence[tuple[str, Any]]]:
    """The three inputs that excite a unit most, and the three units of the next layer that it excites most."""
    from circuits import expanded_weights

    model, index = context.model, int(unit.rpartition(":")[2])
    before = model.before(layer) or layer
    after = next(name for name in model.trunk[model.trunk.index(layer) + 1 :])
    incoming = np.asarray(expanded_weights(model, source=before, target=unit).kernels[0].detach())
    outgoing = np.asarray(expanded_weights(model, source=layer, target=after).kernels[:, index].detach())
    edges = []
    for name, kernels in ((before, incoming), (after, outgoing)):
        strength = np.where(kernels.sum(axis=(1, 2)) > 0, np.sqrt(np.square(kernels).sum(axis=(1, 2))), -1)
        best = np.argsort(-strength, kind="stable")[: context.size(3, 3, 1)]
        edges.append([(str(model.unit(f"{name}:{i}")), kernels[i]) for i in best.tolist()])
    return edges[0], edges[1]
