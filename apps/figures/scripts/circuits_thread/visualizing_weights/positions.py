"""Visualizing Weights: the features that excite a car detector at each position."""

from __future__ import annotations

import numpy as np
import torch

from apps.figures.context import FigureContext, NotApplicable
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import layer_before
from apps.figures.helpers.unit_roles import CARS, Role, car


@figure(
    "V6",
    "car-positions",
    "The features of a car detector at each position",
    paper="visualizing-weights",
    shows="Windows excite a car detector from above and wheels from below; a visualization per position shows both.",
    cost=90,
)
def draw(context: FigureContext) -> FigureResult:
    """Decomposed feature visualization of the car unit, in the features of the layer below."""
    from circuits.plot import decomposed_grid
    from circuits.visualization import decomposed

    role = _spatial_car(context)
    below = layer_before(context, context.model.unit(role.unit).layer)
    result = decomposed(
        context.model,
        role.unit,
        below,
        steps=context.size(96, 32, 2),
        keep=context.size(0.1, 0.1, 0.6),
        size=context.size(96, None, 32),
        seed=context.seed,
    )
    along = torch.nn.functional.normalize(result.directions.double().flatten(1), dim=0)
    rows, columns = result.norms.shape
    cosine = (along.T @ along).view(rows, columns, rows, columns)
    pairs = [(i, j, k, m) for i in range(rows) for j in range(columns) for k in range(rows) for m in range(columns)]
    near = [float(cosine[p]) for p in pairs if abs(p[0] - p[2]) == 1 and p[1] == p[3]]
    far = [float(cosine[p]) for p in pairs if p[0] == 0 and p[2] == rows - 1 and p[1] == p[3]]
    adjacent, distant = sum(near) / max(len(near), 1), sum(far) / max(len(far), 1)
    claim = Claim(
        "different features excite it from above and below: cosine of the directions in the top and bottom rows",
        distant,
        adjacent,
        rows > 2 and distant < adjacent,
        "adjacent rows",
    )
    numbers = {
        "unit": role.unit,
        "source": below,
        "norms": result.norms,
        "excitation": result.excitation,
        "cosine_of_rows": [[float(torch.stack([cosine[i, j, k, j] for j in range(columns)]).mean())
                            for k in range(rows)] for i in range(rows)],
    }  # fmt: skip
    caption = f"Each visualization maximizes the input that excites the unit from that position; {role.how}."
    return FigureResult({"": decomposed_grid(result)}, numbers, caption, [claim])


def _spatial_car(context: FigureContext) -> Role:
    """A car detector with spatial weights; after a pool or a 1x1 kernel the weights are equal at all positions.

    Of the units of 3x3 and 5x5 branches it is the one with most cars among its top activating images.
    """
    if context.published:
        return car(context)
    images = context.images
    if images.labels is None or images.classes is None:
        raise NotApplicable("needs labeled images, to find a unit for cars: folders or files named after classes")
    car_names = {name.lower() for name in CARS}
    cars = np.array([images.classes[label].lower() in car_names for label in images.labels])
    best = Role("", "", -1.0)
    for name, layer in context.model.layers.items():
        if layer.part is None or layer.part[0] not in ("mixed4a", "mixed4b", "mixed4c"):
            continue
        if not name.endswith(("3x3", "5x5")):
            continue
        base, first = layer.part
        top_images = context.scan.layer(base).arrays["top.image"][
            first : first + layer.channels, : max(1, int(cars.sum()))
        ]
        share = (cars[np.maximum(top_images, 0)] & (top_images >= 0)).mean(axis=1)
        if share.max() > (best.score or 0.0):
            unit = f"{base}:{first + int(share.argmax())}"
            how = (
                f"{unit} is the car detector among units with spatial weights: cars are {100 * share.max():.0f} % of "
                f"its {top_images.shape[1]} top activating images, {100 * cars.mean():.0f} % of all"
            )
            best = Role(str(context.model.unit(unit)), how, float(share.max()), float(cars.mean()))
    return best if best.unit else car(context)
