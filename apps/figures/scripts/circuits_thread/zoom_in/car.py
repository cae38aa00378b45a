"""Zoom In: the car detector, assembled from windows above, a car body, and wheels below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from apps.cli.verify import inceptionv1
from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.unit_roles import car

if TYPE_CHECKING:
    from circuits.tracing.circuit import Circuit


@figure(
    "Z11",
    "car-circuit",
    "A car detector is assembled from its parts",
    paper="zoom-in",
    shows="Windows excite a unit for cars from above and wheels from below, as its kernels show.",
    cost=60,
    published=lambda context: inceptionv1.car(context.model),
)
def draw(context: FigureContext) -> FigureResult:
    """Trace the car unit one layer back; its strongest inputs, each with the kernel and where it excites."""
    import circuits
    from apps.cli.output.part_names import label_parts
    from circuits.plot import circuit_graph, crops

    role = car(context)
    images = context.images
    traced = circuits.trace(context.model, role.unit, images=images, width=6, n_positions=context.size(32, 16, 4))
    traced = label_parts(context.model, traced, images)
    score = circuits.score(context.model, traced, images=images, random=context.size(50, 20, 5), seed=context.seed)
    drawing = circuit_graph(traced, crops(traced, images, context.model.input))
    edges = [
        {
            "source": e.source,
            "label": next((n.label for n in traced.nodes if n.unit == e.source), None),
            "strength": e.strength,
            "kernel": e.kernel.tolist(),
            "height": _height(e.kernel),
        }
        for e in traced.into(traced.target)
    ]
    numbers = {"unit": role.unit, "edges": edges, "faithfulness": score.faithfulness}
    claims = [
        Claim.above(
            "the strongest inputs explain the unit: faithfulness",
            score.faithfulness,
            max(score.control_faithfulness, default=0.0),
            f"the best of {score.control}, of the same size",
        )
    ]
    spread, chance = _spread(context, traced)
    claims.append(
        Claim.above(
            "some inputs excite from above and others from below: largest difference in height, at most 2",
            spread,
            chance,
            "95 % of the same kernels with shuffled positions are below",
        )
    )
    height = {e["label"]: e["height"] for e in edges if e["label"] in ("wheel", "window") and e["strength"] > 0}
    if len(height) == 2:
        claims.append(
            Claim.above("wheels excite from below windows", height["wheel"], height["window"], "the windows' height")
        )
    return FigureResult({"": drawing}, numbers, f"The strongest inputs of a car detector; {role.how}.", claims)


def _spread(context: FigureContext, circuit: Circuit) -> tuple[float, float]:
    """The largest difference in height between exciting inputs, and the 95th percentile for shuffled kernels."""
    kernels = [e.kernel for e in circuit.into(circuit.target) if e.strength > 0]
    if not kernels:
        return 0.0, 0.0
    rng = np.random.default_rng(context.seed)

    def shuffled(kernel: Any) -> Any:
        there = np.ix_(np.any(kernel, axis=1), np.any(kernel, axis=0))  # a kernel of a 1x1 branch keeps its shape
        mixed = kernel.copy()
        mixed[there] = rng.permutation(kernel[there].ravel()).reshape(kernel[there].shape)
        return mixed

    sample = [np.ptp([_height(shuffled(k)) for k in kernels]) for _ in range(200)]
    return float(np.ptp([_height(k) for k in kernels])), float(np.quantile(sample, 0.95))


def _height(kernel: object) -> float:
    """The row at which a kernel excites on average, from -1 at the top to 1 at the bottom."""
    rows = np.clip(np.asarray(kernel, dtype=float), 0, None).sum(axis=1)
    return float((np.linspace(-1, 1, len(rows)) * rows).sum() / max(rows.sum(), 1e-12)) if len(rows) > 1 else 0.0
