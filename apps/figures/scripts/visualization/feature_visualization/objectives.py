"""Feature Visualization: what is optimized, from one neuron to the probability of a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import drawn_units, layer_of, subject
from apps.figures.helpers.unit_roles import dogs

if TYPE_CHECKING:
    from apps.figures.context import FigureContext


@figure(
    "F2",
    "objectives",
    "Objectives: neuron, channel, layer, class",
    paper="feature-visualization",
    shows="Pictures differ by what is raised: a neuron, a channel, a layer, a class score before softmax, or a "
    "probability, which is raised as well by making other classes unlikely.",
    cost=80,
)
def draw(context: FigureContext) -> FigureResult:
    """Make a picture for each of five objectives, and measure all five of each picture."""
    import torch

    from circuits.plot.drawing.image_table import image_table, tile_of
    from circuits.plot.drawing.wording import amount
    from circuits.visualization import objectives, visualize
    from circuits.visualization.objectives import Function
    from circuits.visualization.render import responses

    layer = layer_of(context, "mixed4a")
    unit = drawn_units(context, layer, 1)[0]
    index = int(unit.rpartition(":")[2])
    about = subject(context, dogs(), "pictures of dogs")
    which = about.classes[0]

    def probability(scores: torch.Tensor) -> torch.Tensor:
        return scores.flatten(1).softmax(1)[:, which]

    goals = {
        "neuron": objectives.neuron(layer, index),
        "channel": objectives.channel(layer, index),
        "layer": objectives.deepdream(layer),
        "class score": objectives.class_logit(which),
        "probability": Function("labels", probability),
    }
    size = context.model.input.hw
    rows, columns = context.model.layers[layer].size or (1, 1)
    asked: list[str | objectives.Objective] = [f"{unit}@{rows // 2},{columns // 2}", unit, *list(goals.values())[2:]]
    made = visualize(context.model, asked, steps=context.size(128, 64, 4), size=size, seed=context.seed)
    seen = torch.stack([one.image for one in made]).to(context.model.device)
    table = {name: responses(context.model, goal, seen, size)[0].tolist() for name, goal in goals.items()}
    tiles = []
    for i, (name, one) in enumerate(zip(goals, made, strict=True)):
        own_first = [name, *(other for other in goals if other != name)]
        lines = [f"{other} {amount(table[other][i])}" for other in own_first]
        tiles.append(tile_of(one, *lines, heading=name))
    drawing = image_table(
        [tiles],
        title="What is raised decides what is seen",
        about=f"{layer}:{index}; class: {about.names[0]}; below: the score by its own objective, then by others",
        side=172,
    )
    score, chance = table["class score"], table["probability"]
    claims = [
        Claim(
            "raising the class score raises it further than raising the probability does",
            score[3],
            score[4],
            score[3] > score[4],
            "the class score in the picture made for the probability",
        ),
        Claim(
            "the picture made for the probability is sure of the class",
            chance[4],
            1 / len(context.model.classes or (1,)),
            chance[4] > 0.5,
            "one over the number of classes",
        ),
    ]
    numbers = {"unit": unit, "class": about.names[0], "objectives": list(goals), "scores": table, "chance": chance}
    caption = (
        f"Pictures made for five objectives: {layer}:{index} (drawn by lot from the half of the layer that fires most "
        f"often) at one position and over the whole map, all of {layer}, and class {about.names[0]} before and after "
        f"softmax. The class is that of a picture: {about.how}."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)
