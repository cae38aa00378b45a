"""Toy Models: phases of superposition, trained beside closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure


@figure(
    "T4",
    "toy-phases",
    "Phases: ignored, dedicated, superposed",
    paper="toy-models",
    shows="By density and importance an extra feature is ignored, gets a dimension, or is in superposition, "
    "with sharp borders that a closed form gives.",
    fits="toy",
    cost=40,
)
def draw(context: FigureContext) -> FigureResult:
    """Train two features in one dimension, and three in two, over a grid of importances and densities."""
    from circuits.plot.superposition.charts import phase_figure
    from sae.superposition import PhaseDiagram, experiment

    drawings: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    claims = []
    for name in ("phase-2-1", "phase-3-2")[: context.size(2, 2, 1)]:
        diagram = experiment(name).run(
            seeds=context.size(None, 2, 1), steps=context.size(None, 800, 400), seed=context.seed, device="cpu"
        )
        if not isinstance(diagram, PhaseDiagram):
            raise TypeError(f"{name} is no phase diagram")
        drawings["" if not drawings else name] = phase_figure(diagram)
        numbers[name] = diagram.describe()
        # agreement of a random cell of the diagram with a random cell of the closed form
        by_chance = float(np.mean(diagram.phases.reshape(-1, 1) == diagram.expected.reshape(1, -1)))
        claims.append(
            Claim(
                f"{diagram.features} features in {diagram.hidden}: training reaches the phase of the closed form",
                diagram.agreement,
                by_chance,
                diagram.agreement > (1 + by_chance) / 2,
                "agreement of shuffled cells",
            )
        )
    caption = (
        "The fate of the last of n features in n − 1 dimensions, by its importance and the density of all: white "
        "ignored, blue with a dimension of its own, orange in superposition. Left trained, right the closed forms."
    )
    return FigureResult(drawings, numbers, caption, claims)
