"""Two units side by side: whether they are active at the same positions of the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuits.common.provenance import provenance
from circuits.dataset.scan_results import Samples, Scan
from circuits.errors import AddressError, CircuitsError
from circuits.network.address import Unit
from zoo.common.checks import whole_number
from zoo.common.results import Result

TOP = 20
"""Top activating images of each unit that are held against each other."""
_PERCENTILE, _MOST_PAIRS = 99.0, 200_000


@dataclass(frozen=True)
class UnitComparison(Result):
    """How alike the activations of two units are, of one network or of two.

    Attributes:
        first, second: addresses.
        positions: of the images, sampled at random, at which both were read.
        correlation: of their activations at these positions; 0 where one of them is never active there.
        chance: the 99th percentile of the correlation of two units, one of either layer, sampled at random.
        rank: of `second` among the `count` units of its layer by the correlation with `first`; 1 is the highest.
        nearest: `(address, correlation)` of the units of the second's layer that correlate most with the first.
        shared: images among the top activating ones of both, of `top` of each; expected: so many by chance, where
            each unit's top activating images are any of the images.
        provenance: scans.
    """

    first: str
    second: str
    positions: int
    correlation: float
    chance: float
    rank: int
    count: int
    nearest: tuple[tuple[str, float], ...]
    shared: int
    top: int
    expected: float
    provenance: Mapping[str, Any] = field(default_factory=dict)


def compare_units(
    first: Scan, unit: str | Unit, second: Scan, other: str | Unit, *, n: int = 12, seed: int = 0
) -> UnitComparison:
    """Hold the activations of two units against each other, at the same positions of the same images.

    Args:
        first, second: scans of the same images with the same seed and samples; one scan for two units of it.
        unit, other: a unit of the first, and one of the second, by canonical address.
        n: units of the second's layer to list.
        seed: of the pairs that chance is measured on.

    Raises:
        AddressError: no such unit. CircuitsError: the scans are of other images, or read them at other positions.
    """
    whole_number("n", n)
    a, b = (_checked(scan, at) for scan, at in ((first, unit), (second, other)))
    left, right = first.samples(a.space), second.samples(b.space)
    if first.manifest["images"]["digest"] != second.manifest["images"]["digest"] or not _same_positions(left, right):
        raise CircuitsError(
            f"{a.short} was scanned on {first.count} images of {first.image_source}, {b.short} on {second.count} of "
            f"{second.image_source}, or at other positions: scan both on the same images, with the same --seed and "
            "--samples"
        )
    mine, theirs = (_standardized(s, samples, at) for s, samples, at in ((first, left, a), (second, right, b)))
    assert a.index is not None and b.index is not None
    row = theirs.T @ mine[:, a.index]
    same = first.manifest["digest"] == second.manifest["digest"] and a.space == b.space
    order = [i for i in np.argsort(-row, kind="stable").tolist() if not (same and i == a.index)]
    images = [{e.image for e in scan.unit(at).top[:TOP]} for scan, at in ((first, a), (second, b))]
    return UnitComparison(
        first=str(_named(a, first)),
        second=str(_named(b, second)),
        positions=len(mine),
        correlation=float(row[b.index]),
        chance=_chance(mine, theirs, same, seed),
        rank=order.index(b.index) + 1 if b.index in order else 0,
        count=len(order),
        nearest=tuple((str(Unit(b.layer, i, second.model, b.basis)), float(row[i])) for i in order[:n]),
        shared=len(images[0] & images[1]),
        top=TOP,
        expected=len(images[0]) * len(images[1]) / first.count,
        provenance=provenance(scans=[first.manifest["digest"], second.manifest["digest"]], seed=seed),
    )


def _checked(scan: Scan, address: str | Unit) -> Unit:
    unit = address if isinstance(address, Unit) else Unit.parse(address)
    scan.unit(unit)  # raises the error of a unit that is not there
    return unit.channel


def _named(unit: Unit, scan: Scan) -> Unit:
    if unit.index is None:
        raise AddressError(f"{unit.short} is a layer: name one of its units")
    return Unit(unit.layer, unit.index, scan.model, unit.basis)


def _same_positions(a: Samples, b: Samples) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("images", "down", "across"))


def _standardized(scan: Scan, samples: Samples, unit: Unit) -> NDArray[np.float64]:
    """Activations `(samples, units)` of mean 0 and length 1: their inner products are correlations."""
    values = samples.values.astype(np.float64)
    if scan.layer(unit.space).signed:  # read before its ReLU; elsewhere what is below zero is an activation, too
        values = np.maximum(values, 0)
    values = values - values.mean(axis=0)
    lengths = np.linalg.norm(values, axis=0)
    return np.asarray(np.where(lengths > 1e-12, values / np.maximum(lengths, 1e-12), 0.0))


def _chance(mine: NDArray[np.float64], theirs: NDArray[np.float64], same: bool, seed: int) -> float:
    pairs = mine.shape[1] * theirs.shape[1]
    if pairs <= _MOST_PAIRS:
        i, j = (axis.ravel() for axis in np.indices((mine.shape[1], theirs.shape[1])))
    else:
        draw = np.random.default_rng(seed)
        i, j = (draw.integers(0, v.shape[1], _MOST_PAIRS) for v in (mine, theirs))
    keep = i != j if same else np.ones(len(i), bool)
    values = np.concatenate([
        np.einsum("nk,nk->k", mine[:, a], theirs[:, b])
        for a, b in zip(np.array_split(i[keep], 40), np.array_split(j[keep], 40), strict=True)
    ])  # fmt: skip
    return float(np.percentile(values, _PERCENTILE)) if len(values) else 0.0
