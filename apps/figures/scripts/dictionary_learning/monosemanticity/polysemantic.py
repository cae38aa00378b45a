"""Towards Monosemanticity: a polysemantic channel, and the latents that share it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.trained_saes import NAME, trained

if TYPE_CHECKING:
    from apps.figures.context import FigureContext


@figure(
    "M4",
    "polysemantic-channel",
    "A polysemantic channel against its latents",
    paper="monosemanticity",
    shows="A channel that answers to unrelated things is shared by several latents, each of which answers to one.",
    cost=25,
)
def draw(context: FigureContext) -> FigureResult:
    """Take the channel apart that most latents lead, and compare its examples with theirs."""
    import numpy as np

    from apps.figures.analysis.channel_leaders import leaders
    from circuits.attribution.contributions import deeper_layer
    from circuits.plot import dissection_figure
    from circuits.units.channel_dissection import dissect
    from circuits.units.example_coherence import coherence

    found = trained(context)
    led = leaders(found.sae, found.vectors, n=32).numpy()
    strength = found.vectors.clamp(min=0).amax(0).numpy()
    # of channels with as many latents the strongest
    channel = int(np.lexsort((-strength, -led))[0])
    pictures = found.held_out.spread(200)
    result = dissect(
        context.model, f"{found.layer}:{channel}", NAME, pictures, n=context.size(48, 40, 20), writers=5, each=8
    )
    later = deeper_layer(context.model, found.layer, "auto") or found.layer
    examples = {result.unit: result.examples[:8]} | {w.unit: w.examples for w in result.writers}
    alike = coherence(context.model, {u: e for u, e in examples.items() if len(e) > 1}, pictures, later)
    theirs = [alike[w.unit] for w in result.writers if w.unit in alike]
    own = alike.get(result.unit, 0.0)
    claims = [
        Claim(
            f"what its latents fire on is more alike to {later} than what the channel fires on: median",
            float(np.median(theirs)) if theirs else 0.0,
            own,
            bool(theirs) and float(np.median(theirs)) > own,
            "the channel",
        ),
        Claim(
            "several latents lead the channel",
            float(led[channel]),
            float(np.median(led[led > 0])) if (led > 0).any() else 0.0,
            int(led[channel]) >= 2,
            "median of channels",
        ),
    ]
    numbers = result.describe() | {"alike": alike, "leaders": led.tolist()}
    caption = (
        f"Channel {channel} of {found.layer}, of all the one whose strongest responses are led by most latents "
        f"({int(led[channel])} on a tenth of them or more), and the latents that write to it; n = {len(pictures)} "
        f"held-out pictures. {found.how}."
    )
    return FigureResult(
        {"": dissection_figure(result, pictures, context.model.input, columns=8)}, numbers, caption, claims
    )
