"""Kernels between the pictures of what they read and what they feed; a click on the other unit opens it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from apps.explorer.components import asset
from apps.explorer.resources.thumbnails import uri
from apps.explorer.session import links
from circuits.plot.drawing import palette
from circuits.plot.drawing.svg import numbers
from circuits.plot.drawing.wording import decimals, kernel_effect, minus, short
from circuits.units.dossier.neighbor_weights import Wires

_mount = st.components.v2.component(
    "explorer_wires",
    html='<div class="wires"></div>',
    css=asset("base.css") + asset("wires.css"),
    js=asset("wires.js"),
)


def kernel_uri(kernel: NDArray[np.float32], scale: float) -> str:
    """A kernel as a PNG of one pixel a weight, in the signed colors."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(palette.encode(np.atleast_2d(kernel), scale)).save(buffer, format="PNG")
    return uri(buffer.getvalue(), "png")


def wire_rows(found: Wires, pictures: Mapping[str, str | None], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the element shows of some wires, all kernels in one scale."""
    scale = palette.shared_scale(wire.kernel for wire in found.rows)
    places = decimals([wire.weight for wire in found.rows])
    return [
        {
            "unit": wire.unit,
            "href": links.unit_path(wire.unit),
            "src": pictures.get(wire.unit),
            "kernel": kernel_uri(wire.kernel, scale),
            "shape": list(wire.kernel.shape),
            "address": short(wire.unit),
            "label": names.get(wire.unit, ""),
            "number": minus(f"{wire.weight:+.{places}f}"),
            "share": f"{100 * wire.share:.2g} %",
            "sign": 1 if wire.weight > 0 else -1 if wire.weight < 0 else 0,
            "effect": kernel_effect(wire.kernel),
            "weights": numbers(np.atleast_2d(wire.kernel)),
        }
        for wire in found.rows
    ]


def wires(rows: Sequence[dict[str, Any]], own: str | None, own_name: str, *, into: bool, key: str) -> None:
    """The element.

    Args:
        rows: of `wire_rows`; own, own_name: picture and name of the unit that they go into or come from.
        into: whether they go into it; key: of the element.
    """
    data = {"rows": list(rows), "own": own, "name": own_name, "into": into}
    found = _mount(key=key, data=data, on_open_change=lambda: None)
    if found.open:
        links.go("unit", keep=("tour", "step"), unit=found.open)
