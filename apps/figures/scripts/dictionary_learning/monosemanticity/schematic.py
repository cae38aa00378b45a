"""Towards Monosemanticity: one activation vector as a sum of a few latents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.trained_saes import NAME, trained

if TYPE_CHECKING:
    from apps.figures.context import FigureContext

_SHOWN, _CROPS = 5, 4


@figure(
    "M1",
    "sae-schematic",
    "A vector, its latents, and what they add up to",
    paper="monosemanticity",
    shows="A dense vector of many channels is nearly the sum of a few sparse latents, each of which can be read.",
    cost=30,
)
def draw(context: FigureContext) -> FigureResult:
    """Encode the strongest place of a held-out picture; its latents, with the pictures on which they fire."""
    import numpy as np
    import torch

    from circuits.activations.salient_positions import salient_positions
    from circuits.attribution.contributions import top_examples
    from circuits.network.hooks import capture
    from circuits.plot.drawing.crops import cut_examples, pixels
    from circuits.plot.sae.dictionaries import Part, schematic_figure
    from sae.evaluation.metrics import reconstruction

    found = trained(context)
    alone = found.held_out.subset([len(found.held_out) // 2])
    acts = capture(context.model, alone, [found.layer])[found.layer].float().cpu()[0]
    y, x = salient_positions(acts, 1)[0]
    vector = acts[:, y, x]
    with torch.no_grad():
        latents = found.sae.encode(vector[None])[0]
        rebuilt = found.sae.decode(latents[None])[0]
        offset = found.sae.decode(torch.zeros_like(latents)[None])[0]
    active = int((latents > 0).sum())
    order = latents.argsort(descending=True, stable=True)[: min(_SHOWN, active)].tolist()
    about = rebuilt - offset
    shares = latents * (found.sae.write @ about) / about.square().sum()
    units = [context.model.unit(f"{found.layer}~{NAME}:{i}") for i in order]
    pictures = found.training.spread(context.size(300, 200, 60))
    top = dict(zip(map(str, units), top_examples(context.model, units, pictures, _CROPS), strict=True))
    crops = cut_examples(top, pictures, context.model.input)
    parts = [
        Part(f":{i}", float(latents[i]), float(shares[i]), crops[str(u)]) for i, u in zip(order, units, strict=True)
    ]
    measured = reconstruction(found.sae, found.vectors, seed=context.seed)
    explained = 1 - measured.fvu
    channels, random = (1 - measured.baselines[name].fvu for name in ("channels", "random"))
    height, width = acts.shape[1:]
    drawing = schematic_figure(
        pixels(alone.tensor(context.model.input)[0], context.model.input.channels),
        (y / height, x / width, (y + 1) / height, (x + 1) / width),
        vector.numpy().astype(np.float64),
        parts,
        rebuilt.detach().numpy().astype(np.float64),
        title=f"One vector of {found.layer} in {found.sae.latents:,} latents",
        about=f"cosine of the vector with its reconstruction "
        f"{float(torch.nn.functional.cosine_similarity(vector, rebuilt, dim=0)):.2f}; right: pictures on which each "
        "latent fires most",
        remaining=active - len(order),
    )
    claims = [
        Claim(
            "a few latents explain vectors of pictures they were not trained on: share of variance",
            explained,
            max(channels, random),
            explained > max(channels, random),
            "the better of as many channels and as many of random directions",
        )
    ]
    numbers = {
        "picture": alone.ids[0],
        "position": [y, x],
        "vector": vector,
        "reconstruction": rebuilt,
        "latents": [{"latent": i, "value": float(latents[i]), "share": float(shares[i])} for i in order],
        "active": active,
        "explained": {"latents": explained, "channels": channels, "random": random, "vectors": measured.samples},
    }
    caption = (
        f"The strongest place of a held-out picture ({alone.ids[0]}), its {len(vector)} channels, the {len(order)} "
        f"strongest of its active latents with the pictures on which they fire most, and the sum. {found.how}."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)
