"""The thumbnail of a unit, with its label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.explorer.components.gallery import tile
from apps.explorer.session import state
from apps.explorer.session.state import Location
from circuits.network.address import Unit
from circuits.plot.drawing.wording import short


def unit_tile(
    at: Location, unit: str, labels: Mapping[str, str], note: str = "", *, mark: str = "", pick: bool = False
) -> dict[str, Any]:
    """The tile of a unit: its thumbnail, its label or else its address, and a note.

    Args:
        at: the model; unit: full address; labels: of units by address.
        note: under the label; mark: see `tile`; pick: whether a click returns the unit instead of opening it.
    """
    address, name = short(unit), labels.get(unit, "")
    src = state.thumb_of(at, Unit.parse(unit))
    text = " ".join(part for part in (note, address if name else "") if part)
    alt = f"{address}: {name}" if name else address
    return tile(
        None if pick else unit, src, alt=alt, name=name or address, note=text, mark=mark, pick=address if pick else None
    )
