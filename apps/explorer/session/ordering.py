"""Orders of the units of a layer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from circuits.dataset.scan_results import LayerScan
from circuits.plot.site import pages

ORDERS = {**pages.ORDERS, "similarity": "Similarity to a unit"}


def order(
    layer: LayerScan,
    by: str,
    *,
    labels: dict[int, str],
    similarity: NDArray[np.float32] | None = None,
    polysemanticity: Mapping[int, float] | None = None,
) -> tuple[list[int], list[str]]:
    """Units in an order, and a note on each of them.

    Args:
        layer: of a scan; by: one of `ORDERS`.
        labels: of units by number, for "label"; similarity: of each unit to one unit, for "similarity".
        polysemanticity: scores by number, for "polysemanticity"; units without one come last.
    """
    units = range(len(layer))
    if by == "density":
        values: NDArray[np.float64] = layer.density
        notes = [f"{100 * v:.2g} %" for v in values]
    elif by == "selectivity":
        values = layer.selectivity
        notes = [f"{100 * v:.0f} %" for v in values]
    elif by == "similarity" and similarity is not None:
        values = similarity.astype(np.float64)
        notes = [f"{v:.2f}" for v in values]
    elif by == "label":
        ordered = sorted(units, key=lambda i: (i not in labels, labels.get(i, "").casefold(), i))
        return ordered, [""] * len(layer)
    elif by == "polysemanticity" and polysemanticity is not None:
        scores = polysemanticity
        notes = [f"{scores[i]:.2f}" if i in scores else "not clustered" for i in units]
        return sorted(units, key=lambda i: (-scores.get(i, -1.0), i)), notes
    elif by == "maximum":
        values = layer.maximum.astype(np.float64)
        notes = [f"{v:.3g}" for v in values]
    else:
        return list(units), [f"{100 * v:.2g} %" for v in layer.density]
    return np.argsort(-values, kind="stable").tolist(), notes
