"""Early Vision: the first layers at a glance."""

from __future__ import annotations

import numpy as np

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure

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
    """Feature visualizations of some units of each layer, spread over the layer."""
    from circuits.plot.drawing.crops import pixels
    from circuits.plot.drawing.image_wall import layer_rows

    layers = [name for name in context.model.trunk if context.model.layers[name].size is not None][:_LAYERS]
    rows: dict[str, list[str]] = {}
    crops, notes, fields, ratios = {}, {}, {}, []
    for layer in layers:
        scan = context.scan.layer(layer)
        active = np.flatnonzero(scan.active_images > 0)
        chosen = active[np.linspace(0, len(active) - 1, min(len(active), context.size(8, 6, 2))).astype(int)]
        rows[layer] = [str(context.model.unit(f"{layer}:{i}")) for i in chosen]
        field = context.model.layers[layer].receptive_field
        fields[layer] = max(field.size) if field is not None else None
        notes[layer] = f"receptive field {fields[layer]}" if field is not None else "whole image"
        for result in context.visualize(rows[layer], steps=context.size(128, 48, 4)):
            if result.status == "ok":
                crops[result.unit] = [pixels(result.image, result.channels)]
            ratios.append(result.peak / max(float(scan.maximum[int(result.unit.rpartition(":")[2])]), 1e-12))
    drawing = layer_rows(
        rows,
        crops,
        notes=notes,
        title=f"Feature visualizations of the first {len(layers)} layers",
        about="each maximizes the mean of a unit over all positions",
    )
    claim = Claim.above(
        "visualizations activate units more than any dataset image: median ratio of the responses",
        float(np.median(ratios)),
        1.0,
        "the top activating image",
    )
    numbers = {"layers": rows, "receptive_fields": fields, "over_photographs": ratios}
    caption = f"{sum(map(len, rows.values()))} units, evenly spread over the active units of each layer."
    return FigureResult({"": drawing}, numbers, caption, [claim])
