"""Zoom In: the weights between curve detectors, whose sign depends on the angle between their orientations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from apps.cli.verify import inceptionv1
from apps.figures.analysis.arc_fit import arc_fit
from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import search
from apps.figures.helpers.unit_images import visualizations

if TYPE_CHECKING:
    from apps.figures.helpers.tuned_units import Search, TunedUnit


_NEAR = 30.0
"""Degrees within which two orientations count as the same, or as opposite."""


@figure(
    "Z6",
    "curve-weights",
    "The weights from an early curve detector to a later one",
    paper="zoom-in",
    shows="The weights between two curve detectors of one orientation are themselves shaped like the curve.",
    cost=30,
    published=lambda context: inceptionv1.chain(context.model),
)
def patch(context: FigureContext) -> FigureResult:
    """The largest edge between an early and a later curve detector of similar orientation, compared with an arc."""
    from circuits.plot.circuit.edge_columns import EdgeLook, edge_columns
    from circuits.plot.drawing.unit_rows import UnitLook
    from circuits.plot.drawing.wording import number

    early, late = _families(context)
    edges = _pairs(context, early, late)
    widest = max(np.count_nonzero(p[3]) for p in edges)
    pairs = [p for p in edges if np.count_nonzero(p[3]) == widest]  # kernels of a 1x1 branch have no shape
    similar = [p for p in pairs if p[2] <= 40.0] or sorted(pairs, key=lambda p: p[2])[:3]
    published = [p for p in pairs if context.published and (p[0].index, p[1].index) == (147, 379)]
    source, target, degrees, kernel = (published or sorted(similar, key=_size))[0]
    fit = arc_fit(kernel, target.orientation)
    crops = visualizations(context, [source.unit, target.unit])
    edge = EdgeLook(
        UnitLook(source.unit, crops[source.unit]),
        UnitLook(target.unit, crops[target.unit]),
        kernel,
        (
            f"{source.orientation:.0f}° to {target.orientation:.0f}°",
            f"sum of the weights {number(float(kernel.sum()))}",
        ),
    )
    drawing = edge_columns({"": [edge]}, tile=230, title="Weights between two curve detectors",
                           about=f"{early.layer} to {late.layer} of {context.model.name}")  # fmt: skip
    chance = [arc_fit(k, t.orientation).own for _, t, a, k in pairs if a > 90.0]
    control = float(np.mean(chance)) if chance else 0.0
    claims = [
        Claim(
            "the kernel is shaped like the later unit's curve (correlation with the arc)",
            fit.own,
            control,
            fit.own > max(0.0, control),
            "mean of edges between curves more than 90° apart",
        ),
        Claim(
            "it excites (sum of the weights)",
            float(kernel.sum()),
            float(np.mean([k.sum() for *_, k in pairs])),
            float(kernel.sum()) > 0,
            "mean of all such edges",
        ),
    ]
    numbers = {
        "source": source.unit,
        "target": target.unit,
        "degrees_apart": degrees,
        "kernel": kernel.tolist(),
        "arc_by_orientation": fit.by_orientation.tolist(),
    }
    caption = (
        f"The largest edge (L2 norm) between curve detectors at most 40° apart, of {len(similar)} with a kernel of "
        f"{widest} weights, the widest there are. Below: {early.how}. "
        f"Above: {late.how}."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)


@figure(
    "Z7",
    "curve-signs",
    "Curve detectors excite those of their orientation and inhibit those of the opposite",
    paper="zoom-in",
    shows="Early curve detectors excite later ones of similar orientation and inhibit those of the opposite one.",
    cost=40,
)
def signs(context: FigureContext) -> FigureResult:
    """The largest edges between curve detectors of similar and of opposite orientation, of either sign."""
    from circuits.plot.circuit.edge_columns import EdgeLook, edge_columns
    from circuits.plot.drawing.unit_rows import UnitLook
    from circuits.plot.drawing.wording import number
    from circuits.tuning.detectors import sign_rule

    early, late = _families(context)
    rule = sign_rule(
        context.model, early.detectors, late.detectors, shuffles=context.size(2000, 1000, 100), seed=context.seed
    )
    pairs = _pairs(context, early, late)
    n = context.size(4, 3, 1)
    columns = {
        "similar orientation": _distinct(sorted(pairs, key=lambda p: (max(p[2], _NEAR), *_size(p))), n),
        "opposite orientation": _distinct(sorted(pairs, key=lambda p: (-min(p[2], 180 - _NEAR), *_size(p))), n),
    }
    units = list(dict.fromkeys(u.unit for edges in columns.values() for s, t, *_ in edges for u in (s, t)))
    crops = visualizations(context, units)
    looks = {
        name: [
            EdgeLook(
                UnitLook(s.unit, crops[s.unit]), UnitLook(t.unit, crops[t.unit]), k,
                (f"{a:.0f}° apart; sum of the weights {number(float(k.sum()))}",),
            )
            for s, t, a, k in edges
        ]
        for name, edges in columns.items()
    }  # fmt: skip
    drawing = edge_columns(looks, tile=112, title="Excitation and inhibition between curve detectors",
                           about=f"{early.layer} to {late.layer} of {context.model.name}; over all {rule.weights.size} "
                           f"edges, correlation with the cosine of the angle: r = {rule.correlation:.2f}")  # fmt: skip
    bound = float(np.quantile(rule.shuffled, 0.95))
    similar, opposite = rule.mean(0, 45), rule.mean(135, 181)
    claims = [
        Claim.above(
            "weights correlate with the cosine of the angle",
            rule.correlation,
            bound,
            "95 % of shuffled orientations are below",
        ),
        Claim.above(
            "within 45° weights are larger than beyond 135° (means)", similar, opposite, "the mean beyond 135°"
        ),
    ]
    numbers = {
        **{k: v for k, v in rule.describe().items() if k != "provenance"},
        "shown": {
            name: [
                {"source": s.unit, "target": t.unit, "degrees_apart": a, "kernel": k.tolist()} for s, t, a, k in edges
            ]
            for name, edges in columns.items()
        },
    }
    caption = (
        f"The {n} largest edges (L2 norm, of either sign) between curve detectors within {_NEAR:.0f}° of the same "
        f"and of the opposite orientation, or as near as there are, a unit in one edge of a column only; {early.how}; "
        f"{late.how}. Correlation over all edges {rule.correlation:.2f}, p {rule.p:.4f}."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)


def _families(context: FigureContext) -> tuple[Search, Search]:
    late = context.layer("mixed3b", "fire5")
    early = context.layer("mixed3a", "fire4")
    return search(context, "curve", early, at_least=4), search(context, "curve", late, at_least=4)


def _pairs(context: FigureContext, early: Search, late: Search) -> list[tuple[TunedUnit, TunedUnit, float, Any]]:
    """All edges: source, target, degrees between them, kernel."""
    from circuits import expanded_weights

    targets = [u.unit for u in late.units]
    kernels = np.asarray(expanded_weights(context.model, source=early.layer, target=targets).kernels.detach())
    pairs = []
    for i, target in enumerate(late.units):
        for source in early.units:
            degrees = abs((source.orientation - target.orientation + 180) % 360 - 180)
            pairs.append((source, target, degrees, kernels[i, source.index]))
    return pairs


def _size(edge: Any) -> tuple[float]:
    """To sort edges by, the largest first, of either sign."""
    return (-float((edge[3] ** 2).sum()),)


def _distinct(edges: list[Any], n: int) -> list[Any]:
    """The first `n` edges in which no unit comes twice."""
    chosen: list[Any] = []
    for edge in edges:
        if len(chosen) < n and all(edge[0] != e[0] and edge[1] != e[1] for e in chosen):
            chosen.append(edge)
    return chosen
