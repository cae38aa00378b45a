"""Zoom In: six arguments that a curve detector detects curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apps.figures.figure import Claim, FigureResult, figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apps.cli.verify.checks import Check
    from apps.figures.context import FigureContext


def _published(context: FigureContext) -> list[Check]:
    from apps.cli.verify import inceptionv1

    return list(inceptionv1.strongest(context.model))


@figure(
    "Z2",
    "seven-arguments",
    "Arguments that a curve detector detects curves",
    paper="zoom-in",
    shows="What it looks for, what it answers to, drawn and turned curves, its weights and what reads it all agree.",
    cost=60,
    published=_published,
)
def draw(context: FigureContext) -> FigureResult:
    """One curve detector: its picture, photographs, drawn curves, turned photographs, inputs and clients."""
    import numpy as np

    from apps.figures.drawing.evidence_strip import argument_strip
    from apps.figures.helpers.tuned_units import search
    from apps.figures.helpers.unit_images import photographs, renders
    from apps.figures.helpers.unit_roles import random_units
    from circuits import stimuli
    from circuits.tuning import joint_tuning, tune
    from circuits.tuning.curves import echo_of, opposites

    model = context.model
    found = search(context, "curve", context.layer("mixed3b", "fire5"), at_least=3)
    published = [u for u in found.units if context.published and u.unit.endswith("mixed3b:379")]
    one = (published or found.units)[0]
    others = random_units(context, found.layer, context.size(31, 15, 5), but=[u.unit for u in found.units])
    field = model.layers[found.layer].receptive_field
    edge = min(*model.input.hw, *(field.size if field else model.input.hw))
    radii = [
        round(edge * share) for share in context.size((0.08, 0.12, 0.18, 0.25, 0.35, 0.5), (0.1, 0.2, 0.4), (0.2,))
    ]
    drawn = tune(model, [one.unit, *others], stimuli=stimuli.curves(context.size(36, 24, 12), radii), reach=1)
    examples = context.scan.unit(one.unit).top[: context.size(10, 5, 2)]
    turned = joint_tuning(
        model, one.unit, examples, context.images, units=others[:8], turns=context.size(36, 18, 8), batch_size=36
    )
    inputs, clients = _neighbors(context, one.unit, found.layer)
    shown = renders(context, [one.unit, *(u for u, _ in inputs), *(u for u, _ in clients)])
    crops = photographs(context, [one.unit], 9)[one.unit]
    drawing = argument_strip(
        one.unit, shown, crops, drawn, turned, inputs, clients, about=f"orientation {one.orientation:.0f}°"
    )
    echo = [1.0 if row.echo is None else row.echo for row in drawn.rows()]
    half = opposites(turned.angles)
    left = [1.0 if half is None else float(echo_of(r, half).nan_to_num(1.0).mean()) for r in turned.responses]
    claims = [
        Claim(
            "drawn curves: answers to its own orientation and not to the opposite (opposite over peak)",
            echo[0], float(np.mean(echo[1:])), echo[0] < float(np.mean(echo[1:])), "mean of random units",
        ),
        Claim(
            "turned photographs: what is left half a turn from the best (over the best)",
            left[0], float(np.mean(left[1:])), left[0] < float(np.mean(left[1:])), "mean of random units",
        ),
    ]  # fmt: skip
    numbers = {
        "unit": one.unit,
        "score": one.score,
        "orientation": one.orientation,
        "radii": radii,
        "drawn": drawn.over("radius", "orientation")[0].tolist(),
        "turned": turned.responses[0].tolist(),
        "inputs": {u: k.tolist() for u, k in inputs},
        "clients": {u: k.tolist() for u, k in clients},
    }
    caption = (
        f"Six of the paper's seven arguments for {one.unit.partition('/')[2]}, "
        f"{'the published one' if published else 'the best-scoring one here'} ({found.how}): {len(examples)} "
        "photographs are turned about the place where it fires. The seventh, weights set by hand, is left out."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)


def _neighbors(
    context: FigureContext, unit: str, layer: str
) -> tuple[Sequence[tuple[str, Any]], Sequence[tuple[str, Any]]]:
    """The three inputs that excite a unit most, and the three units of the next layer that it excites most."""
    import numpy as np

    from circuits import expanded_weights

    model, index = context.model, int(unit.rpartition(":")[2])
    before = model.before(layer) or layer
    after = next(name for name in model.trunk[model.trunk.index(layer) + 1 :])
    read = np.asarray(expanded_weights(model, source=before, target=unit).kernels[0].detach())
    fed = np.asarray(expanded_weights(model, source=layer, target=after).kernels[:, index].detach())
    found = []
    for name, kernels in ((before, read), (after, fed)):
        strength = np.where(kernels.sum(axis=(1, 2)) > 0, np.sqrt(np.square(kernels).sum(axis=(1, 2))), -1)
        best = np.argsort(-strength, kind="stable")[: context.size(3, 3, 1)]
        found.append([(str(model.unit(f"{name}:{i}")), kernels[i]) for i in best.tolist()])
    return found[0], found[1]
