"""Towards Monosemanticity: a polysemantic channel, and the latents that share it."""

from __future__ import annotations

import numpy as np

from apps.figures.analysis.channel_leaders import leaders
from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.trained_saes import NAME, trained


@figure(
    "M4",
    "polysemantic-channel",
    "A polysemantic channel against its latents",
    paper="monosemanticity",
    shows="A channel that activates on unrelated things is shared by several latents, each of which activates on one.",
    cost=25,
)
def draw(context: FigureContext) -> FigureResult:
    """Decompose the channel that most latents lead, and compare its top activating images with theirs."""
    from circuits.attribution.contributions import deeper_layer
    from circuits.plot import dissection_figure
    from circuits.units.channel_dissection import dissect
    from circuits.units.example_coherence import coherence

    shared = trained(context)
    counts = leaders(shared.sae, shared.vectors, n=32).numpy()
    strength = shared.vectors.clamp(min=0).amax(0).numpy()
    # of channels with as many latents the strongest
    channel = int(np.lexsort((-strength, -counts))[0])
    images = shared.held_out.spread(200)
    result = dissect(
        context.model, f"{shared.layer}:{channel}", NAME, images, n=context.size(48, 40, 20), writers=5, each=8
    )
    later = deeper_layer(context.model, shared.layer, "auto") or shared.layer
    examples = {result.unit: result.examples[:8]} | {w.unit: w.examples for w in result.writers}
    coherences = coherence(context.model, {u: e for u, e in examples.items() if len(e) > 1}, images, later)
    latent_coherences = [coherences[w.unit] for w in result.writers if w.unit in coherences]
    channel_coherence = coherences.get(result.unit, 0.0)
    claims = [
        Claim(
            f"top images of its latents are more similar in {later} than those of the channel: median",
            float(np.median(latent_coherences)) if latent_coherences else 0.0,
            channel_coherence,
            bool(latent_coherences) and float(np.median(latent_coherences)) > channel_coherence,
            "the channel",
        ),
        Claim(
            "several latents lead the channel",
            float(counts[channel]),
            float(np.median(counts[counts > 0])) if (counts > 0).any() else 0.0,
            int(counts[channel]) >= 2,
            "median of channels",
        ),
    ]
    numbers = result.describe() | {"alike": coherences, "leaders": counts.tolist()}
    caption = (
        f"Channel {channel} of {shared.layer}, the one whose strongest activations most latents lead "
        f"({int(counts[channel])}, each on at least a tenth of them), and the latents that write to it; "
        f"n = {len(images)} held-out images. {shared.how}."
    )
    return FigureResult(
        {"": dissection_figure(result, images, context.model.input, columns=8)}, numbers, caption, claims
    )
