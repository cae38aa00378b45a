"""Building Blocks: a layer's channels as a few groups that fire together on a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import layer_of, subject
from apps.figures.helpers.unit_roles import dogs

if TYPE_CHECKING:
    from apps.figures.context import FigureContext


@figure(
    "G4",
    "neuron-groups",
    "Neuron groups",
    paper="building-blocks",
    shows="Six groups of channels, found by factoring the activations, hold most of what a layer says of a picture.",
    cost=40,
)
def draw(context: FigureContext) -> FigureResult:
    """Factor the activations of one picture into six groups, each with a map, an icon and what it adds to classes."""
    from circuits.activations.neuron_groups import neuron_groups
    from circuits.plot import groups_figure

    layer = layer_of(context, "mixed4d", "mixed4a")
    about = subject(context, dogs(), "pictures of dogs")
    found = neuron_groups(
        context.model, layer, about.image, k=6, classes=list(about.classes[:3]), steps=context.size(128, 64, 4),
        seed=context.seed, size=context.size(64, 64, 32),
    )  # fmt: skip
    claims = [
        Claim(
            "six groups hold what the layer says: share of the activations' squares",
            found.explained,
            found.shuffled,
            found.explained > found.shuffled,
            "six groups of channels shuffled over positions",
        )
    ]
    numbers = found.describe() | {"index": about.index, "maps": found.maps[:, 0]}
    caption = (
        f"Six groups of channels of {layer} by non-negative matrix factorization of one picture's activations: where "
        f"each is, what it looks for, and what it adds to the three strongest class scores; {about.how}."
    )
    drawing = groups_figure(found, about.image.tensor(context.model.input)[0])
    return FigureResult({"": drawing}, numbers, caption, claims)
