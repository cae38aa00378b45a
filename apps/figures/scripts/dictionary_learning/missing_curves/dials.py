"""The Missing Curve Detectors: do latents of a sparse autoencoder fill the gaps between curve detectors?"""

from __future__ import annotations

import copy

from scipy.stats import fisher_exact

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.trained_saes import dictionary
from apps.figures.helpers.tuned_units import THRESHOLD, curve_detectors, curve_layer

_WITHIN = 10.0


@figure(
    "S1",
    "curve-gaps",
    "Do latents fill the gaps between curve detectors?",
    paper="inceptionv1-saes",
    shows="Latents of a sparse autoencoder detect curves of orientations that no channel detects.",
    cost=150,
)
def draw(context: FigureContext) -> FigureResult:
    """Train an SAE, test channels, latents and as many random directions for curves, and compare gaps."""
    import sae
    from sae.evaluation.curve_detection import compare

    layer = curve_layer(context)
    width = context.model.layers[layer].channels
    channels_search = curve_detectors(context, 4)
    enough = channels_search.passed >= 4
    threshold = THRESHOLD if enough else channels_search.units[3].score
    site = sae.VisionSite(context.model, layer)
    latents, steps = (
        context.size(2048 if width > 128 else 4 * width, 4 * width, 2 * width),
        context.size(400, 150, 40),
    )
    k = 16 if width > 128 else 6
    dictionary_sae = dictionary(context, site, context.images, latents=latents, k=k, steps=steps, seed=context.seed)
    # on a copy: other figures see the model without latents
    own = copy.copy(context.model)
    own.bases = dict(context.model.bases)
    sae.VisionSite(own, layer).attach("latents", dictionary_sae)
    # where hardly a unit passes, the further test against the natural range would leave none
    images = context.images.spread(context.size(100, 60, 20)) if enough else None
    compared = compare(
        own,
        layer,
        "latents",
        images=images,
        orientations=context.size(24, 24, 12),
        threshold=threshold,
        within=_WITHIN,
        seed=context.seed,
    )
    control = next(s for s in compared.searched if s.control)
    ours, random = compared.fillings["latents"], compared.fillings[control.name]
    n_latents, n_control, n_channels = (len(s.detectors) for s in (compared["latents"], control, compared["channels"]))
    table = [[ours.in_gaps, n_latents - ours.in_gaps], [random.in_gaps, n_control - random.in_gaps]]
    p = float(fisher_exact(table, alternative="greater").pvalue)
    share, chance = (f.in_gaps / max(1, n) for f, n in ((ours, n_latents), (random, len(control.detectors))))
    both = compared.coverages["channels + latents"]
    claims = [
        Claim(
            f"latents have orientations that no channel has: share farther than {_WITHIN:g}° from all channels",
            share,
            chance,
            p < 0.05,
            f"{n_control} detectors among random directions; Fisher's exact p = {p:.2f}",
        ),
        Claim.below(
            "latents close the gaps: largest gap of both together, degrees",
            both.largest_gap,
            both.chance[0],
            "median of as many random orientations",
        ),
    ]
    drawing = compared.figure(f"Curve detectors of {layer}: channels, latents, random directions")
    numbers = compared.describe()
    numbers.pop("provenance")
    how = (
        f"natural range from {len(images)} images"
        if images is not None
        else f"as hardly a channel passes the tests, units of a score of at least {threshold:.2f} count"
    )
    caption = (
        f"A TopK SAE with {latents} latents, k = {k}, {steps} steps, has {n_latents} curve detectors: {ours.single} "
        f"copy one channel, {ours.in_gaps} have orientations that none of {n_channels} channels has; {how}."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)
