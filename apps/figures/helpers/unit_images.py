"""What scripts show of units: pictures made by optimization, photographs, tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apps.figures.context import Bench
    from circuits.plot.drawing.crops import Crop
    from circuits.plot.drawing.unit_rows import UnitLook
    from circuits.tuning.curves import Curve


def renders(bench: Bench, units: Sequence[str], *, variants: int = 1, whole: bool = False) -> dict[str, list[Crop]]:
    """Pictures made by optimization, unit -> its variants; an empty one where no picture makes the unit answer.

    Args:
        bench: of the figure.
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
        groups.setdefault(bench.model.unit(unit).layer, []).append(unit)
    for layer, some in groups.items():
        options: dict[str, Any] = {"variants": variants} if variants > 1 else {}
        asked = some
        place = None if whole else _middle(bench, layer)
        if place is not None:
            options["size"], at = place
            asked = [f"{unit}@{at},{at}" for unit in some]
        for one in bench.visualize(asked, steps=bench.size(128, 48, 4), **options):
            crop = pixels(one.picture, one.channels) if one.status == "ok" else np.zeros((0, 0, 3), np.uint8)
            found.setdefault(one.unit.partition("@")[0], []).append(crop)
    return found


def _middle(bench: Bench, layer: str) -> tuple[int, int] | None:
    """Pixels that the receptive field of a layer needs, at most 128, and the position in the middle of their map."""
    field, most = bench.model.layers[layer].receptive_field, min(bench.model.input.hw)
    if field is None:
        return None
    stride = max(field.stride)
    need = min(most, 48 if bench.effort == "test" else 128, max(32, *field.size))
    size = min(most, -(-need // stride) * stride)
    return size, size // stride // 2


def photographs(bench: Bench, units: Sequence[str], n: int) -> dict[str, list[Crop]]:
    """Where units fire most among the pictures, unit -> the receptive field of each of at most `n` places."""
    from circuits.plot.drawing.crops import cut_examples

    return cut_examples({u: bench.scan.unit(u).top[:n] for u in units}, bench.images, bench.model.input)


def looks(
    bench: Bench,
    units: Sequence[str],
    *,
    crops: int = 0,
    curves: Mapping[str, Curve] | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
    headings: Mapping[str, str] | None = None,
) -> list[UnitLook]:
    """Units as `circuits.plot.drawing.unit_rows` draws them.

    Args:
        bench: of the figure.
        units: full addresses.
        crops: photographs of each.
        curves: radial tuning, for dials; notes, headings: all by unit.
    """
    from circuits.plot.drawing.unit_rows import UnitLook

    made = renders(bench, units)
    seen = photographs(bench, units, crops) if crops else {}
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
