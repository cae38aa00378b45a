"""Feature Visualization: what is optimized, from one neuron to the probability of a class."""

from __future__ import annotations

import torch

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import layer_of, random_active_units, subject
from apps.figures.helpers.unit_roles import dogs


@figure(
    "F2",
    "objectives",
    "Objectives: neuron, channel, layer, class",
    paper="feature-visualization",
    shows="Visualizations differ by their objective: a neuron, a channel, a layer, a class score before softmax, or "
    "a probability, which also rises when other classes become unlikely.",
    cost=80,
)
def draw(context: FigureContext) -> FigureResult:
    """Make a visualization for each of five objectives, and measure all five on each."""
    from circuits.plot.drawing.image_table import image_table, tile_of
    from circuits.plot.drawing.wording import amount
    from circuits.visualization import objectives, visualize
    from circuits.visualization.objectives import Function
    from circuits.visualization.render import responses

    layer = layer_of(context, "mixed4a")
    unit = random_active_units(context, layer, 1)[0]
    index = int(unit.rpartition(":")[2])
    chosen = subject(context, dogs(), "images of dogs")
    class_index = chosen.classes[0]

    def probability(scores: torch.Tensor) -> torch.Tensor:
        return scores.flatten(1).softmax(1)[:, class_index]

    goals = {
        "neuron": objectives.neuron(layer, index),
        "channel": objectives.channel(layer, index),
        "layer": objectives.deepdream(layer),
        "class score": objectives.class_logit(class_index),
        "probability": Function("labels", probability),
    }
    size = context.model.input.hw
    rows, columns = context.model.layers[layer].size or (1, 1)
    targets: list[str | objectives.Objective] = [f"{unit}@{rows // 2},{columns // 2}", unit, *list(goals.values())[2:]]
    results = visualize(context.model, targets, steps=context.size(128, 64, 4), size=size, seed=context.seed)
    images = torch.stack([v.image for v in results]).to(context.model.device)
    table = {name: responses(context.model, goal, images, size)[0].tolist() for name, goal in goals.items()}
    tiles = []
    for i, (name, result) in enumerate(zip(goals, results, strict=True)):
        own_first = [name, *(other for other in goals if other != name)]
        lines = [f"{other} {amount(table[other][i])}" for other in own_first]
        tiles.append(tile_of(result, *lines, heading=name))
    drawing = image_table(
        [tiles],
        title="The objective determines the visualization",
        about=f"{layer}:{index}; class: {chosen.names[0]}; below: the score by its own objective, then by others",
        side=172,
    )
    score, chance = table["class score"], table["probability"]
    claims = [
        Claim.above(
            "the class score rises more when it is the objective than when the probability is",
            score[3],
            score[4],
            "the class score of the visualization for the probability",
        ),
        Claim(
            "the visualization for the probability is classified with confidence",
            chance[4],
            1 / len(context.model.classes or (1,)),
            chance[4] > 0.5,
            "one over the number of classes",
        ),
    ]
    numbers = {"unit": unit, "class": chosen.names[0], "objectives": list(goals), "scores": table, "chance": chance}
    caption = (
        f"Visualizations for five objectives: {layer}:{index} (sampled at random from the half of the layer that is "
        f"active most often) at one position and over the whole map, all of {layer}, and class {chosen.names[0]} "
        f"before and after softmax. The class is that of an image: {chosen.how}."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)
