"""Visualizing Weights: what a car detector looks for where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.context import NotApplicable
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import layer_before
from apps.figures.helpers.unit_roles import CARS, Role, car

if TYPE_CHECKING:
    from apps.figures.context import FigureContext


@figure(
    "V6",
    "car-positions",
    "What a car detector looks for at each position",
    paper="visualizing-weights",
    shows="A car detector looks for windows above and wheels below, which a picture per position shows.",
    cost=90,
)
def draw(context: FigureContext) -> FigureResult:
    """Decomposed feature visualization of the car unit, in the features of the layer below."""
    import torch

    from circuits.plot import decomposed_grid
    from circuits.visualization import decomposed

    role = _with_places(context)
    below = layer_before(context, context.model.unit(role.unit).layer)
    found = decomposed(
        context.model,
        role.unit,
        below,
        steps=context.size(96, 32, 2),
        keep=context.size(0.1, 0.1, 0.6),
        size=context.size(96, None, 32),
        seed=context.seed,
    )
    along = torch.nn.functional.normalize(found.directions.double().flatten(1), dim=0)
    rows, columns = found.norms.shape
    cosine = (along.T @ along).view(rows, columns, rows, columns)
    pairs = [(i, j, k, m) for i in range(rows) for j in range(columns) for k in range(rows) for m in range(columns)]
    near = [float(cosine[p]) for p in pairs if abs(p[0] - p[2]) == 1 and p[1] == p[3]]
    far = [float(cosine[p]) for p in pairs if p[0] == 0 and p[2] == rows - 1 and p[1] == p[3]]
    beside, apart = sum(near) / max(len(near), 1), sum(far) / max(len(far), 1)
    claim = Claim("above and below it looks for different things: cosine of the directions in the top and bottom rows",
                  apart, beside, rows > 2 and apart < beside, "rows next to each other")  # fmt: skip
    numbers = {
        "unit": role.unit,
        "source": below,
        "norms": found.norms,
        "excitation": found.excitation,
        "cosine_of_rows": [[float(torch.stack([cosine[i, j, k, j] for j in range(columns)]).mean())
                            for k in range(rows)] for i in range(rows)],
    }  # fmt: skip
    caption = f"Each picture raises what excites the unit at that position; {role.how}."
    return FigureResult({"": decomposed_grid(found)}, numbers, caption, [claim])


def _with_places(context: FigureContext) -> Role:
    """A car detector that reads more than one position; one behind a pool or a 1x1 kernel looks alike everywhere.

    Of the units of 3x3 and 5x5 branches it is the one with most cars among its strongest pictures.
    """
    import numpy as np

    if context.published:
        return car(context)
    images = context.images
    if images.labels is None or images.classes is None:
        raise NotApplicable("needs labeled pictures, to find a unit for cars: folders or files called after classes")
    wanted = {name.lower() for name in CARS}
    cars = np.array([images.classes[label].lower() in wanted for label in images.labels])
    best = Role("", "", -1.0)
    for name, layer in context.model.layers.items():
        if layer.part is None or layer.part[0] not in ("mixed4a", "mixed4b", "mixed4c"):
            continue
        if not name.endswith(("3x3", "5x5")):
            continue
        base, first = layer.part
        seen = context.scan.layer(base).arrays["top.image"][first : first + layer.channels, : max(1, int(cars.sum()))]
        share = (cars[np.maximum(seen, 0)] & (seen >= 0)).mean(axis=1)
        if share.max() > (best.score or 0.0):
            unit = f"{base}:{first + int(share.argmax())}"
            how = (
                f"{unit} is the car detector found here among units that read several positions: cars are "
                f"{100 * share.max():.0f} % of its {seen.shape[1]} strongest pictures, {100 * cars.mean():.0f} % of all"
            )
            best = Role(str(context.model.unit(unit)), how, float(share.max()), float(cars.mean()))
    return best if best.unit else car(context)
