"""Early Vision: the first layers at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure

if TYPE_CHECKING:
    from apps.figures.context import FigureContext


_LAYERS = 5


@figure(
    "E0",
    "early-layers",
    "The first five layers at a glance",
    paper="early-vision",
    shows="From layer to layer features grow from Gabors and colors to textures, curves and small shapes.",
    cost=90,
)
def overview(context: FigureContext) -> FigureResult:
    """Pictures of what some units of each layer look for, spread over the layer."""
    import numpy as np

    from circuits.plot.drawing.crops import pixels
    from circuits.plot.drawing.image_wall import layer_rows

    layers = [name for name in context.model.trunk if context.model.layers[name].size is not None][:_LAYERS]
    rows: dict[str, list[str]] = {}
    found, notes, fields, beyond = {}, {}, {}, []
    for layer in layers:
        seen = context.scan.layer(layer)
        alive = np.flatnonzero(seen.fires_on > 0)
        chosen = alive[np.linspace(0, len(alive) - 1, min(len(alive), context.size(8, 6, 2))).astype(int)]
        rows[layer] = [str(context.model.unit(f"{layer}:{i}")) for i in chosen]
        field = context.model.layers[layer].receptive_field
        fields[layer] = max(field.size) if field is not None else None
        notes[layer] = f"sees {fields[layer]} pixels" if field is not None else "sees all"
        for one in context.visualize(rows[layer], steps=context.size(128, 48, 4)):
            if one.status == "ok":
                found[one.unit] = [pixels(one.image, one.channels)]
            beyond.append(one.peak / max(float(seen.maximum[int(one.unit.rpartition(":")[2])]), 1e-12))
    drawing = layer_rows(
        rows,
        found,
        notes=notes,
        title=f"What units of the first {len(layers)} layers look for",
        about="pictures made by optimization, which raise a unit at all positions at once",
    )
    value = float(np.median(beyond))
    claim = Claim("the pictures arouse their units more than any photograph: ratio of the responses (median)",
                  value, 1.0, value > 1, "the strongest photograph")  # fmt: skip
    numbers = {"layers": rows, "receptive_fields": fields, "over_photographs": beyond}
    caption = f"{sum(map(len, rows.values()))} units, evenly spread over those of each layer that fire on photographs."
    return FigureResult({"": drawing}, numbers, caption, [claim])
