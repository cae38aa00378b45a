"""What ablating the latents of one network alone does to its predictions, beside shared latents as large."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.attribution.class_scores import class_name
from circuits.tracing.curves.null_circuits import matched
from sae.data.site import Function
from sae.data.vision_site import VisionSite
from sae.evaluation.diffing.results import ClassEffect
from zoo.images.sources import Images


def class_effects(
    site: VisionSite, images: Images, codes: Tensor, write: Tensor, own: Sequence[int], shared: Sequence[int],
    sizes: Tensor, *, draws: int, seed: int, batch_size: int = 32,
) -> list[ClassEffect]:  # fmt: skip
    """The effect of ablating some latents at every position, for each class with images.

    What a latent writes, its activation times its row, is taken off the layer. As a control as many shared latents that
    write as much are ablated, sampled anew in each draw.

    Args:
        site: the layer of one network; images: labeled ones.
        codes: `(images, h, w, m)` latents of all of them; write: `(m, d)` rows in the layer's raw units.
        own: the latents; shared: those that controls are sampled from.
        sizes: `(m,)` how much each writes.
        draws: of controls; seed: of them.
    """
    rng = np.random.default_rng(seed)
    control = [_sampled(own, shared, sizes, rng) for _ in range(draws)] if len(shared) >= len(own) else []
    sets = [list(own), *control]
    ways: list[Function | None] = [None, *(_ablating(codes, write, latents) for latents in sets)]
    scores: list[list[Tensor]] = [[] for _ in ways]
    right = []
    for batch, labels in site.predictions(images, ways, batch_size=batch_size):
        for way_scores, values in zip(scores, batch, strict=True):
            way_scores.append(values.float().cpu())
        right.append(labels)
    answers = [torch.cat(values) for values in scores]
    truth = torch.cat([labels for labels in right if labels is not None])
    effects = []
    for label in sorted({int(value) for value in truth if value >= 0}):
        of = truth == label
        accuracy = [float((values[of].argmax(dim=1) == label).double().mean()) for values in answers]
        logit = [float(values[of, label].mean()) for values in answers]
        chance = accuracy[2:]
        effects.append(
            ClassEffect(
                network=site.address,
                label=class_name(site.model, label),
                images=int(of.sum()),
                latents=len(own),
                accuracy=accuracy[0],
                ablated=accuracy[1],
                control=float(np.mean(chance)) if chance else None,
                control_low=min(chance) if chance else None,
                control_high=max(chance) if chance else None,
                logit_drop=logit[0] - logit[1],
                control_logit_drop=logit[0] - float(np.mean(logit[2:])) if chance else None,
            )
        )
    return effects


def _sampled(own: Sequence[int], shared: Sequence[int], sizes: Tensor, rng: np.random.Generator) -> list[int]:
    """As many of the shared latents, each about as large as one of `own`."""
    numbers = [*own, *shared]
    chosen = matched({"": set(range(len(own)))}, {"": sizes[numbers]}, rng)[""]
    return [numbers[i] for i in sorted(chosen)]


def _ablating(codes: Tensor, write: Tensor, latents: Sequence[int]) -> Function:
    """The function that takes what latents write off the activations of one batch after the other."""
    rows = write[list(latents)]
    start = 0

    def function(acts: Tensor) -> Tensor:
        nonlocal start
        values = codes[start : start + len(acts), ..., list(latents)].to(acts)
        start += len(acts)
        if values.shape[1:3] != acts.shape[1:3]:  # of a map that was brought to a smaller one: the nearest position
            values = F.interpolate(values.movedim(-1, 1), tuple(acts.shape[1:3]), mode="nearest").movedim(1, -1)
        return acts - values @ rows.to(acts)

    return function
