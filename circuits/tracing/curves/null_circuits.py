"""Random circuits to hold a circuit against: any units, units as active as its own, or strong ones.

A random unit of a layer may have no weight on the target at all, and a random circuit then keeps nothing: to be better
says only that the circuit's units are connected. So a circuit is held against random choices among the units that
act most on the target, and beside them against units that are as active as its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from circuits.tracing.ablation.ablation import UnitsByLayer

STRONG = 2
"""Strong units: so many times as many as the circuit has in a layer, or the `LEAST` strongest that act at all."""
LEAST = 16
NEIGHBORS = 8
"""A unit is matched with one of so many that are nearest in mean activation."""


def uniform(counts: Mapping[str, int], widths: Mapping[str, int], generator: torch.Generator) -> dict[str, set[int]]:
    """As many units of each layer as `counts`, any of the layer's `widths`."""
    return {
        layer: set(torch.randperm(widths[layer], generator=generator)[:count].tolist())
        for layer, count in counts.items()
    }


def among_strongest(
    counts: Mapping[str, int], strengths: Mapping[str, Tensor], rng: np.random.Generator
) -> dict[str, set[int]]:
    """As many units of each layer as `counts`, out of its strongest.

    Args:
        counts: layer -> number of units.
        strengths: layer -> `(C,)`, |gradient x activation|: see `Ablation.strengths`.
        rng: of the choice.
    """
    chosen = {}
    for layer, count in counts.items():
        pool = max(STRONG * count, min(LEAST, int((strengths[layer] > 0).sum())))
        strongest = strengths[layer].argsort(descending=True, stable=True)[:pool].tolist()
        chosen[layer] = set(rng.choice(strongest, size=count, replace=False).tolist())
    return chosen


def matched(units: UnitsByLayer, means: Mapping[str, Tensor], rng: np.random.Generator) -> dict[str, set[int]]:
    """For each unit another of its layer that is about as active; one of the circuit's own where no other is left.

    Args:
        units: the circuit.
        means: layer -> mean activation of each unit `(C,)`.
        rng: of the choice.
    """
    chosen: dict[str, set[int]] = {}
    for layer, members in units.items():
        activity = means[layer].double().cpu().numpy()
        taken: set[int] = set()
        for unit in rng.permutation(sorted(members)).tolist():
            others = [i for i in range(len(activity)) if i not in members and i not in taken]
            others = others or [i for i in range(len(activity)) if i not in taken]
            nearest = sorted(others, key=lambda i: abs(activity[i] - activity[unit]))[:NEIGHBORS]
            taken.add(int(rng.choice(nearest)))
        chosen[layer] = taken
    return chosen
