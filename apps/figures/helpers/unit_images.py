"""What scripts show of units: pictures made by optimization, photographs, tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apps.figures.context import FigureContext
    from circuits.plot.drawing.crops import Crop
    from circuits.plot.drawing.unit_rows import UnitLook
    from circuits.tuning.curves import Curve


def renders(
    context: FigureContext, units: Sequence[str], *, variants: int = 1, whole: bool = False
) -> dict[str, list[Crop]]:
    """Pictures made by optimization, unit -> its variants; an empty one where no picture makes the unit answer.

    Args:
        context: of the figure.
        units: addresses; the same list in another figure is not made again.
        variants: pictures per unit, pushed apart.
        whole: raise the unit over the whole map, so that a picture shows how what it looks for repeats; otherwise at
            one position, in a picture of the size of its receptive field: once.
    """
    import numpy as np

    from circuits.plot.drawing.crops import pixels

    found: dict[str, list[Crop]] = {}
    groups: dict[str, list[str]] = {}
    for unit in units:
        groups.setdefault(context.model.unit(unit).layer, []).append(unit)
    for layer, some in groups.items():
        options: dict[str, Any] = {"variants": variants} if variants > 1 else {}
        asked = some
        place = None if whole else _middle(context, layer)
        if place is not None:
            options["size"], at = place
            asked = [f"{unit}@{at},{at}" for unit in some]
        for one in context.visualize(asked, steps=context.size(128, 48, 4), **options):
            crop = pixels(one.image, one.channels) if one.status == "ok" else np.zeros((0, 0, 3), np.uint8)
            found.setdefault(one.unit.partition("@")[0], []).append(crop)
    return found


def _middle(context: FigureContext, layer: str) -> tuple[int, int] | None:
    """Pixels that the receptive field of a layer needs, at most 128, and the position in the middle of their map."""
    field, most = context.model.layers[layer].receptive_field, min(context.model.input.hw)
    if field is None:
        return None
    stride = max(field.stride)
    need = min(most, 48 if context.effort == "test" else 128, max(32, *field.size))
    size = min(most, -(-need // stride) * stride)
    return size, size // stride // 2


def photographs(context: FigureContext, units: Sequence[str], n: int) -> dict[str, list[Crop]]:
    """Where units fire most among the pictures, unit -> the receptive field of each of at most `n` places."""
    from circuits.plot.drawing.crops import cut_examples

    return cut_examples({u: context.scan.unit(u).top[:n] for u in units}, context.images, context.model.input)


def looks(
    context: FigureContext,
    units: Sequence[str],
    *,
    crops: int = 0,
    curves: Mapping[str, Curve] | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
    headings: Mapping[str, str] | None = None,
) -> list[UnitLook]:
    """Units as `circuits.plot.drawing.unit_rows` draws them.

    Args:
        context: of the figure.
        units: full addresses.
        crops: photographs of each.
        curves: radial tuning, for dials; notes, headings: all by unit.
    """
    from circuits.plot.drawing.unit_rows import UnitLook

    made = renders(context, units)
    seen = photographs(context, units, crops) if crops else {}
    return [
        UnitLook(
            u,
            made[u],
            seen.get(u, ()),
            (curves or {}).get(u),
            tuple((notes or {}).get(u, ())),
            (headings or {}).get(u, ""),
        )
        for u in units
    ]
