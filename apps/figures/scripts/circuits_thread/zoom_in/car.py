"""Zoom In: the car detector, assembled from windows above, a car body, and wheels below."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.unit_roles import car

if TYPE_CHECKING:
    from apps.cli.verify.checks import Check
    from apps.figures.context import FigureContext
    from circuits.tracing.circuit import Circuit


def _published(context: FigureContext) -> Iterator[Check]:
    from apps.cli.verify import inceptionv1

    return inceptionv1.car(context.model)


@figure(
    "Z11",
    "car-circuit",
    "A car detector is assembled from its parts",
    paper="zoom-in",
    shows="A unit for cars reads windows from above and wheels from below, by kernels one can see.",
    cost=60,
    published=_published,
)
def draw(context: FigureContext) -> FigureResult:
    """Trace the car unit one layer back; its strongest inputs, each with the kernel and where it excites."""
    import circuits
    from apps.cli.output.part_names import label_parts
    from circuits.plot import circuit_graph, crops

    role = car(context)
    pictures = context.images
    found = circuits.trace(context.model, role.unit, images=pictures, width=6, n_places=context.size(32, 16, 4))
    found = label_parts(context.model, found, pictures)
    score = circuits.score(context.model, found, images=pictures, random=context.size(50, 20, 5), seed=context.seed)
    drawing = circuit_graph(found, crops(found, pictures, context.model.input))
    edges = [
        {
            "source": e.source,
            "label": next((n.label for n in found.nodes if n.unit == e.source), None),
            "strength": e.strength,
            "kernel": e.kernel.tolist(),
            "height": _height(e.kernel),
        }
        for e in found.into(found.target)
    ]
    numbers = {"unit": role.unit, "edges": edges, "faithfulness": score.faithfulness}
    claims = [
        Claim(
            "the inputs shown carry the unit",
            score.faithfulness,
            max(score.random_faithfulness, default=0.0),
            score.faithfulness > max(score.random_faithfulness, default=0.0),
            "the best of random circuits of the same size",
        )
    ]
    apart, chance = _spread(context, found)
    claims.append(
        Claim(
            "some inputs excite from above and others from below (rows between them; 2: all the way)",
            apart, chance, apart > chance, "95 % of the same kernels with their places shuffled stay below",
        )
    )  # fmt: skip
    height = {e["label"]: e["height"] for e in edges if e["label"] in ("wheel", "window") and e["strength"] > 0}
    if len(height) == 2:
        holds = height["wheel"] > height["window"]
        claims.append(
            Claim("wheels excite from below windows", height["wheel"], height["window"], holds, "the windows' height")
        )
    return FigureResult({"": drawing}, numbers, f"The strongest inputs of a car detector; {role.how}.", claims)


def _spread(context: FigureContext, found: Circuit) -> tuple[float, float]:
    """How far apart the heights are from which inputs excite; 95 % of kernels with shuffled places stay below."""
    import numpy as np

    kernels = [e.kernel for e in found.into(found.target) if e.strength > 0]
    if not kernels:
        return 0.0, 0.0
    rng = np.random.default_rng(context.seed)

    def shuffled(kernel: Any) -> Any:
        there = np.ix_(np.any(kernel, axis=1), np.any(kernel, axis=0))  # a kernel of a 1x1 branch stays one
        mixed = kernel.copy()
        mixed[there] = rng.permutation(kernel[there].ravel()).reshape(kernel[there].shape)
        return mixed

    drawn = [np.ptp([_height(shuffled(k)) for k in kernels]) for _ in range(200)]
    return float(np.ptp([_height(k) for k in kernels])), float(np.quantile(drawn, 0.95))


def _height(kernel: object) -> float:
    """The row at which a kernel excites on average, from -1 at the top to 1 at the bottom."""
    import numpy as np

    rows = np.clip(np.asarray(kernel, dtype=float), 0, None).sum(axis=1)
    return float((np.linspace(-1, 1, len(rows)) * rows).sum() / max(rows.sum(), 1e-12)) if len(rows) > 1 else 0.0
