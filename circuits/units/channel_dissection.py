"""A channel decomposed: which latents of a dictionary write to it, and the top activating images of each.

A polysemantic channel responds to unrelated things because several features write to it. With a dictionary of the
layer, an SAE for example, its response is a sum: of each latent times its weight on the channel, and of what the
dictionary leaves over. Source: Bricken et al., Towards Monosemanticity, 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from circuits.attribution.contributions import top_examples
from circuits.common.examples import Example
from circuits.common.provenance import provenance
from circuits.errors import AddressError, CircuitsError
from circuits.network.address import Unit
from circuits.network.hooks import read
from circuits.network.model import Model
from zoo.common.results import Result, remembers
from zoo.images.sources import open_images
from zoo.progress import Progress, reporter


@dataclass(frozen=True, eq=False)
class Writer(Result):
    """A latent that writes to a channel.

    Attributes:
        unit: address of the latent; weight: what one unit of it adds to the channel.
        share: of the channel's summed responses on its examples, how much it gives (may be negative).
        leads: on how many of the channel's examples it gives more than any other latent.
        examples: top activating images of the latent itself.
    """

    unit: str
    weight: float
    share: float
    leads: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, eq=False)
class Dissection(Result):
    """What `dissect` found.

    Attributes:
        unit: address of the channel; basis: name of the dictionary's space, `layer~name`.
        examples: the channel's own, strongest first.
        writers: latents that write most to it there, by share.
        contributions: `(examples, writers)` what each writer gives on each example; others: `(examples,)` what all
            other latents give; rest: `(examples,)` what the dictionary leaves over, its offset included. Together
            they are the channel's response.
        labels: names of the examples' classes, where the images have them.
        provenance: where it came from.
    """

    unit: str
    basis: str
    examples: tuple[Example, ...]
    writers: tuple[Writer, ...]
    contributions: NDArray[np.float32]
    others: NDArray[np.float32]
    rest: NDArray[np.float32]
    labels: tuple[str, ...] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    described = ("shares",)

    @property
    def shares(self) -> dict[str, float]:
        """Of the channel's summed responses: what the writers, the other latents and the rest give."""
        total = sum(e.value for e in self.examples)
        parts = (("writers", self.contributions), ("others", self.others), ("rest", self.rest))
        return {name: float(part.sum()) / total for name, part in parts}


@remembers("model", "images")
@torch.no_grad()
def dissect(
    model: Model,
    unit: str | Unit,
    basis: str,
    images: Any,
    *,
    n: int = 64,
    writers: int = 6,
    each: int = 12,
    batch_size: int = 16,
    progress: Progress = None,
) -> Dissection:
    """Decompose a channel by a dictionary of its layer.

    Args:
        model: the model, with the dictionary attached (`model.attach`, or `sae.VisionSite.attach`).
        unit: a channel.
        basis: name of the dictionary, as it was attached.
        images: images in any form that `capture` takes.
        n: examples of the channel: its top activating images, each at the position of the maximum.
        writers: latents to show; each: examples of each.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total).

    Raises:
        AddressError: no such channel or dictionary. CircuitsError: the channel activates on none of the images.

    >>> dissect(model, "mixed4c:436", "topk", photographs).writers[0].unit  # doctest: +SKIP
    'googlenet-bvlc/mixed4c~topk:1021'
    """
    at = model.unit(unit).channel
    if at.basis is not None:
        raise AddressError(f"{at.short} is a latent; dissect a channel, {at.layer}:{at.index} for example")
    for name, number in (("n", n), ("writers", writers), ("each", each)):
        if not isinstance(number, int) or number < 1:
            raise CircuitsError(f"{name} is a whole number above zero, not {number!r}")
    dictionary = model.basis(at.layer, basis)
    dataset = open_images(images)
    layer = model.layers[at.layer]
    assert at.index is not None
    with reporter(progress, "img") as report:
        total = 2 * len(dataset)
        (own,) = top_examples(model, [at], dataset, n, batch_size, lambda count, _: report(count, total))
        if not own:
            raise CircuitsError(f"{at} is active on none of the {len(dataset)} images of {dataset.name}")
        rows: dict[int, torch.Tensor] = {}
        positions = {e.image: e.position for e in own}
        for indices, batch in dataset.batches(model.input, batch_size=batch_size, indices=sorted(positions)):
            acts = read(model, batch, [layer])[layer.name]
            rows |= {i: acts[k, :, positions[i][0], positions[i][1]].float() for k, i in enumerate(indices)}
        vectors = torch.stack([rows[e.image] for e in own])
        contributions = (dictionary.encode(vectors) * dictionary.write[:, at.index].to(vectors)).cpu()
        order = contributions.sum(dim=0).argsort(descending=True, stable=True)[:writers]
        latents = [replace(at, basis=basis, index=int(j)) for j in order]
        theirs = top_examples(
            model, latents, dataset, each, batch_size, lambda count, _: report(len(dataset) + count, total)
        )  # fmt: skip
    values = vectors[:, at.index].cpu()
    leads = torch.bincount(contributions.argmax(dim=1), minlength=contributions.shape[1])
    return Dissection(
        unit=str(at),
        basis=latents[0].space,
        examples=tuple(replace(e, value=float(v)) for e, v in zip(own, values, strict=True)),
        writers=tuple(
            Writer(
                unit=str(u),
                weight=float(dictionary.write[int(j), at.index]),
                share=float(contributions[:, j].sum() / values.sum()),
                leads=int(leads[j]),
                examples=tuple(own_examples),
            )
            for u, j, own_examples in zip(latents, order, theirs, strict=True)
        ),
        contributions=contributions[:, order].numpy(),
        others=(contributions.sum(dim=1) - contributions[:, order].sum(dim=1)).numpy(),
        rest=(values - contributions.sum(dim=1)).numpy(),
        labels=None if dataset.labels is None else tuple(dataset.label_name(e.image) for e in own),
        provenance=provenance(weights=model.digest, images=dataset.digest, n=n),
    )
