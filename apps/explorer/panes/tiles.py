"""The small picture of a unit, with its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.explorer.components.gallery import tile
from apps.explorer.session import state
from apps.explorer.session.state import Here
from circuits.network.address import Unit
from circuits.plot.drawing.wording import short


def unit_tile(
    at: Here, unit: str, names: Mapping[str, str], note: str = "", *, mark: str = "", pick: bool = False
) -> dict[str, Any]:
    """What a gallery shows of a unit: its picture, its name or else its address, and a note.

    Args:
        at: the model; unit: full address; names: of units, by address.
        note: under the name; mark: see `tile`; pick: whether a click picks it instead of opening it.
    """
    address, name = short(unit), names.get(unit, "")
    src = state.thumb_of(at, Unit.parse(unit))
    said = " ".join(part for part in (note, address if name else "") if part)
    alt = f"{address}: {name}" if name else address
    return tile(
        None if pick else unit, src, alt=alt, name=name or address, note=said, mark=mark, pick=address if pick else None
    )
