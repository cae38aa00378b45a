"""Feature Visualization: without regularization the result is noise; the effect of each kind of regularization."""

from __future__ import annotations

from typing import Any

import torch

from apps.figures.analysis.high_frequency_share import high_frequency_share
from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import layer_of, random_active_units

_SHARE = 0.3
"""Size of each penalty as a share of the unregularized response, which makes penalties comparable."""


@figure(
    "F3",
    "regularization",
    "Regularization: penalties, transformations, preconditioning",
    paper="feature-visualization",
    shows="Without regularization visualizations are high-frequency noise; penalties, random transformations and a "
    "decorrelated parametrization each remove it, at some cost in response.",
    cost=80,
)
def draw(context: FigureContext) -> FigureResult:
    """Visualize one unit in eleven ways; measure the response and the share of high frequencies of each."""
    from circuits.plot.drawing.image_table import image_table, tile_of
    from circuits.plot.drawing.wording import amount
    from circuits.visualization import RenderSettings, objectives, parametrizations, transforms, visualize
    from circuits.visualization.parametrizations import Colors
    from circuits.visualization.render import default_size, jobs_of, responses

    layer = layer_of(context, "mixed4a")
    candidates = random_active_units(context, layer, 6)
    goals = [objectives.channel(layer, int(unit.rpartition(":")[2])) for unit in candidates]
    needed = default_size(context.model, jobs_of(context.model, goals, RenderSettings()))
    size = context.size(needed, needed, (48, 48))
    options: dict[str, Any] = {"steps": context.size(128, 48, 4), "size": size, "seed": context.seed, "retries": 0}
    gray = Colors((0.5,) * 3, ((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0))) if context.model.input.channels == 3 else None
    raw, jitter = parametrizations.Pixels(colors=gray), max(2, round(min(size) / 16))
    plain = visualize(context.model, goals, params=raw, transforms=[], **options)
    # some units stay inactive on gray pixels: then there is nothing to regularize
    first = next((i for i, v in enumerate(plain) if v.status == "ok"), 0)
    unit, goal = candidates[first], goals[first]
    images = plain[first].image[None].to(context.model.device)
    penalties = {
        "L1 to gray": objectives.l1(),
        "L2 to gray": objectives.l2(),
        "total variation": objectives.total_variation(),
        "blur": objectives.blur_input_each_step(),
    }
    response = abs(float(responses(context.model, goal, images, size)[0]))
    costs = {n: abs(float(responses(context.model, p, images, size)[0])) for n, p in penalties.items()}
    weights = {n: _SHARE * response / max(c, 1e-12) for n, c in costs.items()}
    penalized = visualize(
        context.model, [goal - weights[n] * p for n, p in penalties.items()], params=raw, transforms=[], **options
    )
    results = {"none": plain[first], **dict(zip(penalties, penalized, strict=True))}
    ways: dict[str, tuple[parametrizations.Factory, list[Any]]] = {
        "jitter": (raw, [transforms.Jitter(jitter)]),
        "rotate": (raw, [transforms.Rotate(tuple(range(-10, 11)))]),
        "scale": (raw, [transforms.Scale(0.9, 1.1)]),
        "all three": (raw, list(transforms.standard(min(size)))),
        "decorrelated": (parametrizations.Fourier(), []),
        "decorrelated, all": (parametrizations.Fourier(), list(transforms.standard(min(size)))),
    }
    for name, (how, changes) in ways.items():
        results[name] = visualize(context.model, goal, params=how, transforms=changes, **options)[0]
    shares = {name: high_frequency_share(v.image) for name, v in results.items()}
    stack = torch.stack([v.image for v in results.values()]).to(context.model.device)
    activations = dict(zip(results, responses(context.model, goal, stack, size)[0].tolist(), strict=True))
    samples = context.images.tensor(context.model.input, list(range(min(40, len(context.images)))))
    natural = float(torch.tensor([high_frequency_share(p) for p in samples]).median())
    rows = [["none", *penalties], ["jitter", "rotate", "scale", "all three"], ["decorrelated", "decorrelated, all"]]
    tiles = [
        [
            tile_of(
                results[n], f"response {amount(activations[n])}", f"high frequencies {100 * shares[n]:.0f} %", heading=n
            )
            for n in row
        ]
        for row in rows
    ]
    drawing = image_table(
        tiles,
        title=f"Regularization of {layer}:{unit.rpartition(':')[2]}",
        about="high frequencies: share of an image's variance above 0.25 cycles per pixel; of dataset images "
        f"{100 * natural:.1f} %, of white noise 80 %",
        names=[
            ("penalties", "on plain pixels"),
            ("transformations", "of plain pixels"),
            ("Fourier basis", "without and with all", "three transformations"),
        ],
    )
    claims = [
        Claim(
            "without regularization visualizations have far more high frequencies than dataset images",
            shares["none"],
            natural,
            activations["none"] > 0 and shares["none"] > 3 * natural,
            "median of dataset images",
        ),
        Claim(
            "transformations and decorrelation remove most high frequencies",
            shares["decorrelated, all"],
            shares["none"],
            activations["decorrelated, all"] > 0 and shares["decorrelated, all"] < shares["none"] / 3,
            "without regularization",
        ),
    ]
    numbers = {
        "unit": unit,
        "response": activations,
        "high_frequency_share": shares,
        "natural": natural,
        "weights": weights,
    }
    caption = (
        f"One unit ({unit.partition('/')[2]}, the first of six random units of the more active half of the layer that "
        f"optimized pixels activate), {options['steps']} steps each. Each penalty is weighted so that on the "
        f"visualization without regularization it is {100 * _SHARE:.0f} % of the response."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)
