"""In which order a wall shows the units of a layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuits.dataset.reservoir import NO_IMAGE
from circuits.dataset.scan_results import LayerScan

ORDERS = {
    "number": "Number",
    "density": "How often it fires",
    "selectivity": "Selectivity",
    "maximum": "Strongest response",
    "label": "Name",
    "likeness": "Likeness to a unit",
}


def selectivity(layer: LayerScan) -> NDArray[np.float64]:
    """How one-sided each unit's strongest pictures are, `(units,)` in [0, 1].

    With labels: the largest share of a class among its strongest pictures. Without: how far its mean response where it
    fires lies below its strongest, as a share of that; 1 for a unit that hardly ever says much.
    """
    images, values = layer.arrays["top.image"], layer.arrays["top.value"]
    there = (images != NO_IMAGE) & (values > 0)
    if layer.labels is None:
        most = np.maximum(layer.maximum.astype(np.float64), 1e-30)
        return np.where(there[:, 0], 1 - np.clip(layer.mean_if_on / most, 0, 1), 0.0)
    names, codes = np.unique(np.asarray(layer.labels), return_inverse=True)
    counts = np.zeros((len(images), len(names)))
    rows, columns = np.nonzero(there)
    np.add.at(counts, (rows, codes[images[rows, columns]]), 1)
    return np.asarray(counts.max(axis=1) / np.maximum(counts.sum(axis=1), 1))


def order(
    layer: LayerScan, by: str, *, names: dict[int, str], likeness: NDArray[np.float32] | None = None
) -> tuple[list[int], list[str]]:
    """Units in an order, and what is told of each of them.

    Args:
        layer: what the scan found.
        by: one of `ORDERS`.
        names: of units that have one.
        likeness: of each unit to the one that is compared with; for "likeness".
    """
    units = range(len(layer))
    if by == "density":
        values: NDArray[np.float64] = layer.density
        notes = [f"{100 * v:.2g} %" for v in values]
    elif by == "selectivity":
        values = selectivity(layer)
        notes = [f"{100 * v:.0f} %" for v in values]
    elif by == "likeness" and likeness is not None:
        values = likeness.astype(np.float64)
        notes = [f"{v:.2f}" for v in values]
    elif by == "label":
        named = sorted(units, key=lambda i: (i not in names, names.get(i, "").casefold(), i))
        return named, [""] * len(layer)
    elif by == "maximum":
        values = layer.maximum.astype(np.float64)
        notes = [f"{v:.3g}" for v in values]
    else:
        return list(units), [f"{100 * v:.2g} %" for v in layer.density]
    return np.argsort(-values, kind="stable").tolist(), notes


def most_selective(layer: LayerScan, least: int = 10) -> int:
    """The unit whose strongest pictures are most of one kind, among those that fire on at least so many."""
    often = layer.fires_on >= min(least, int(layer.fires_on.max(initial=0)))
    return int(np.where(often, selectivity(layer), -1.0).argmax())
