"""Evaluating Feature Steering: the sweet spot of a latent, and what else it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.trained_saes import NAME, trained
from apps.figures.helpers.unit_roles import dogs, split

if TYPE_CHECKING:
    from apps.figures.context import FigureContext

FACTORS = (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0)


@figure(
    "St1",
    "sweet-spot",
    "Steering: the sweet spot, and side effects",
    paper="steering",
    shows="Within a range of factors a latent can be turned with little harm; beyond it the network breaks, and even "
    "within it other outcomes change, not only those the latent is named after.",
    also=("St2",),
    cost=150,
)
def draw(context: FigureContext) -> FigureResult:
    """Turn the latent that best tells dogs from other things, everywhere, beside random latents."""
    import numpy as np

    from circuits.plot import steering_figure
    from sae.steering import search
    from sae.steering.study import study, sweet_spot

    found = trained(context)
    positive, negative = split(found.training, dogs())
    best = search(
        found.sae, found.site, positive.spread(context.size(100, 60, 20)), negative.spread(context.size(100, 60, 20)),
        name=NAME, seed=context.seed,
    )  # fmt: skip
    latent = best.best.latent
    classes = [i for i, name in enumerate(context.model.classes or ()) if name.lower() in {d.lower() for d in dogs()}]
    inputs = found.held_out.spread(context.size(60, 40, 16))
    # pictures of classes that the network does not know cannot be right or wrong
    known = list(inputs.classes or ()) == list(context.model.classes or ())
    result = study(
        found.site, found.sae, latent, inputs, targets=classes, factors=context.size(FACTORS, FACTORS, FACTORS[::2]),
        random=context.size(6, 6, 2), capability=None if known else "agreement", name=NAME, batch_size=16,
        seed=context.seed,
    )  # fmt: skip
    factors = result.factors
    spot = result.sweet_spot
    widths = [
        0.0 if one is None else one[1] - one[0]
        for one in (
            sweet_spot(factors, row.tolist(), result.capability.clean, result.tolerance)
            for row in result.capability.random
        )
    ]
    column = factors.index(result.at)
    risen = float(result.effect.values[column] - result.effect.clean)
    others = float(np.max(result.effect.random[:, column]) - result.effect.clean)
    side = result.side_effects["classes"]
    claims = [
        Claim(
            "there is a range of factors within which the network does as well: its width",
            0.0 if spot is None else spot[1] - spot[0],
            factors[-1] - factors[0],
            spot is not None and 0 < spot[1] - spot[0] < factors[-1] - factors[0],
            f"all factors tried; of random latents, median {float(np.median(widths)):g}",
        ),
        Claim(
            f"turned to {result.at:g} times its maximum it raises dogs more than any random latent does: probability",
            risen,
            others,
            risen > max(others, 0.0),
            "the most that a random latent raises them",
        ),
        Claim(
            f"turned as far as {factors[-1]:g} times its maximum it raises dogs more than any random latent does",
            float(result.effect.values[-1] - result.effect.clean),
            float(np.max(result.effect.random[:, -1]) - result.effect.clean),
            float(result.effect.values[-1]) > max(float(np.max(result.effect.random[:, -1])), result.effect.clean),
            "the most that a random latent raises them",
        ),
        Claim(
            "what it does to all classes follows from the derivative: rank correlation",
            side.correlation,
            float(np.nanmax(side.control)) if len(side.control) else 0.0,
            side.correlation > (float(np.nanmax(side.control)) if len(side.control) else 0.0),
            "the best prediction by a random latent",
        ),
    ]
    auc = best.best.auc
    caption = (
        f"Latent {latent} of {found.layer}, which best tells dogs from other pictures (AUC {auc:.2f}, shuffled "
        f"{best.chance:.2f}), set to multiples of its largest activation at all places of {len(inputs)} held-out "
        f"pictures; gray, {len(result.control)} random latents. Below, changes of other latents and of class scores "
        f"against what geometry and derivative predict. {found.how}."
    )
    numbers = result.describe() | {"auc": auc, "chance": best.chance, "random_widths": widths}
    return FigureResult({"": steering_figure(result)}, numbers, caption, claims)
