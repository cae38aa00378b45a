"""A channel taken apart: which latents of a dictionary write to it, and what each of them answers to.

A polysemantic channel answers to unrelated things because several features write to it. With a dictionary of the
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
from zoo.images.sources import open_images
from zoo.progress import Progress, reporter


@dataclass(frozen=True, eq=False)
class Writer:
    """A latent that writes to a channel.

    Attributes:
        unit: address of the latent; weight: what one unit of it adds to the channel.
        share: of the channel's summed responses on its examples, how much it gives (may be negative).
        leads: on how many of the channel's examples it gives more than any other latent.
        examples: pictures on which the latent itself fires most.
    """

    unit: str
    weight: float
    share: float
    leads: int
    examples: tuple[Example, ...]

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**vars(self), "examples": [vars(e) for e in self.examples]}


@dataclass(frozen=True, eq=False)
class Dissection:
    """What `dissect` found.

    Attributes:
        unit: address of the channel; basis: name of the dictionary's space, `layer~name`.
        examples: the channel's own, strongest first.
        writers: latents that write most to it there, by share.
        contributions: `(examples, writers)` what each writer gives on each example; others: `(examples,)` what all
            other latents give; rest: `(examples,)` what the dictionary leaves over, its offset included. Together
            they are the channel's response.
        labels: names of the examples' classes, where the pictures have them.
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

    @property
    def shares(self) -> dict[str, float]:
        """Of the channel's summed responses: what the writers, the other latents and the rest give."""
        total = sum(e.value for e in self.examples)
        parts = (("writers", self.contributions), ("others", self.others), ("rest", self.rest))
        return {name: float(part.sum()) / total for name, part in parts}

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "unit": self.unit,
            "basis": self.basis,
            "shares": self.shares,
            "examples": [vars(e) for e in self.examples],
            "labels": None if self.labels is None else list(self.labels),
            "writers": [w.describe() for w in self.writers],
            "contributions": self.contributions.tolist(),
            "others": self.others.tolist(),
            "rest": self.rest.tolist(),
            "provenance": dict(self.provenance),
        }


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
    """Take a channel apart by a dictionary of its layer.

    Args:
        model: the model, with the dictionary attached (`model.attach`, or `sae.VisionSite.attach`).
        unit: a channel.
        basis: name of the dictionary, as it was attached.
        images: pictures in any form that `capture` takes.
        n: examples of the channel: the pictures on which it fires most, at the place where it does.
        writers: latents to show; each: examples of each.
        batch_size: pictures per forward pass.
        progress: True for a bar, or a function of (done, total).

    Raises:
        AddressError: no such channel or dictionary. CircuitsError: the channel fires on none of the pictures.

    >>> dissect(model, "mixed4c:436", "topk", photographs).writers[0].unit  # doctest: +SKIP
    'googlenet-bvlc/mixed4c~topk:1021'
    """
    at = model.unit(unit).channel
    if at.basis is not None:
        raise AddressError(f"{at.short} is a latent; take a channel apart, {at.layer}:{at.index} for example")
    for name, number in (("n", n), ("writers", writers), ("each", each)):
        if not isinstance(number, int) or number < 1:
            raise CircuitsError(f"{name} is a whole number above zero, not {number!r}")
    dictionary = model.basis(at.layer, basis)
    pictures = open_images(images)
    layer = model.layers[at.layer]
    assert at.index is not None
    with reporter(progress, "img") as told:
        total = 2 * len(pictures)
        (own,) = top_examples(model, [at], pictures, n, batch_size, lambda done, _: told(done, total))
        if not own:
            raise CircuitsError(f"{at} is active on none of the {len(pictures)} pictures of {pictures.name}")
        rows: dict[int, torch.Tensor] = {}
        place = {e.image: e.position for e in own}
        for indices, batch in pictures.batches(model.input, batch_size=batch_size, indices=sorted(place)):
            acts = read(model, batch, [layer])[layer.name]
            rows |= {i: acts[k, :, place[i][0], place[i][1]].float() for k, i in enumerate(indices)}
        vectors = torch.stack([rows[e.image] for e in own])
        given = (dictionary.encode(vectors) * dictionary.write[:, at.index].to(vectors)).cpu()
        order = given.sum(dim=0).argsort(descending=True, stable=True)[:writers]
        found = [replace(at, basis=basis, index=int(j)) for j in order]
        theirs = top_examples(
            model, found, pictures, each, batch_size, lambda done, _: told(len(pictures) + done, total)
        )  # fmt: skip
    values = vectors[:, at.index].cpu()
    leads = torch.bincount(given.argmax(dim=1), minlength=given.shape[1])
    return Dissection(
        unit=str(at),
        basis=found[0].space,
        examples=tuple(replace(e, value=float(v)) for e, v in zip(own, values, strict=True)),
        writers=tuple(
            Writer(
                unit=str(u),
                weight=float(dictionary.write[int(j), at.index]),
                share=float(given[:, j].sum() / values.sum()),
                leads=int(leads[j]),
                examples=tuple(seen),
            )
            for u, j, seen in zip(found, order, theirs, strict=True)
        ),
        contributions=given[:, order].numpy(),
        others=(given.sum(dim=1) - given[:, order].sum(dim=1)).numpy(),
        rest=(values - given.sum(dim=1)).numpy(),
        labels=None if pictures.labels is None else tuple(_label(pictures, e.image) for e in own),
        provenance=provenance(weights=model.digest, images=pictures.digest, n=n),
    )


def _label(pictures: Any, index: int) -> str:
    label = pictures.labels[index]
    return str(label) if pictures.classes is None else str(pictures.classes[label])
