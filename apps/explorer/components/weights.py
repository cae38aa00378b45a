"""Kernels between the images of the units that they connect; a click on the other unit opens it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.explorer.components import component
from apps.explorer.session import links
from circuits.plot.drawing import palette
from circuits.plot.drawing.crops import data_uri
from circuits.plot.drawing.svg import numbers
from circuits.plot.drawing.wording import decimals, kernel_effect, minus, short
from circuits.units.dossier.neighbor_weights import NeighborWeights

_mount = component("weights")


def kernel_uri(kernel: NDArray[np.float32], scale: float) -> str:
    """A kernel as a PNG of one pixel a weight, in the colors of signs."""
    return data_uri(palette.encode(np.atleast_2d(kernel), scale))


def weight_rows(
    weights: NeighborWeights, images: Mapping[str, str | None], labels: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Data of the element: one row for each connected unit, all kernels in one color scale."""
    scale = palette.shared_scale(row.kernel for row in weights.rows)
    digits = decimals([row.weight for row in weights.rows])
    return [
        {
            "unit": row.unit,
            "href": links.unit_path(row.unit),
            "src": images.get(row.unit),
            "kernel": kernel_uri(row.kernel, scale),
            "shape": list(row.kernel.shape),
            "address": short(row.unit),
            "label": labels.get(row.unit, ""),
            "number": minus(f"{row.weight:+.{digits}f}"),
            "share": f"{100 * row.share:.2g} %",
            "sign": 1 if row.weight > 0 else -1 if row.weight < 0 else 0,
            "effect": kernel_effect(row.kernel),
            "weights": numbers(np.atleast_2d(row.kernel)),
        }
        for row in weights.rows
    ]


def weight_list(rows: Sequence[dict[str, Any]], own: str | None, own_name: str, *, incoming: bool, key: str) -> None:
    """Show the weights.

    Args:
        rows: of `weight_rows`; own, own_name: image and name of the page's unit.
        incoming: whether the weights lead to that unit, or from it; key: of the element.
    """
    data = {"rows": list(rows), "own": own, "name": own_name, "incoming": incoming}
    links.open_unit(_mount(key=key, data=data, on_open_change=lambda: None).open)
