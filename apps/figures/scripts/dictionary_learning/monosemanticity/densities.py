"""Towards Monosemanticity: how often latents fire, beside channels and random directions."""

from __future__ import annotations

import numpy as np

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.trained_saes import trained


@figure(
    "M2",
    "latent-densities",
    "How often latents fire",
    paper="monosemanticity",
    shows="Latents fire far less often than the channels of their layer.",
    cost=60,
)
def draw(context: FigureContext) -> FigureResult:
    """Count on held-out vectors how often latents, channels and random directions fire."""
    from circuits.plot.sae.dictionaries import densities_figure
    from sae.evaluation.metrics import density, reconstruction

    shared = trained(context)
    measured = reconstruction(shared.sae, shared.vectors, seed=context.seed)
    groups = {
        "latents": measured.density.numpy(),
        "channels": density(shared.vectors.clamp(min=0)).numpy(),
        "random directions, as many active": measured.baselines["random"].density.numpy(),
    }
    floor = 1 / len(shared.vectors)
    middle = {name: float(np.median(shares)) for name, shares in groups.items()}
    drawing = densities_figure(
        groups,
        title=f"How often units of {shared.layer} fire",
        about=f"on {len(shared.vectors):,} vectors of {len(shared.held_out)} images held out; silent units at the left",
        floor=floor,
    )
    spread = {
        name: float(np.std(np.log10(shares[shares > 0]))) if (shares > 0).any() else 0.0
        for name, shares in groups.items()
    }
    random = spread["random directions, as many active"]
    claims = [
        Claim(
            "latents are sparser than channels: median share of positions at which one fires",
            middle["latents"],
            middle["channels"],
            middle["latents"] < middle["channels"] / 3,
            "channels",
        ),
        Claim.above(
            "the densities of latents vary: standard deviation of the logarithm",
            spread["latents"],
            random,
            "random directions, as many active",
        ),
        Claim.below("few latents are silent on held-out images", measured.dead, 0.5, "half of them"),
    ]
    numbers = {
        "density": groups,
        "vectors": len(shared.vectors),
        "median": middle,
        "spread": spread,
        "silent": measured.dead,
    }
    caption = (
        "Share of held-out positions at which each unit fires. Equally many latents and random directions are active "
        f"at each position, which sets the mean of their densities but not the spread. {shared.how}."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)
