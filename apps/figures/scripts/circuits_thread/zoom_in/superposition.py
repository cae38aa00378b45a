"""Zoom In: a pure car feature is spread over units of the next layer that represent other features, too."""

from __future__ import annotations

from typing import Any

import numpy as np

from apps.figures.context import FigureContext, NotApplicable
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.unit_images import top_crops
from apps.figures.helpers.unit_roles import CARS, car, random_units

_SPREAD = ("mixed4d:241", "mixed4d:277", "mixed4d:417")
"""Targets of the published car unit."""


@figure(
    "Z12",
    "superposition",
    "A car feature spread over units that represent other features",
    paper="zoom-in",
    shows="The car unit of mixed4c excites units of mixed4d whose other inputs are unrelated to cars.",
    cost=60,
)
def draw(context: FigureContext) -> FigureResult:
    """The units of the next layer that the car unit excites most, their other inputs, and top activating images."""
    from circuits import expanded_weights
    from circuits.plot.circuit.edge_columns import EdgeLook, edge_columns
    from circuits.plot.drawing.unit_rows import UnitLook
    from circuits.plot.drawing.wording import number, short

    model, role = context.model, car(context)
    layer, index = model.unit(role.unit).layer, int(role.unit.rpartition(":")[2])
    after = [n for n in model.trunk[model.trunk.index(layer) + 1 :] if model.layers[n].size is not None]
    if not after:
        raise NotApplicable(f"needs a spatial layer after {layer}, the layer of the car unit")
    kernels = np.asarray(expanded_weights(model, source=layer, target=after[0]).kernels.detach(), dtype=np.float64)
    strengths, norms = kernels.sum(axis=(2, 3)), np.sqrt(np.square(kernels).sum(axis=(2, 3)))
    active = context.scan.layer(after[0]).active_images
    order = [
        int(t) for t in np.argsort(-strengths[:, index], kind="stable") if active[t] >= 10 and strengths[t, index] > 0
    ]
    order = [t for t in order if strengths[t, index] > 0.05 * strengths[order[0], index]]
    targets = [int(u.rpartition(":")[2]) for u in _SPREAD] if context.published else order[:3]
    if not targets:
        raise NotApplicable(f"the car unit excites no unit of {after[0]} that is active on ten images")
    rows = {}
    for t in targets:
        strongest = np.argsort(-np.where(strengths[t] > 0, norms[t], -1), kind="stable").tolist()
        rows[t] = [index, *[s for s in strongest if s != index][:3]]
    address = {t: str(model.unit(f"{after[0]}:{t}")) for t in targets}
    sources = {s: str(model.unit(f"{layer}:{s}")) for members in rows.values() for s in members}
    crops = top_crops(context, [*address.values(), *sources.values()], 1)
    similarity = _similarity(context, layer)
    share = {u: _cars(context, u, CARS) for u in (role.unit, *address.values())}
    columns = {
        f"{short(address[t])}: {100 * share[address[t]]:.0f} % of top images are cars": [
            EdgeLook(
                UnitLook(sources[s], crops=crops[sources[s]]),
                UnitLook(address[t], crops=crops[address[t]]),
                kernels[t, s],
                (f"{'the car unit' if s == index else 'another input'}; sum of the weights {number(strengths[t, s])}",),
            )
            for s in rows[t]
        ]
        for t in targets
    }
    drawing = edge_columns(
        columns, tile=92, own_scales=True, title="Targets of the car feature",
        about=f"{layer} to {after[0]} of {model.name}: the units that {short(role.unit)} excites most, and their other "
        "strongest inputs; each with its top activating image",
    )  # fmt: skip
    other_inputs = sorted({s for members in rows.values() for s in members if s != index})
    random = [int(u.rpartition(":")[2]) for u in random_units(context, layer, 60, but=[role.unit])]
    related, chance = (float(np.mean(similarity[index, members])) for members in (other_inputs, random))
    bound = float(np.quantile(similarity[index, random], 0.95))
    pure, mixed = share[role.unit], float(np.mean([share[u] for u in address.values()]))
    claims = [
        Claim.below(
            "its targets activate less on cars than it does: share of top images",
            mixed,
            pure,
            "the car unit itself",
        ),
        Claim.below(
            "their other inputs are unrelated to it: mean correlation over positions",
            related,
            bound,
            "95 % of random units of the layer are below",
        ),
    ]
    numbers = {
        "unit": role.unit,
        "targets": [
            {
                "unit": address[t],
                "car_share": share[address[t]],
                "inputs": [{"unit": sources[s], "kernel": kernels[t, s].tolist(),
                            "correlation": float(similarity[index, s])} for s in rows[t]],
            }
            for t in targets
        ],
        "car_share": pure,
        "effective_readers": _effective(norms[:, index]),
        "effective_readers_of_random_units": float(np.median([_effective(norms[:, s]) for s in random])),
        "random_correlation": chance,
    }  # fmt: skip
    caption = (
        f"The {len(targets)} units of {after[0]} that the car detector excites most ({role.how}), with the three other "
        "inputs that excite each most."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)


def _similarity(context: FigureContext, layer: str) -> Any:
    """Correlations of all units of a layer over the positions that the scan sampled."""
    values = np.maximum(context.scan.samples(layer).values.astype(np.float64), 0)
    values -= values.mean(axis=0)
    size = np.sqrt(np.square(values).sum(axis=0))
    values /= np.where(size > 0, size, 1.0)
    return values.T @ values


def _cars(context: FigureContext, unit: str, names: tuple[str, ...]) -> float:
    """Share of cars among a unit's top images, of as many images as there are cars."""
    images = context.images
    labels, classes = images.labels or [], [c.lower() for c in images.classes or ()]
    cars = {i for i, name in enumerate(classes) if name in {n.lower() for n in names}}
    n = max(5, min(20, sum(label in cars for label in labels)))
    top = context.scan.unit(unit).top[:n]
    return sum(labels[e.image] in cars for e in top) / max(1, len(top))


def _effective(strengths: Any) -> float:
    """The effective number of targets of a unit: the participation ratio of its squared weights."""
    squares = strengths**2
    return float(squares.sum() ** 2 / max(float((squares**2).sum()), 1e-30))
