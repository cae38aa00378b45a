"""Building Blocks: which places and which channels speak for a class, and against it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import layer_of, subject
from apps.figures.helpers.unit_roles import dogs

if TYPE_CHECKING:
    from apps.figures.context import FigureContext


@figure(
    "G3",
    "attribution",
    "Attribution by place and by channel",
    paper="building-blocks",
    shows="Attribution says which places and which channels of a layer speak for a class; it is an estimate.",
    cost=45,
)
def draw(context: FigureContext) -> FigureResult:
    """Attribute the two strongest class scores to a layer, and silence each place to check."""
    import circuits
    from circuits.activations.spatial_attribution import check_positions
    from circuits.plot import attribution_figure

    layer = layer_of(context, "mixed4d", "mixed4a")
    about = subject(context, dogs(), "pictures of dogs")
    picture = about.image.tensor(context.model.input)[0]
    found = [
        circuits.attribute(context.model, about.image, source=layer, target=f"logits:{c}") for c in about.classes[:2]
    ]
    checks = [check_positions(context.model, about.image, one, seed=context.seed) for one in found]
    claims = [
        Claim(
            f"attribution by place agrees with silencing the place, for {name}: correlation",
            check.correlation,
            check.shuffled,
            check.correlation > check.shuffled,
            "the size that one in twenty shufflings reaches",
        )
        for name, check in zip(about.names, checks, strict=False)
    ]
    numbers = {
        "layer": layer,
        "index": about.index,
        "classes": [
            {
                "class": name,
                "score": one.response,
                "places": one.places[0],
                "channels": one.top(6),
                "drops": check.drops,
                "correlation": check.correlation,
            }
            for name, one, check in zip(about.names, found, checks, strict=False)
        ],
    }
    caption = (
        f"What {layer} gives to the two strongest class scores: gradient times activation by place, what is lost when "
        f"one place is silenced, and the channels that give most; {about.how}."
    )
    drawing = attribution_figure(found, picture, names=about.names[:2], checks=checks)
    return FigureResult({"": drawing}, numbers, caption, claims)
