"""Towards Monosemanticity: how often latents fire, beside channels and random directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.trained_saes import trained

if TYPE_CHECKING:
    from apps.figures.context import FigureContext


@figure(
    "M2",
    "latent-densities",
    "How often latents fire",
    paper="monosemanticity",
    shows="Latents fire far more seldom than the channels they are made of.",
    cost=60,
)
def draw(context: FigureContext) -> FigureResult:
    """Count on held-out vectors how often latents, channels and random directions fire."""
    import numpy as np

    from circuits.plot.sae.dictionaries import densities_figure
    from sae.evaluation.metrics import density, reconstruction

    found = trained(context)
    measured = reconstruction(found.sae, found.vectors, seed=context.seed)
    groups = {
        "latents": measured.density.numpy(),
        "channels": density(found.vectors.clamp(min=0)).numpy(),
        "random directions, as many active": measured.baselines["random"].density.numpy(),
    }
    floor = 1 / len(found.vectors)
    middle = {name: float(np.median(shares)) for name, shares in groups.items()}
    drawing = densities_figure(
        groups,
        title=f"How often units of {found.layer} fire",
        about=f"on {len(found.vectors):,} vectors of {len(found.held_out)} pictures held out; silent ones at the left",
        floor=floor,
    )
    spread = {
        name: float(np.std(np.log10(shares[shares > 0]))) if (shares > 0).any() else 0.0
        for name, shares in groups.items()
    }
    random = spread["random directions, as many active"]
    claims = [
        Claim(
            "latents are sparser than channels: median share of places at which one fires",
            middle["latents"],
            middle["channels"],
            middle["latents"] < middle["channels"] / 3,
            "channels",
        ),
        Claim(
            "latents differ in how often they fire: standard deviation of the logarithm",
            spread["latents"],
            random,
            spread["latents"] > random,
            "random directions, as many active",
        ),
        Claim(
            "few latents are silent on pictures they were not trained on",
            measured.dead,
            0.5,
            measured.dead < 0.5,
            "half of them",
        ),
    ]
    numbers = {
        "density": groups,
        "vectors": len(found.vectors),
        "median": middle,
        "spread": spread,
        "silent": measured.dead,
    }
    caption = (
        "Share of held-out places at which each unit fires. Of latents and random directions as many are active at "
        f"each place, which sets their mean, not how they differ. {found.how}."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)
