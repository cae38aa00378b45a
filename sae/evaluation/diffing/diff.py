"""Two networks compared at a layer by a crosscoder: what they share, what only one has, beside what chance would say.

The crosscoder is BatchTopK's, which has no L1 to shrink a row to zero (Minder et al. 2025, arXiv 2504.02922); even so
a latent counts as one network's alone only if held-out images confirm it (`latent_scaling`). The same network twice has
no such latents; two seeds of one network show how many of them mean nothing but another training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuits.attribution.class_scores import class_name
from circuits.common.examples import Example
from circuits.common.provenance import provenance
from circuits.common.statistics import label_auc
from circuits.network.model import Model
from sae.architectures.base import SAE
from sae.architectures.batchtopk import BatchTopK
from sae.data.activations import collect, fitting
from sae.data.sources import Sources
from sae.data.streams import TensorStream
from sae.data.vision_site import VisionSite
from sae.errors import SAEError
from sae.evaluation.diffing.effects import class_effects
from sae.evaluation.diffing.latent_scaling import EXCLUSIVE, LatentScaling, latent_scaling
from sae.evaluation.diffing.results import DiffCounts, DiffLatent, Kind, ModelDiff
from sae.evaluation.diffing.settings import DiffSettings
from sae.formats import save
from sae.training.train import train
from zoo.common.autograd import outside_inference_mode
from zoo.common.settings import settings_of
from zoo.images.sources import Images
from zoo.progress import Progress

TOP = 12
"""Top images of a latent, which its precision is of."""
ALIGNED = 0.5
"""Median cosine of the rows of shared latents from which two networks have one basis."""
SHARED = (0.3, 0.7)


@outside_inference_mode
def diff(
    first: Model,
    second: Model,
    *,
    layer: str | Sequence[str],
    images: Any,
    null: Model | None = None,
    save_to: str | Path | None = None,
    settings: DiffSettings | None = None,
    batch_size: int = 32,
    progress: Progress = None,
    **options: Any,
) -> ModelDiff:
    """What two networks share at a layer, and what only one of them has, by a crosscoder.

    Args:
        first, second: networks that take the same images; they may be of different architectures.
        layer: of both, or one of each.
        images: in any form that `capture` takes; a share of them, sampled at random, is held out for every measure.
        null: another training of the first network: what differs between these two means nothing.
        save_to: a folder for the crosscoder of the two, which `sae.load` reads; the numbers of latents are its.
        settings: how they are compared (default: those of `DiffSettings`).
        batch_size: images per forward pass; progress: of the forward passes.
        options: any field of `DiffSettings` as a keyword, in place of that of `settings`.

    Raises:
        AddressError: there is no such layer. SAEError: options that do not exist, or too few images.

    >>> result = diff(first, second, layer="mixed4a", images="scenes:600")  # doctest: +SKIP
    >>> [latent.label for latent in result.of("only first")]  # doctest: +SKIP
    ['car', 'car']
    """
    chosen = settings_of(DiffSettings, settings, options, error=SAEError)
    layers = [layer, layer] if isinstance(layer, str) else list(layer)
    if len(layers) != 2:
        raise SAEError(f"layer= is one layer of both networks, or one of each; got {len(layers)}")
    sites = [VisionSite(first, layers[0]), VisionSite(second, layers[1])]
    if null is not None:
        sites.append(VisionSite(null, layers[0]))
    together = Sources(*sites)
    opened: Images = together.open(images)
    training, held_out = _split(len(opened), chosen)
    some = opened.subset(training)
    sampling = fitting(together, some, vectors=chosen.vectors, seed=chosen.seed)
    acts = collect(together, some, sampling=sampling, batch_size=batch_size, progress=progress).vectors
    x = torch.split(acts.cpu(), list(together.written), dim=1)
    rest = opened.subset(held_out)
    maps = [block.acts.cpu() for block in together.blocks(rest, batch_size=batch_size, progress=progress)]

    def compared(other: int, title: str) -> tuple[DiffCounts, SAE, LatentScaling, list[Kind], bool, Tensor]:
        config = BatchTopK(latents=chosen.latents, k=chosen.k, kind="crosscoder", seed=chosen.seed)
        stream = TensorStream([x[0], x[other]], min(chosen.batch_size, len(x[0])), chosen.seed)
        run = train(stream, config, steps=chosen.steps, lr=chosen.lr, distributed=False)[0]
        joined = [_of(block, together.written, (0, other)) for block in maps]
        codes = torch.cat([run.sae.encode(acts.flatten(0, 2)).view(*acts.shape[:3], -1) for acts in joined])
        both = torch.cat(joined), codes
        scaling = latent_scaling(run.sae, [[of[half::2].flatten(0, 2) for of in both] for half in (0, 1)])
        kinds, aligned = _kinds(scaling, chosen)
        return _counts(title, scaling, kinds), run.sae, scaling, kinds, aligned, codes

    counts, crosscoder, scaling, kinds, aligned, codes = compared(1, f"{sites[0].address} and {sites[1].address}")
    controls = []
    if chosen.controls:
        controls.append(compared(0, f"{sites[0].address} twice")[0])
    if null is not None:
        controls.append(compared(2, f"{sites[0].address} and {null.name}, another training")[0])
    if save_to is not None:
        save(save_to, crosscoder)
    labels = None if rest.labels is None else sites[0].labels(rest)
    latents = _described(crosscoder, scaling, kinds, aligned, codes, rest, first, sites[0], labels, held_out)
    effects = []
    for number, site in enumerate(sites[:2]):
        own = [i for i, kind in enumerate(kinds) if kind == ("only first", "only second")[number]]
        shared = [i for i, kind in enumerate(kinds) if kind == "shared"]
        if own and rest.labels is not None:
            write = torch.split(crosscoder.write, list(crosscoder.written), dim=1)[number]
            effects += class_effects(
                site, rest, codes, write, own, shared, scaling.size, draws=chosen.draws, seed=chosen.seed,
                batch_size=batch_size,
            )  # fmt: skip
    order = {kind: rank for rank, kind in enumerate(("only first", "only second", "not confirmed"))}
    return ModelDiff(
        first=sites[0].address,
        second=sites[1].address,
        counts=counts,
        controls=tuple(controls),
        latents=tuple(sorted(latents, key=lambda latent: (order.get(latent.kind, 3), -latent.size))),
        effects=tuple(sorted(effects, key=lambda effect: effect.excess)),
        aligned=aligned,
        images=len(training),
        held_out=len(held_out),
        provenance=provenance(
            weights=first.digest, other_weights=second.digest, null_weights=None if null is None else null.digest,
            images=opened.digest, settings=vars(chosen),
        ),
    )  # fmt: skip


def _split(count: int, settings: DiffSettings) -> tuple[list[int], list[int]]:
    held_out = round(count * settings.held_out)
    if held_out < 2 or count - held_out < 2:
        raise SAEError(f"{count} images are too few to train on some and judge on {settings.held_out:.0%} of them")
    order = np.random.default_rng(settings.seed).permutation(count).tolist()
    return sorted(order[held_out:]), sorted(order[:held_out])


def _of(block: Tensor, written: Sequence[int], which: tuple[int, int]) -> Tensor:
    parts = torch.split(block, list(written), dim=-1)
    return torch.cat([parts[i] for i in which], dim=-1)


def _kinds(scaling: LatentScaling, settings: DiffSettings) -> tuple[list[Kind], bool]:
    """The kind of each latent, and whether the two networks have one basis."""
    aligned = scaling.cosine > ALIGNED
    confirmed = (scaling.shrinkage < settings.shrinkage) & (scaling.twin_correlation < settings.twin)
    if aligned:
        confirmed &= scaling.decoupling < settings.decoupling
    kinds: list[Kind] = []
    for share, sure, count in zip(scaling.share.tolist(), confirmed.tolist(), scaling.count.tolist(), strict=True):
        if count < settings.least:
            kinds.append("dead")
        elif share > EXCLUSIVE or share < 1 - EXCLUSIVE:
            kinds.append("not confirmed" if not sure else "only first" if share > EXCLUSIVE else "only second")
        else:
            kinds.append("shared" if SHARED[0] < share < SHARED[1] else "between")
    return kinds, aligned


def _counts(title: str, scaling: LatentScaling, kinds: Sequence[Kind]) -> DiffCounts:
    of = {kind: kinds.count(kind) for kind in ("only first", "only second", "not confirmed")}
    return DiffCounts(
        comparison=title,
        shared=kinds.count("shared"),
        between=kinds.count("between"),
        only_first=of["only first"],
        only_second=of["only second"],
        not_confirmed=of["not confirmed"],
        dead=kinds.count("dead"),
        by_length_alone=sum(of.values()),
        fvu_first=float(scaling.fvu[0]),
        fvu_second=float(scaling.fvu[1]),
        cosine=None if np.isnan(scaling.cosine) else scaling.cosine,
    )


def _described(
    crosscoder: SAE, scaling: LatentScaling, kinds: Sequence[Kind], aligned: bool, codes: Tensor, images: Images,
    model: Model, site: VisionSite, labels: Tensor | None, numbers: Sequence[int],
) -> list[DiffLatent]:  # fmt: skip
    """Every latent with its measures, its class and its top images."""
    peaks, at = codes.flatten(1, 2).max(dim=1)  # (images, latents)
    means = codes.mean(dim=(1, 2))
    classes = [] if labels is None else sorted({int(label) for label in labels if label >= 0})
    areas = None
    if labels is not None and classes:
        truth = torch.stack([labels == label for label in classes])
        by_class = torch.stack([means[labels == label].mean(dim=0) for label in classes])
        areas = label_auc(peaks, truth)
    columns, field = codes.shape[2], site.layer.receptive_field
    same_grid = tuple(codes.shape[1:3]) == tuple(site.layer.size or ())
    latents = []
    for j, kind in enumerate(kinds):
        top = peaks[:, j].argsort(descending=True, stable=True)[:TOP]
        top = top[peaks[top, j] > 0]
        examples = []
        for i in top.tolist():
            y, x = divmod(int(at[i, j]), columns)
            box = (0, 0, *model.input.hw)
            if field is not None and same_grid:
                box = field.box(y, x, within=model.input.hw)
            examples.append(Example(numbers[i], images.ids[i], (y, x), float(peaks[i, j]), box))
        label = area = precision = None
        if areas is not None and labels is not None and kind != "dead":
            best = int(by_class[:, j].argmax())
            label, area = class_name(model, classes[best]), float(areas[best, j])
            precision = float((labels[top] == classes[best]).double().mean())
        decoupling = float(scaling.decoupling[j])
        latents.append(
            DiffLatent(
                latent=j,
                kind=kind,
                share=float(scaling.share[j]),
                shrinkage=float(scaling.shrinkage[j]),
                decoupling=decoupling if aligned and not np.isnan(decoupling) else None,
                twin=int(scaling.twin[j]),
                twin_correlation=float(scaling.twin_correlation[j]),
                density=float(scaling.density[j]),
                size=float(scaling.size[j]),
                label=label,
                auc=area,
                precision=precision,
                examples=tuple(examples),
            )
        )
    return latents
