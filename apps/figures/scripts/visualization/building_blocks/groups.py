"""Building Blocks: a layer's channels as a few groups that are active together on an image."""

from __future__ import annotations

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import layer_of, subject
from apps.figures.helpers.unit_roles import dogs


@figure(
    "G4",
    "neuron-groups",
    "Neuron groups",
    paper="building-blocks",
    shows="Six groups of channels, found by factoring the activations, hold most of a layer's activations on an image.",
    cost=40,
)
def draw(context: FigureContext) -> FigureResult:
    """Factor the activations of one image into six groups, each with a map, an icon and its contribution to classes."""
    from circuits.activations.neuron_groups import neuron_groups
    from circuits.plot import groups_figure

    layer = layer_of(context, "mixed4d", "mixed4a")
    chosen = subject(context, dogs(), "images of dogs")
    groups = neuron_groups(
        context.model, layer, chosen.image, k=6, classes=list(chosen.classes[:3]), steps=context.size(128, 64, 4),
        seed=context.seed, size=context.size(64, 64, 32),
    )  # fmt: skip
    claims = [
        Claim.above(
            "six groups hold most of the activations: share of their squares",
            groups.explained,
            groups.shuffled,
            "six groups of channels shuffled over positions",
        )
    ]
    numbers = groups.describe() | {"index": chosen.index, "maps": groups.maps[:, 0]}
    caption = (
        f"Six groups of channels of {layer} by non-negative matrix factorization of one image's activations: the map, "
        f"the icon and the contributions to the three highest class scores of each; {chosen.how}."
    )
    drawing = groups_figure(groups, chosen.image.tensor(context.model.input)[0])
    return FigureResult({"": drawing}, numbers, caption, claims)
