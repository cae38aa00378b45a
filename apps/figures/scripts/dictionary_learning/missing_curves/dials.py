"""The Missing Curve Detectors: do latents of a sparse autoencoder fill the gaps between curve detectors?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import THRESHOLD, curve_layer, search

if TYPE_CHECKING:
    from apps.figures.context import FigureContext

_WITHIN = 10.0


@figure(
    "S1",
    "curve-gaps",
    "Do latents fill the gaps between curve detectors?",
    paper="inceptionv1-saes",
    shows="Latents of a sparse autoencoder detect curves of the orientations that the channels leave out.",
    cost=150,
)
def draw(context: FigureContext) -> FigureResult:
    """Train an SAE, put channels, latents and as many random directions to the tests for curves, and compare gaps."""
    import copy

    from scipy.stats import fisher_exact

    import sae
    from apps.figures.helpers.trained_saes import dictionary
    from sae.evaluation.curve_detection import compare

    layer = curve_layer(context)
    width = context.model.layers[layer].channels
    found = search(context, "curve", layer, at_least=4)
    enough = found.passed >= 4
    threshold = THRESHOLD if enough else found.units[3].score
    site = sae.VisionSite(context.model, layer)
    latents, steps = (
        context.size(2048 if width > 128 else 4 * width, 4 * width, 2 * width),
        context.size(400, 150, 40),
    )
    k = 16 if width > 128 else 6
    made = dictionary(context, site, context.images, latents=latents, k=k, steps=steps, seed=context.seed)
    # on a copy: other figures see the model without latents
    own = copy.copy(context.model)
    own.bases = dict(context.model.bases)
    sae.VisionSite(own, layer).attach("latents", made)
    # where hardly a unit passes, to be as strong as pictures make it would leave none
    shown = context.images.spread(context.size(100, 60, 20)) if enough else None
    compared = compare(
        own,
        layer,
        "latents",
        images=shown,
        orientations=context.size(24, 24, 12),
        threshold=threshold,
        within=_WITHIN,
        seed=context.seed,
    )
    control = next(one for one in compared.searched if one.control)
    ours, by_lot = compared.fillings["latents"], compared.fillings[control.name]
    count, drawn, channels = (len(one.detectors) for one in (compared["latents"], control, compared["channels"]))
    table = [[ours.in_gaps, count - ours.in_gaps], [by_lot.in_gaps, drawn - by_lot.in_gaps]]
    p = float(fisher_exact(table, alternative="greater").pvalue)
    share, chance = (f.in_gaps / max(1, n) for f, n in ((ours, count), (by_lot, len(control.detectors))))
    both = compared.coverages["channels + latents"]
    claims = [
        Claim(f"latents point where no channel does: share farther than {_WITHIN:g}° from all channels",
              share, chance, p < 0.05, f"{drawn} detectors among random directions; Fisher's exact p = {p:.2f}"),
        Claim("latents close the gaps: largest gap of both together, degrees", both.largest_gap, both.chance[0],
              both.largest_gap < both.chance[0], "median of as many orientations drawn by lot"),
    ]  # fmt: skip
    drawing = compared.figure(f"Curve detectors of {layer}: channels, latents, random directions")
    numbers = compared.describe()
    numbers.pop("provenance")
    how = (
        f"natural range from {len(shown)} pictures"
        if shown is not None
        else f"as hardly a channel passes the tests, a unit counts from a score of {threshold:.2f} on"
    )
    caption = (
        f"A TopK SAE with {latents} latents, k = {k}, {steps} steps, has {count} curve detectors: {ours.single} are "
        f"one channel over again, {ours.in_gaps} point where none of {channels} channels does; {how}."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)
