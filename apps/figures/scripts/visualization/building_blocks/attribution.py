"""Building Blocks: which positions and which channels contribute to a class score."""

from __future__ import annotations

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import layer_of, subject
from apps.figures.helpers.unit_roles import dogs


@figure(
    "G3",
    "attribution",
    "Attribution by position and by channel",
    paper="building-blocks",
    shows="Attribution estimates which positions and which channels of a layer contribute to a class score.",
    cost=45,
)
def draw(context: FigureContext) -> FigureResult:
    """Attribute the two highest class scores to a layer, and ablate each position to check."""
    import circuits
    from circuits.activations.spatial_attribution import check_positions
    from circuits.plot import attribution_figure

    layer = layer_of(context, "mixed4d", "mixed4a")
    chosen = subject(context, dogs(), "images of dogs")
    image = chosen.image.tensor(context.model.input)[0]
    attributions = [
        circuits.attribute(context.model, chosen.image, source=layer, target=f"logits:{c}") for c in chosen.classes[:2]
    ]
    checks = [check_positions(context.model, chosen.image, a, seed=context.seed) for a in attributions]
    claims = [
        Claim.above(
            f"attribution by position agrees with ablating the position, for {name}: correlation",
            check.correlation,
            check.shuffled,
            "95 % of shuffles",
        )
        for name, check in zip(chosen.names, checks, strict=False)
    ]
    numbers = {
        "layer": layer,
        "index": chosen.index,
        "classes": [
            {
                "class": name,
                "score": attribution.response,
                "places": attribution.by_position[0],
                "channels": attribution.top(6),
                "drops": check.drops,
                "correlation": check.correlation,
            }
            for name, attribution, check in zip(chosen.names, attributions, checks, strict=False)
        ],
    }
    caption = (
        f"Attribution of the two highest class scores to {layer}: gradient times activation by position, the drop when "
        f"one position is ablated, and the channels that contribute most; {chosen.how}."
    )
    drawing = attribution_figure(attributions, image, names=chosen.names[:2], checks=checks)
    return FigureResult({"": drawing}, numbers, caption, claims)
