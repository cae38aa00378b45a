"""Feature Visualization: without regularization, noise; what each kind of it does about that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import drawn_units, layer_of

if TYPE_CHECKING:
    from apps.figures.context import FigureContext

_SHARE = 0.3
"""Of the response without regularization that a penalty takes there: so that penalties are alike in strength."""


@figure(
    "F3",
    "regularization",
    "Regularization: penalties, transformations, preconditioning",
    paper="feature-visualization",
    shows="Without regularization pictures are high-frequency noise; penalties, random transformations and a "
    "decorrelated parametrization each remove it, at some cost in response.",
    cost=80,
)
def draw(context: FigureContext) -> FigureResult:
    """Make a picture of one unit in eleven ways; measure its response and its share of high frequencies."""
    import torch

    from apps.figures.analysis.high_frequency_share import high_frequency_share
    from circuits.plot.drawing.image_table import image_table, tile_of
    from circuits.plot.drawing.wording import amount
    from circuits.visualization import RenderSettings, objectives, parametrizations, transforms, visualize
    from circuits.visualization.parametrizations import Colors
    from circuits.visualization.render import default_size, jobs_of, responses

    layer = layer_of(context, "mixed4a")
    drawn = drawn_units(context, layer, 6)
    goals = [objectives.channel(layer, int(unit.rpartition(":")[2])) for unit in drawn]
    needed = default_size(context.model, jobs_of(context.model, goals, RenderSettings()))
    size = context.size(needed, needed, (48, 48))
    options: dict[str, Any] = {"steps": context.size(128, 48, 4), "size": size, "seed": context.seed, "retries": 0}
    gray = Colors((0.5,) * 3, ((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0))) if context.model.input.channels == 3 else None
    raw, jitter = parametrizations.Pixels(colors=gray), max(2, round(min(size) / 16))
    plain = visualize(context.model, goals, params=raw, transforms=[], **options)
    # gray pixels leave some units silent: then there is nothing to regularize
    first = next((i for i, one in enumerate(plain) if one.status == "ok"), 0)
    unit, goal = drawn[first], goals[first]
    pictures = plain[first].image[None].to(context.model.device)
    penalties = {
        "L1 to gray": objectives.l1(),
        "L2 to gray": objectives.l2(),
        "total variation": objectives.total_variation(),
        "blur": objectives.blur_input_each_step(),
    }
    response = abs(float(responses(context.model, goal, pictures, size)[0]))
    costs = {n: abs(float(responses(context.model, p, pictures, size)[0])) for n, p in penalties.items()}
    weights = {n: _SHARE * response / max(c, 1e-12) for n, c in costs.items()}
    held = visualize(
        context.model, [goal - weights[n] * p for n, p in penalties.items()], params=raw, transforms=[], **options
    )
    made = {"none": plain[first], **dict(zip(penalties, held, strict=True))}
    ways: dict[str, tuple[parametrizations.Factory, list[Any]]] = {
        "jitter": (raw, [transforms.Jitter(jitter)]),
        "rotate": (raw, [transforms.Rotate(tuple(range(-10, 11)))]),
        "scale": (raw, [transforms.Scale(0.9, 1.1)]),
        "all three": (raw, list(transforms.standard(min(size)))),
        "decorrelated": (parametrizations.Fourier(), []),
        "decorrelated, all": (parametrizations.Fourier(), list(transforms.standard(min(size)))),
    }
    for name, (how, changes) in ways.items():
        made[name] = visualize(context.model, goal, params=how, transforms=changes, **options)[0]
    shares = {name: high_frequency_share(one.image) for name, one in made.items()}
    stack = torch.stack([one.image for one in made.values()]).to(context.model.device)
    said = dict(zip(made, responses(context.model, goal, stack, size)[0].tolist(), strict=True))
    some = context.images.tensor(context.model.input, list(range(min(40, len(context.images)))))
    natural = float(torch.tensor([high_frequency_share(p) for p in some]).median())
    rows = [["none", *penalties], ["jitter", "rotate", "scale", "all three"], ["decorrelated", "decorrelated, all"]]
    tiles = [
        [tile_of(made[n], f"response {amount(said[n])}", f"fine grain {100 * shares[n]:.0f} %", heading=n) for n in row]
        for row in rows
    ]
    drawing = image_table(
        tiles,
        title=f"Regularization of {layer}:{unit.rpartition(':')[2]}",
        about="fine grain: share of a picture's variance above 0.25 cycles per pixel; of photographs "
        f"{100 * natural:.1f} %, of white noise 80 %",
        names=[
            ("penalties", "on plain pixels"),
            ("transformations", "of plain pixels"),
            ("Fourier basis", "without and with all", "three transformations"),
        ],
    )
    claims = [
        Claim(
            "without regularization pictures have far more fine grain than photographs",
            shares["none"],
            natural,
            said["none"] > 0 and shares["none"] > 3 * natural,
            "median of photographs",
        ),
        Claim(
            "transformations and decorrelation take most of the fine grain away",
            shares["decorrelated, all"],
            shares["none"],
            said["decorrelated, all"] > 0 and shares["decorrelated, all"] < shares["none"] / 3,
            "without regularization",
        ),
    ]
    numbers = {"unit": unit, "response": said, "high_frequency_share": shares, "natural": natural, "weights": weights}
    caption = (
        f"One unit ({unit.partition('/')[2]}, the first of six drawn by lot from the half of the layer that fires most "
        f"often that answers to optimized pixels), {options['steps']} steps each. A penalty is weighed so that it "
        f"would take {100 * _SHARE:.0f} % of the response from the picture without."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)
