"""Towards Monosemanticity: one activation vector as a sum of a few latents."""

from __future__ import annotations

import numpy as np
import torch

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.trained_saes import NAME, trained

_LATENTS, _CROPS = 5, 4


@figure(
    "M1",
    "sae-schematic",
    "A vector, its latents, and their sum",
    paper="monosemanticity",
    shows="A dense vector of many channels is nearly the sum of a few sparse latents, each of which is interpretable.",
    cost=30,
)
def draw(context: FigureContext) -> FigureResult:
    """Encode the strongest position of a held-out image; its latents, with their top activating images."""
    from circuits.activations.salient_positions import salient_positions
    from circuits.attribution.contributions import top_examples
    from circuits.network.hooks import capture
    from circuits.plot.drawing.crops import cut_examples, pixels
    from circuits.plot.sae.dictionaries import Part, schematic_figure
    from sae.evaluation.metrics import reconstruction

    shared = trained(context)
    image = shared.held_out.subset([len(shared.held_out) // 2])
    acts = capture(context.model, image, [shared.layer])[shared.layer].float().cpu()[0]
    y, x = salient_positions(acts, 1)[0]
    vector = acts[:, y, x]
    with torch.no_grad():
        latents = shared.sae.encode(vector[None])[0]
        rebuilt = shared.sae.decode(latents[None])[0]
        offset = shared.sae.decode(torch.zeros_like(latents)[None])[0]
    active = int((latents > 0).sum())
    order = latents.argsort(descending=True, stable=True)[: min(_LATENTS, active)].tolist()
    about = rebuilt - offset
    shares = latents * (shared.sae.write @ about) / about.square().sum()
    units = [context.model.unit(f"{shared.layer}~{NAME}:{i}") for i in order]
    images = shared.training.spread(context.size(300, 200, 60))
    top = dict(zip(map(str, units), top_examples(context.model, units, images, _CROPS), strict=True))
    crops = cut_examples(top, images, context.model.input)
    parts = [
        Part(f":{i}", float(latents[i]), float(shares[i]), crops[str(u)]) for i, u in zip(order, units, strict=True)
    ]
    measured = reconstruction(shared.sae, shared.vectors, seed=context.seed)
    explained = 1 - measured.fvu
    channels, random = (1 - measured.baselines[name].fvu for name in ("channels", "random"))
    height, width = acts.shape[1:]
    drawing = schematic_figure(
        pixels(image.tensor(context.model.input)[0], context.model.input.channels),
        (y / height, x / width, (y + 1) / height, (x + 1) / width),
        vector.numpy().astype(np.float64),
        parts,
        rebuilt.detach().numpy().astype(np.float64),
        title=f"One vector of {shared.layer} in {shared.sae.latents:,} latents",
        about=f"cosine of the vector with its reconstruction "
        f"{float(torch.nn.functional.cosine_similarity(vector, rebuilt, dim=0)):.2f}; right: top activating "
        "images of each latent",
        remaining=active - len(order),
    )
    claims = [
        Claim.above(
            "a few latents explain vectors of held-out images: share of variance",
            explained,
            max(channels, random),
            "the better of as many channels and as many random directions",
        )
    ]
    numbers = {
        "picture": image.ids[0],
        "position": [y, x],
        "vector": vector,
        "reconstruction": rebuilt,
        "latents": [{"latent": i, "value": float(latents[i]), "share": float(shares[i])} for i in order],
        "active": active,
        "explained": {"latents": explained, "channels": channels, "random": random, "vectors": measured.samples},
    }
    caption = (
        f"The strongest position of a held-out image ({image.ids[0]}), its {len(vector)} channels, the {len(order)} "
        f"strongest of its active latents with their top activating images, and the sum. {shared.how}."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)
