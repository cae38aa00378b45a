"""Evaluating Feature Steering: the sweet spot of a latent, and its side effects."""

from __future__ import annotations

import numpy as np

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.trained_saes import NAME, trained
from apps.figures.helpers.unit_roles import dogs, split

FACTORS = (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0)


@figure(
    "St1",
    "sweet-spot",
    "Steering: the sweet spot, and side effects",
    paper="steering",
    shows="Within a range of factors a latent can be steered with little loss of capability; beyond it the network "
    "breaks, and even within it outcomes other than the intended ones change.",
    also=("St2",),
    cost=150,
)
def draw(context: FigureContext) -> FigureResult:
    """Steer the latent that best separates dogs from other classes at all positions, beside random latents."""
    from circuits.plot import steering_figure
    from sae.steering import search
    from sae.steering.study import study
    from sae.steering.study_result import sweet_spot

    shared = trained(context)
    positive, negative = split(shared.training, dogs())
    best = search(
        shared.sae, shared.site, positive.spread(context.size(100, 60, 20)), negative.spread(context.size(100, 60, 20)),
        name=NAME, seed=context.seed,
    )  # fmt: skip
    latent = best.best.latent
    classes = [i for i, name in enumerate(context.model.classes or ()) if name.lower() in {d.lower() for d in dogs()}]
    inputs = shared.held_out.spread(context.size(60, 40, 16))
    # the accuracy on images of classes that the network does not know is undefined
    same_classes = list(inputs.classes or ()) == list(context.model.classes or ())
    result = study(
        shared.site, shared.sae, latent, inputs, targets=classes, factors=context.size(FACTORS, FACTORS, FACTORS[::2]),
        random=context.size(6, 6, 2), capability=None if same_classes else "agreement", name=NAME, batch_size=16,
        seed=context.seed,
    )  # fmt: skip
    factors = result.factors
    spot = result.sweet_spot
    random_spots = [
        sweet_spot(factors, row.tolist(), result.capability.clean, result.tolerance) for row in result.capability.random
    ]
    widths = [0.0 if interval is None else interval[1] - interval[0] for interval in random_spots]
    column = factors.index(result.at)

    def rises(at: int) -> tuple[float, float]:
        """By how much the latent, and the best of the random ones, raise the probability of dogs."""
        clean = result.effect.clean
        return float(result.effect.values[at] - clean), float(np.max(result.effect.random[:, at]) - clean)

    side = result.side_effects["classes"]
    claims = [
        Claim(
            "there is a range of factors without loss of capability: its width",
            0.0 if spot is None else spot[1] - spot[0],
            factors[-1] - factors[0],
            spot is not None and 0 < spot[1] - spot[0] < factors[-1] - factors[0],
            f"all factors tried; of random latents, median {float(np.median(widths)):g}",
        ),
        *[
            Claim(
                f"at {factors[at]:g} times its maximum it raises the probability of dogs more than random steps",
                rise,
                random_rise,
                rise > max(random_rise, 0.0),
                "the largest rise by a step as long along a random latent",
            )
            for at, (rise, random_rise) in ((at, rises(at)) for at in (column, -1))
        ],
        Claim.above(
            "the derivative predicts the effect on all classes: rank correlation",
            side.correlation,
            float(np.nanmax(side.control)) if len(side.control) else 0.0,
            "the best prediction by a random latent",
        ),
    ]
    auc = best.best.auc
    caption = (
        f"Latent {latent} of {shared.layer}, which best separates dogs from other images (AUC {auc:.2f}, "
        f"shuffled {best.chance:.2f}), set to multiples of its largest activation at all positions of {len(inputs)} "
        f"held-out images; gray, steps as long along {len(result.control)} random latents. Below, changes of other "
        f"latents and of class scores against the predictions by geometry and derivative. {shared.how}."
    )
    numbers = result.describe() | {"auc": auc, "chance": best.chance, "random_widths": widths}
    return FigureResult({"": steering_figure(result)}, numbers, caption, claims)
