"""Random circuits to hold a circuit against: any units, units as active as its own, or strong ones.

A random unit of a layer may have no weight on the target at all, and a random circuit then keeps nothing: to be better
says only that the circuit's units are connected. So a circuit is held against random choices among the units that
act most on the target, and beside them against units that are as active as its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from circuits.network.address import Unit
from circuits.network.hooks import frozen
from circuits.network.layers.axes import as_maps
from circuits.tracing.ablation.ablation import Ablation, UnitsByLayer

STRONG = 2
"""Strong units: so many times as many as the circuit has in a layer, or the `LEAST` strongest that act at all."""
LEAST = 16
NEIGHBORS = 8
"""A unit is matched with one of so many that are nearest in mean activation."""


def strengths(ablation: Ablation) -> dict[str, Tensor]:
    """Layer -> for each unit `(C,)` |gradient x activation|, summed over positions and images.

    The gradient is that of the target's response, summed over its positions: where the network is linear in
    between, these are |expanded weight x activation|. Of predictions, whose divergence has no gradient where
    nothing is ablated, it is that of the log probability of the likeliest class.
    """
    totals = {name: torch.zeros(width) for name, width in ablation.widths.items()}
    first, *later = ablation.sources.values()
    with frozen(ablation.model.module), torch.enable_grad():
        for batch in ablation.batches():
            passed = {first.name: batch.acts.detach().requires_grad_(True)}
            taps = {source.layer: partial(passed.setdefault, source.name) for source in later}
            out = ablation.target.sensitive(ablation.segment.respond(passed[first.name], batch.context, taps))
            gradients = torch.autograd.grad(out.sum(), list(passed.values()), allow_unused=True)
            for (name, acts), gradient in zip(passed.items(), gradients, strict=True):
                if gradient is not None:
                    source = ablation.sources[name]
                    parts = batch.parts if source is first else source.parts(as_maps(acts.detach()))
                    products = source.by_unit(gradient.detach().view(len(parts), -1, *parts.shape[2:]), parts)
                    totals[name] += products.abs().flatten(2).sum(dim=(0, 2)).cpu().float()
    return totals


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
        strengths: layer -> `(C,)`, |gradient x activation|: see the function.
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
        free = np.ones(len(activity), dtype=bool)
        others = free.copy()
        others[list(members)] = False
        for unit in rng.permutation(sorted(members)).tolist():
            candidates = np.flatnonzero(others if others.any() else free)
            nearest = np.abs(activity[candidates] - activity[unit]).argsort(kind="stable")[:NEIGHBORS]
            other = rng.choice(candidates[nearest])
            others[other] = free[other] = False
        chosen[layer] = set(np.flatnonzero(~free).tolist())
    return chosen


def matched_units(units: Sequence[Unit], means: Mapping[str, Tensor], rng: np.random.Generator) -> list[Unit]:
    """For each of some channels or latents, in their order, another one as `matched` chooses it, none twice.

    Args:
        units: each once.
        means: layer or basis (`Unit.space`) -> mean activation of each of its units.
        rng: of the choice.
    """
    members: dict[str, set[int]] = {}
    for unit in units:
        members.setdefault(unit.space, set()).add(unit.index or 0)
    others = matched(members, means, rng)
    to = {
        (space, unit): other
        for space, of in members.items()
        for unit, other in zip(sorted(of), rng.permutation(sorted(others[space])).tolist(), strict=True)
    }
    return [replace(unit, index=to[unit.space, unit.index or 0]) for unit in units]
