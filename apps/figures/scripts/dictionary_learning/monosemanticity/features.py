"""Towards Monosemanticity: top activating images of latents and of channels, both sampled at random."""

from __future__ import annotations

import numpy as np

from apps.figures.context import FigureContext, NotApplicable
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.trained_saes import NAME, trained

_EXAMPLES = 6


@figure(
    "M3",
    "latents-and-channels",
    "Latents and channels sampled at random",
    paper="monosemanticity",
    shows="The top activating images of a latent are more similar to each other than those of a channel.",
    cost=50,
)
def draw(context: FigureContext) -> FigureResult:
    """Sample latents and channels, show their top activating images, and how similar these are to a later layer."""
    from circuits.attribution.contributions import deeper_layer, top_examples
    from circuits.common.examples import Example
    from circuits.plot.drawing.crops import cut_examples
    from circuits.plot.drawing.image_table import Tile, image_table
    from circuits.units.example_coherence import coherence
    from sae.evaluation.metrics import density

    shared = trained(context)
    later = deeper_layer(context.model, shared.layer, "auto")
    if later is None:
        raise NotApplicable(f"needs a layer after {shared.layer}")
    images = shared.held_out.spread(200)
    generator = np.random.default_rng(context.seed)
    limit = context.size(40, 24, 12)
    densities = density(shared.sae.encode(shared.vectors).detach()).numpy()
    alive = np.flatnonzero(densities * len(shared.vectors) >= 8)
    latents = [f"{shared.layer}~{NAME}:{i}" for i in generator.permutation(alive)[:limit]]
    channels = [f"{shared.layer}:{i}" for i in generator.permutation(shared.site.d)[:limit]]
    examples: dict[str, tuple[Example, ...]] = {}
    for units in (latents, channels):
        at = [context.model.unit(u) for u in units]
        examples |= dict(zip(map(str, at), top_examples(context.model, at, images, _EXAMPLES), strict=True))
    examples = {u: e for u, e in examples.items() if len(e) == _EXAMPLES}
    coherences = coherence(context.model, examples, images, later)
    of = {kind: [u for u in examples if ("~" in u) is (kind == "latents")] for kind in ("latents", "channels")}
    if not all(of.values()):
        raise NotApplicable(f"needs {_EXAMPLES} images on which a unit of {shared.layer} is active")
    displayed = [u for kind in of.values() for u in kind[:4]]
    crops = cut_examples({u: examples[u] for u in displayed}, images, context.model.input)
    middle = {kind: float(np.median([coherences[u] for u in units])) for kind, units in of.items()}
    drawing = image_table(
        [[Tile(c) for c in crops[u]] for u in displayed],
        title=f"Latents and channels of {shared.layer}, sampled at random",
        about=f"the {_EXAMPLES} top activating images of each; similarity: mean cosine of their activations in {later}",
        names=[
            ("latent" if "~" in u else "channel", f":{u.rpartition(':')[2]}", f"similarity {coherences[u]:.2f}")
            for u in displayed
        ],
        side=92,
    )
    claims = [
        Claim.above(
            f"top images of a latent are more similar in {later} than those of a channel: median",
            middle["latents"],
            middle["channels"],
            f"channels of {shared.layer}",
        )
    ]
    numbers = {
        "alike": coherences,
        "median": middle,
        "shown": {u: [vars(e) for e in examples[u]] for u in displayed},
        "layer": later,
    }
    caption = (
        f"Four latents and four channels sampled at random, and their {_EXAMPLES} top activating of {len(images)} "
        f"held-out images; the numbers are of {len(of['latents'])} latents and {len(of['channels'])} channels. "
        f"{shared.how}."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)
