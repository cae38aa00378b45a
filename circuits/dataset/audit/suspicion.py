"""How suspicious a unit is: what it gives a class, by how much of it comes from off the object. See `audit`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from circuits.common.statistics import Estimate
from circuits.dataset.audit.evidence import Evidence
from circuits.dataset.audit.pixels import cell_distances
from circuits.tracing.ablation.sources import Latents

DRAWS = 1000
"""Resamplings of the images for an interval."""


def candidates(evidence: Evidence) -> list[int]:
    """Units of the smallest set that give the class something by what is there.

    Not the error of a dictionary, which is no direction; and no unit after a ReLU that gives it by being low: that a
    class is told by the absence of another one's cue is no shortcut of its own.
    """
    source = evidence.ablation.sources[evidence.space]
    error = source.latents if isinstance(source, Latents) else None
    absent = (evidence.signs < 0) & evidence.rectified
    return [u for u in evidence.members if u != error and float(evidence.shares[u]) > 0 and not bool(absent[u])]


def suspicion(evidence: Evidence, unit: int) -> float:
    """Share of the class's evidence that a unit brings from off the object; see `audit`."""
    return float(evidence.shares[unit]) * off(evidence, unit)


def off(evidence: Evidence, unit: int) -> float:
    """How far off the object the evidence of a unit lies, 0 to 1; see `audit`."""
    if evidence.pixels is not None:
        known = ~evidence.pixels[0][:, unit].isnan()
        return float(_share(*(part[known, unit].sum() for part in evidence.pixels)))
    return (border(evidence, unit) + 1 - agreement(evidence, unit)) / 2


def _share(inside: Tensor, outside: Tensor) -> Tensor:
    """What the background adds, by all that object and background change, whether they add or take away."""
    return outside.clamp(min=0) / (inside.abs() + outside.abs()).clamp_min(1e-30)


def border(evidence: Evidence, unit: int) -> float:
    """Mean distance from the center of the cells that give a unit its activation, without masks."""
    assert evidence.cells is not None
    given = evidence.cells[:, unit].sum(dim=0)
    return float((given @ cell_distances()) / given.sum().clamp_min(1e-30))


def agreement(evidence: Evidence, unit: int) -> float:
    """Mean cosine, over images, between the cells that give a unit its activation and those of the class's others.

    The others are those of the smallest set, each by its share; without any it is 0.
    """
    assert evidence.cells is not None
    others = [u for u in evidence.members if u != unit and float(evidence.shares[u]) > 0]
    each = evidence.cells / evidence.cells.sum(dim=2).mean(dim=0)[None, :, None].clamp_min(1e-30)
    rest = torch.einsum("nuc,u->nc", each[:, others], evidence.shares[others].float())
    own = each[:, unit]
    size = own.norm(dim=1) * rest.norm(dim=1)
    cosines = (own * rest).sum(dim=1)[size > 0] / size[size > 0]
    return float(cosines.mean()) if len(cosines) else 0.0


def class_distance(layers: Iterable[Evidence], rng: np.random.Generator) -> Estimate | None:
    """How far from the center a class's evidence lies: the mean of `border` over its candidates, by their shares.

    With the interval of resampled images; None with masks, or without candidates.
    """
    value, draws, whole, rows = 0.0, np.zeros(DRAWS), 0.0, None
    for evidence in layers:
        units = candidates(evidence)
        if evidence.cells is None or not units:
            continue
        if rows is None:
            rows = torch.from_numpy(rng.integers(len(evidence.cells), size=(DRAWS, len(evidence.cells))))
        weights = evidence.shares[units].double()
        given = evidence.cells[:, units].double()
        far, every = given @ cell_distances().double(), given.sum(dim=2)  # (N, units)
        value += float((far.sum(dim=0) / every.sum(dim=0).clamp_min(1e-30)) @ weights)
        sampled = [(far[r].sum(dim=0) / every[r].sum(dim=0).clamp_min(1e-30)) @ weights for r in rows]
        draws += torch.stack(sampled).numpy()
        whole += float(weights.sum())
    return None if not whole else Estimate.of(value / whole, draws / whole)


def off_interval(evidence: Evidence, unit: int, rng: np.random.Generator) -> Estimate | None:
    """`off`, with the interval of resampled images."""
    if evidence.pixels is None:
        return None
    known = ~evidence.pixels[0][:, unit].isnan()
    inside, outside = (part[known, unit].double() for part in evidence.pixels)
    rows = torch.from_numpy(rng.integers(len(inside), size=(DRAWS, len(inside))))
    return Estimate.of(_share(inside.sum(), outside.sum()), _share(inside[rows].sum(dim=1), outside[rows].sum(dim=1)))


def attribution_off(evidence: Evidence, unit: int) -> float | None:
    """Share of the positive activation x gradient of a unit at positions off the mask."""
    if evidence.attribution_off is None:
        return None
    known = ~evidence.attribution_off[:, unit].isnan()
    whole = evidence.attribution[known, unit].sum().clamp_min(1e-30)
    return float(evidence.attribution_off[known, unit].sum() / whole)
