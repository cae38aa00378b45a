"""Phase diagrams: is a feature ignored, given a dimension of its own, or in superposition?

After Elhage et al. 2022, "Superposition as a Phase Change": m + 1 features in m dimensions, the last of importance r,
the others of importance 1. The closed forms below are the losses of ideal solutions, with entries 0 and +-1 of W and
the best bias. A feature x is 0, or with probability p uniform in 0..1, so that E x = p/2 and E x^2 = p/3.

- An ignored feature is predicted as its mean, the bias p/2: it costs its importance times its variance, `p/3 - p^2/4`.
- Two antipodal features of importances a and b cost `(a + b) p^2/6`. Alone each is exact, since the negative output of
  the other is cut off by ReLU. With probability p^2 both are active; then the larger comes out too small by the
  smaller, and the smaller is lost, so each has the squared error min(x, y)^2, with mean 1/6.

With one dimension (m = 1) and r <= 1 the alternatives are to ignore the last feature, `r (p/3 - p^2/4)`, or
superposition, `(1 + r) p^2/6`. They are equal at `p* = 4 r / (2 + 5 r)`; for r >= 1 by symmetry at `4 / (2 r + 5)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from circuits.errors import shorten
from sae.superposition.interference import interference
from sae.superposition.toy.results import REPRESENTED
from sae.superposition.toy.toy_models import ToyError, ToyModel
from sae.superposition.toy.train import train
from zoo.common.results import Result
from zoo.progress import Progress

Phase = Literal["ignored", "dedicated", "superposed"]
PHASES: tuple[Phase, ...] = ("ignored", "dedicated", "superposed")


def ignored_loss(density: float, importance: float = 1.0) -> float:
    """Loss of a feature that is not represented, with the best bias, density / 2.

    >>> round(ignored_loss(1.0), 6)
    0.083333
    """
    return importance * (density / 3 - density**2 / 4)


def antipodal_loss(density: float, importance: float = 1.0, other: float = 1.0) -> float:
    """Loss of two features on antipodal directions of length 1."""
    return (importance + other) * density**2 / 6


def phase_boundary(importance: float) -> float:
    """The density below which two features share one dimension rather than one being ignored: `4r / (2 + 5r)`.

    Args:
        importance: r, of one feature relative to the other's; above 0.

    Raises:
        ToyError: not above 0.

    >>> round(phase_boundary(1.0), 3)
    0.571
    """
    if not 0 < importance < math.inf:
        raise ToyError(f"importance={importance}: above 0")
    less = min(importance, 1 / importance)
    return 4 * less / (2 + 5 * less)


def expected_phases(density: float, importance: float, hidden: int = 1) -> tuple[Phase, ...]:
    """Phase of the last of `hidden + 1` features by the closed forms: that of least loss, or several that tie.

    The others have importance 1. The last feature may be ignored, replace another that is then ignored, or share a
    dimension; with two dimensions or more it may also have its own while two of the others share. Phases tie where all
    importances are 1.

    >>> expected_phases(0.1, 0.5)
    ('superposed',)
    """
    losses: dict[Phase, float] = {
        "ignored": ignored_loss(density, importance),
        "dedicated": ignored_loss(density),
        "superposed": antipodal_loss(density, importance),
    }
    if hidden > 1:
        losses["dedicated"] = min(losses["dedicated"], antipodal_loss(density))
    least = min(losses.values())
    return tuple(phase for phase in PHASES if losses[phase] <= least * (1 + 1e-9))


@dataclass(frozen=True, eq=False)
class PhaseDiagram(Result):
    """Phase of the last feature, by its importance and the density of all.

    Attributes:
        features, hidden: n and m = n - 1.
        importances: (I,) of the last feature, the others' being 1; densities: (D,).
        norms: `(I, D)` length of the last feature's direction, in the best of the runs.
        interference: `(I, D)` of the others in that direction, see `interference`.
        phases: `(I, D)` index into `PHASES`: trained; expected: the same by the closed forms (where several
            strategies tie, the trained one if it is among them).
        losses: `(I, D)` of the best run.
        provenance: settings, seeds, versions.
    """

    features: int
    hidden: int
    importances: tuple[float, ...]
    densities: tuple[float, ...]
    norms: NDArray[np.float64]
    interference: NDArray[np.float64]
    phases: NDArray[np.int64]
    expected: NDArray[np.int64]
    losses: NDArray[np.float64]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    described = ("agreement",)

    @property
    def agreement(self) -> float:
        """Share of cells in which the trained phase is the expected one."""
        return float((self.phases == self.expected).mean())

    def describe(self) -> dict[str, Any]:
        """Ready for JSON, phases by name; rows are importances, columns densities."""
        names = np.asarray(PHASES)
        return super().describe() | {name: names[getattr(self, name)].tolist() for name in ("phases", "expected")}


def phase_diagram(
    hidden: int = 1,
    *,
    importances: Sequence[float] = (0.1, 0.3, 1.0, 3.0, 10.0),
    densities: Sequence[float] = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02),
    seeds: int = 8,
    steps: int = 1500,
    lr: float = 5e-3,
    batch: int = 1024,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: Progress = None,
) -> PhaseDiagram:
    """Train `hidden + 1` features in `hidden` dimensions over a grid, all cells and seeds at once; keep the best runs.

    Args:
        hidden: m; 1 for two features in one dimension, 2 for three in two.
        importances: of the last feature, the others' being 1; densities: of all features.
        seeds: runs of each cell, the best of which counts.
        steps, lr, batch: as in `train`.
        seed: first seed of the weights, and of the examples.
        device, progress: as in `train`.

    Raises:
        ToyError: nothing to train, or numbers out of range.
    """
    importances, densities = tuple(map(float, importances)), tuple(map(float, densities))
    if hidden < 1 or seeds < 1 or not importances or not densities:
        raise ToyError(f"hidden={hidden} and seeds={seeds} are at least 1, importances and densities at least one each")
    if not all(0 < r < math.inf for r in importances):
        raise ToyError(f"importances are above 0: {shorten(importances)}")
    n = hidden + 1
    models = [
        ToyModel(n, hidden, p, (*[1.0] * hidden, r), seed=seed + s, data_seed=seed)
        for r in importances
        for p in densities
        for s in range(seeds)
    ]
    trained = train(models, steps=steps, lr=lr, batch=batch, device=device, records=2, progress=progress)
    shape = (len(importances), len(densities))
    runs = trained.losses.double().reshape(*shape, seeds)
    best = (runs.argmin(dim=2) + torch.arange(0, len(models), seeds).reshape(shape)).flatten()
    directions = trained.encoders[best].mT
    norms = directions[:, -1].norm(dim=-1).double().reshape(shape).numpy()
    interfering = interference(directions)[:, -1].reshape(shape).numpy()
    phases = np.where(norms <= REPRESENTED, 0, np.where(interfering < 0.25, 1, 2)).astype(np.int64)
    expected = np.array(
        [
            [_nearest(phases[i, j], expected_phases(p, r, hidden)) for j, p in enumerate(densities)]
            for i, r in enumerate(importances)
        ]
    )
    return PhaseDiagram(
        n, hidden, importances, densities, norms, interfering, phases, expected, runs.amin(dim=2).numpy(),
        {**trained.provenance, "seeds_per_cell": seeds},
    )  # fmt: skip


def _nearest(trained: int, expected: tuple[Phase, ...]) -> int:
    return int(trained) if PHASES[trained] in expected else PHASES.index(expected[0])
