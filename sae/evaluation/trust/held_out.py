"""What dictionaries of one layer are measured on: held-out images, what they show, how another network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuits.dataset.accuracy import class_labels
from circuits.dataset.part_labels import PartGrid, part_grid
from circuits.errors import CircuitsError
from circuits.network.hooks import capture
from circuits.network.model import Model
from sae.data.site import reconstructing
from sae.data.vision_site import VisionSite
from sae.errors import SAEError
from sae.evaluation.controls.dictionary import Dictionary
from sae.evaluation.evaluate import PredictionTally
from sae.evaluation.metrics import explained_variance, fvu
from sae.evaluation.part_agreement import agreement, iou_at
from sae.evaluation.trust import latent_metrics
from sae.evaluation.trust.targeted_removal import Concepts
from sae.seeding import CONTROL, generator
from zoo.images.sources import Images

METRICS = {
    "explained variance": "share of the variance of activations that the reconstruction explains",
    "kept predictions": "1 - KL divergence of predictions with the reconstruction in place, over that with the mean",
    "loss recovered": "share of the loss that the layer at its mean adds, which the reconstruction in place takes away",
    "kept classes": "accuracy of a probe of activations on their reconstructions, as a share of that on themselves",
    "alive": "share of the latents that are active on some held-out image",
    "monosemanticity": "likeness of the 16 top images to another network, weighted by activation; mean over latents",
    "class purity": "share of one class among the 16 top images; mean over latents",
    "spatial coherence": "Moran's I of the maps; mean over latents",
    "one-latent probing": "held-out accuracy of a classifier of images that reads one latent",
    "sparse probing": "the same for 1 to 100 latents, area under the accuracies",
    "part detection": "AUC of the best latent for a part, chosen on half of the images; mean over parts",
    "part overlap": "IoU of the best latent for a part, threshold and latent chosen on half; mean over parts",
    "targeted removal": "share of what removing a part from the image does that removing its latents does, less damage",
    "stability": "mean cosine of matched directions with the dictionaries of the other seeds",
    "gain of size": "share of the unexplained variance that is gone beside a dictionary of half the size",
    "planted recovery": "largest cosine of a latent with a feature of planted families; mean over features",
    "unabsorbed": "activity of a planted parent's latent where a child is active, over that where the parent is alone",
    "unsplit": "F1 of the best latent for a planted parent, over that of the best few together",
}
"""Metric -> what it is. Larger is better of each. Stability is of several dictionaries, the last three are of
dictionaries of planted features."""
_LEAST_ON = 5  # positions on a part, in each half
_LEAST_OF_CLASS = 5  # held-out images, four of which a probe learns from
_LEAST_KL = 1e-6  # nats: below it the predictions do not depend on the layer, and nothing is to be kept
_ROWS = 8192


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The held-out images of one layer; `held_out` makes it.

    Attributes:
        site: the layer; images: held-out.
        maps: `(N, h, w, d)` activations.
        labels: `(N,)` class of each image, -1 where the network does not have it or fewer than five images are of it;
            None where that leaves fewer than two classes.
        embeddings: `(N, e)` of the judge.
        parts: of images with annotated parts.
        concepts: pairs of images with and without a part, where there are some.
        annotated: the images of `parts`, mostly `images` again; part_maps: their activations.
        first, second: indices of the two halves of the annotated images.
    """

    site: VisionSite
    images: Images
    maps: Tensor
    labels: Tensor | None
    embeddings: Tensor
    parts: PartGrid | None
    concepts: Concepts | None
    annotated: Images
    part_maps: Tensor = field(repr=False)
    first: Tensor = field(repr=False)
    second: Tensor = field(repr=False)

    @torch.no_grad()
    def measure(self, dictionary: Dictionary) -> dict[str, float]:
        """Metric -> value of a dictionary, NaN where these images do not give it; see `METRICS`."""
        flat = self.maps.flatten(0, 2)
        latents = torch.cat([dictionary.encode(rows) for rows in torch.split(flat, _ROWS)])
        again = torch.cat([dictionary.decode(rows) for rows in torch.split(latents, _ROWS)])
        maps = latents.view(*self.maps.shape[:3], -1)
        pooled = maps.flatten(1, 2).amax(dim=1)
        values = {
            "explained variance": explained_variance(flat, again),
            "alive": float((pooled > 0).any(dim=0).double().mean()),
            "monosemanticity": _mean(latent_metrics.monosemanticity(pooled, self.embeddings)),
            "spatial coherence": _mean(
                latent_metrics.spatial_coherence(maps, least_active=2, least_images=max(2, len(maps) // 50))
            ),
        }
        if self.labels is not None:
            known = self.labels >= 0
            probes = latent_metrics.sparse_probing(pooled[known], self.labels[known])
            mean = self.maps.flatten(1, 2).mean(dim=1), again.view_as(self.maps).flatten(1, 2).mean(dim=1)
            values |= {
                "class purity": _mean(latent_metrics.class_purity(pooled[known], self.labels[known])),
                "one-latent probing": probes[1],
                "sparse probing": latent_metrics.normalized_area(probes),
                "kept classes": latent_metrics.kept_classes(mean[0][known], mean[1][known], self.labels[known]),
            }
        if self.parts is not None:
            if self.part_maps is not self.maps:
                rows = torch.split(self.part_maps.flatten(0, 2), _ROWS)
                maps = torch.cat([dictionary.encode(some) for some in rows]).view(*self.part_maps.shape[:3], -1)
            values["part detection"], values["part overlap"] = self._parts(maps, self.parts)
        if self.concepts is not None:
            values["targeted removal"] = self.concepts.score(dictionary)
        return {name: values.get(name, float("nan")) for name in METRICS}

    @torch.no_grad()
    def unexplained(self, dictionary: Dictionary) -> float:
        """FVU of a dictionary."""
        flat = self.maps.flatten(0, 2)
        return fvu(flat, torch.cat([dictionary.decode(dictionary.encode(rows)) for rows in torch.split(flat, _ROWS)]))

    def seen_by(self, model: Model) -> HeldOut:
        """The same images at the layer of a network of the same form; without concepts, whose class scores it lacks."""
        site = VisionSite(model, self.site.layer.name)
        maps = _maps(site, self.images)
        parts = maps if self.part_maps is self.maps else _maps(site, self.annotated)
        return replace(self, site=site, maps=maps, part_maps=parts, concepts=None)

    def _parts(self, maps: Tensor, grid: PartGrid) -> tuple[float, float]:
        """AUC and IoU of the best latent for a part, chosen on half of the images, scored on the other; their means."""
        halves = []
        for half in (self.first, self.second):
            inside = grid.inside[half].movedim(1, -1).flatten(0, 2)
            positions = maps.shape[1] * maps.shape[2]
            absent = (~grid.present[half])[:, None].expand(-1, positions, -1).flatten(0, 1)
            halves.append((maps[half].flatten(0, 2), inside, absent))
        there = torch.stack([(on.sum(dim=0) >= _LEAST_ON) & off.any(dim=0) for _, on, off in halves]).all(dim=0)
        if not bool(there.any()):
            return float("nan"), float("nan")
        (acts, on, off), (others, others_on, others_off) = halves
        chosen = agreement(acts, on[:, there], off[:, there])
        # on the other half only the latents that were chosen, by either
        units, at = torch.unique(torch.stack([chosen.auc.argmax(dim=0), chosen.iou.argmax(dim=0)]), return_inverse=True)
        scored = agreement(others[:, units], others_on[:, there], others_off[:, there])
        auc = scored.auc.gather(0, at[:1])
        iou = iou_at(others[:, units], chosen.threshold[units], others_on[:, there]).gather(0, at[1:])
        return float(auc.mean()), float(iou.mean())

    @torch.no_grad()
    def predictions(
        self, dictionaries: Sequence[Dictionary], *, most: int | None = None, batch_size: int = 32
    ) -> list[dict[str, float]]:
        """What each dictionary in the place of the activations leaves of the network's predictions.

        "kept predictions" is `1 - KL / KL(mean)`: KL is the divergence from the clean network's predictions, KL(mean)
        that with every activation at its mean. "loss recovered" is `(L(mean) - L) / (L(mean) - L(clean))` of the
        cross-entropy L with the labels, NaN where no image has one, or where the layer at its mean predicts as well.

        Args:
            dictionaries: of the layer.
            most: on so many of the images, from the first on (default: on all).
            batch_size: images per forward pass.
        """
        mean = self.maps.flatten(0, 2).mean(dim=0)
        ways = [lambda acts: mean.to(acts).expand_as(acts), *(reconstructing(_both(d)) for d in dictionaries)]
        tallies = [PredictionTally() for _ in (None, *ways)]
        images = self.images if most is None else self.images.subset(range(min(most, len(self.images))))
        for scores, labels in self.site.predictions(images, [None, *ways], batch_size=batch_size):
            clean = scores[0].double().log_softmax(dim=1)
            for tally, score in zip(tallies, scores, strict=True):
                tally.add(score, clean, labels)
        intact, floor, *results = (tally.result() for tally in tallies)
        lost = floor.loss - intact.loss
        return [
            {
                "kept predictions": 1 - of.kl / floor.kl if floor.kl > _LEAST_KL else float("nan"),
                "loss recovered": (floor.loss - of.loss) / lost if lost > _LEAST_KL else float("nan"),
            }
            for of in results
        ]


def _both(dictionary: Dictionary) -> Any:
    return lambda acts: dictionary.decode(dictionary.encode(acts.cpu()))  # dictionaries are measured on the CPU


def _maps(site: VisionSite, images: Images) -> Tensor:
    maps = torch.cat([block.acts.cpu() for block in site.blocks(images)])
    if maps.ndim != 4:
        raise SAEError(f"{site.address} has no positions (y, x) to measure latents at")
    return maps


def held_out(
    model: Model,
    layer: str,
    images: Images,
    *,
    annotated: Images | None = None,
    judge: Model | None = None,
    seed: int = 0,
) -> HeldOut:
    """The held-out images of a layer, ready to measure dictionaries on.

    Args:
        model: the network; layer: of the dictionaries.
        images: that no dictionary was trained on.
        annotated: images with annotated parts, for the metrics of parts (default: `images`, if parts are annotated).
        judge: the network in whose eyes images are alike: its last layer with positions, averaged over them and
            centered (default: the network itself, which is circular, but for controls as well).
        seed: of the halves in which latents are chosen and scored.

    Raises:
        SAEError: a layer without positions. CircuitsError: `annotated` are not.
    """
    site = VisionSite(model, layer)
    maps = _maps(site, images)
    labels = None if images.labels is None else torch.from_numpy(class_labels(model, images))
    if labels is not None:
        common = (torch.bincount(labels[labels >= 0]) >= _LEAST_OF_CLASS).nonzero().flatten()
        # nothing to tell apart with one class, and nothing to learn from one photograph of each
        labels = torch.where(torch.isin(labels, common), labels, -1) if len(common) > 1 else None
    part_images = images if annotated is None else annotated
    try:
        parts = part_grid(model, layer, part_images)
    except CircuitsError:  # images without annotations
        if annotated is not None:
            raise
        parts = None
    order = torch.randperm(len(part_images), generator=generator(seed, CONTROL, 1))
    half = len(order) // 2
    return HeldOut(
        site=site,
        images=images,
        maps=maps,
        labels=labels,
        embeddings=embedded(judge or model, images),
        parts=parts,
        concepts=Concepts.of(model, site.layer.name, seed=seed),
        annotated=part_images,
        part_maps=maps if annotated is None else _maps(site, annotated),
        first=order[:half].sort().values,
        second=order[half:].sort().values,
    )


def embedded(judge: Model, images: Images) -> Tensor:
    """Images in the eyes of a network, `(N, e)`: its last layer with positions, averaged over them and centered."""
    last = [name for name, layer in judge.layers.items() if layer.part is None and (layer.size or (1, 1)) != (1, 1)]
    if not last:
        raise SAEError(f"{judge.name} has no layer with positions to embed images by; give judge=, another network")
    acts = capture(judge, images, at=last[-1])[last[-1]]
    means = acts.flatten(2).mean(dim=2).cpu()
    return means - means.mean(dim=0)


def _mean(values: Tensor) -> float:
    there = values[~values.isnan()]
    return float(there.double().mean()) if len(there) else float(np.nan)
