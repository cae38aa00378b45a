"""Towards Monosemanticity: what latents answer to, beside channels, both drawn by lot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.context import NotApplicable
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.trained_saes import NAME, trained

if TYPE_CHECKING:
    from apps.figures.context import FigureContext

_SHOWN = 6


@figure(
    "M3",
    "latents-and-channels",
    "Latents and channels drawn by lot",
    paper="monosemanticity",
    shows="Pictures on which a latent fires have more in common than those on which a channel does.",
    cost=50,
)
def draw(context: FigureContext) -> FigureResult:
    """Draw latents and channels by lot, show where each fires most, and how alike that is to a later layer."""
    import numpy as np

    from circuits.attribution.contributions import deeper_layer, top_examples
    from circuits.common.examples import Example
    from circuits.plot.drawing.crops import cut_examples
    from circuits.plot.drawing.image_table import Tile, image_table
    from circuits.units.example_coherence import coherence
    from sae.evaluation.metrics import density

    found = trained(context)
    later = deeper_layer(context.model, found.layer, "auto")
    if later is None:
        raise NotApplicable(f"needs a layer behind {found.layer}")
    pictures = found.held_out.spread(200)
    generator = np.random.default_rng(context.seed)
    asked = context.size(40, 24, 12)
    fires = density(found.sae.encode(found.vectors).detach()).numpy()
    alive = np.flatnonzero(fires * len(found.vectors) >= 8)
    latents = [f"{found.layer}~{NAME}:{i}" for i in generator.permutation(alive)[:asked]]
    channels = [f"{found.layer}:{i}" for i in generator.permutation(found.site.d)[:asked]]
    examples: dict[str, tuple[Example, ...]] = {}
    for units in (latents, channels):
        at = [context.model.unit(u) for u in units]
        examples |= dict(zip(map(str, at), top_examples(context.model, at, pictures, _SHOWN), strict=True))
    examples = {u: e for u, e in examples.items() if len(e) == _SHOWN}
    alike = coherence(context.model, examples, pictures, later)
    of = {kind: [u for u in examples if ("~" in u) is (kind == "latents")] for kind in ("latents", "channels")}
    if not all(of.values()):
        raise NotApplicable(f"needs {_SHOWN} pictures on which a unit of {found.layer} fires")
    shown = [u for kind in of.values() for u in kind[:4]]
    crops = cut_examples({u: examples[u] for u in shown}, pictures, context.model.input)
    middle = {kind: float(np.median([alike[u] for u in units])) for kind, units in of.items()}
    drawing = image_table(
        [[Tile(c) for c in crops[u]] for u in shown],
        title=f"Latents and channels of {found.layer}, drawn by lot",
        about=f"the {_SHOWN} pictures on which each fires most; alike: mean cosine of what {later} says to them",
        names=[
            ("latent" if "~" in u else "channel", f":{u.rpartition(':')[2]}", f"alike {alike[u]:.2f}") for u in shown
        ],
        side=92,
    )
    claims = [
        Claim(
            f"what a latent fires on is more alike to {later} than what a channel fires on: median",
            middle["latents"],
            middle["channels"],
            middle["latents"] > middle["channels"],
            f"channels of {found.layer}",
        )
    ]
    numbers = {
        "alike": alike,
        "median": middle,
        "shown": {u: [vars(e) for e in examples[u]] for u in shown},
        "layer": later,
    }
    caption = (
        f"Four latents and four channels drawn by lot, and the {_SHOWN} of {len(pictures)} held-out pictures on which "
        f"each fires most; the numbers are of {len(of['latents'])} latents and {len(of['channels'])} channels. "
        f"{found.how}."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)
