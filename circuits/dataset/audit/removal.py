"""A finished audit opened again, and several of its suspects removed at once, in full or in part.

Removed by a share s, a channel x is `(1 - s) x + s m`, where m is its mean over images of other classes than the
suspect's, as in the audit; a latent of a dictionary is `(1 - s) x`. Max pools keep the order of what they pool, so
that a pool of such a channel is `(1 - s) pool(x) + s m`; what is added to it makes that `(1 - s) pool(x) + s m'`, where
m' is the mean of the pool (see `tracing.baselines`). At s = 1 this is the removal that the audit measures.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuits.dataset.accuracy import Accuracy, accuracy
from circuits.dataset.audit.audit import OTHERS, read_index
from circuits.dataset.audit.inputs import Inputs, halves
from circuits.dataset.audit.results import Audit
from circuits.errors import CircuitsError, shorten
from circuits.network.address import Unit
from circuits.network.hooks import read
from circuits.network.interventions import Add, Edit, Scale, Set
from circuits.network.layer import Layer
from circuits.network.model import Model
from circuits.network.subnetwork import channel_pools
from circuits.tracing.ablation.sources import Latents, source_of
from circuits.tracing.curves.null_circuits import matched_units
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import number, whole_number
from zoo.common.stored import named
from zoo.errors import ImageError
from zoo.images.sources import Images, open_images, reopen
from zoo.progress import Progress

BATCH = 32
RESULT = "audit.result"
"""The audit in the folder that `circuits audit --out` writes."""


def read_audit(folder: str | os.PathLike[str]) -> Audit:
    """The audit of a folder that `circuits audit --out` wrote.

    Raises:
        CircuitsError: there is none, it is not finished, or damaged.
    """
    path = Path(folder).expanduser()
    if not (path / RESULT).is_file():
        if read_index(path) is not None:
            raise CircuitsError(f"the audit in {named(path)} is not finished: the command that began it goes on")
        raise CircuitsError(
            f"{named(path)} holds no audit: make one, circuits audit MODEL --images DIR --out {path.name}"
        )
    return Audit.load(path / RESULT)


def audit_of(model: Model, folder: str | os.PathLike[str]) -> Audit:
    """The audit of a folder, if it is of this model.

    Raises:
        CircuitsError: see `read_audit`; or it is of another model, or of other weights.
    """
    audit = read_audit(folder)
    if audit.model != model.name or audit.provenance.get("weights") != model.digest:
        what = "other weights of " if audit.model == model.name else ""
        raise CircuitsError(
            f"the audit in {named(Path(folder))} is of {what}{shorten(audit.model, 60)}: audit {model.name} anew"
        )
    return audit


@dataclass(frozen=True)
class AuditedImages:
    """The images of a finished audit, as it split them.

    Attributes:
        audit: which; inputs: its images, their classes and groups, and the two halves.
    """

    audit: Audit
    inputs: Inputs

    @property
    def held_out(self) -> Images:
        """The half that the audit judged on."""
        return self.inputs.images.subset(self.inputs.judging.tolist())

    @cached_property
    def references(self) -> Mapping[int, Images]:
        """Class -> images of other classes in the finding half: removed units are at their mean over these."""
        given, seed = self.inputs, self.audit.seed
        return {
            c.class_index: given.images.subset(given.others(given.finding, c.class_index, OTHERS, seed).tolist())
            for c in self.audit.classes
        }

    def class_of(self, unit: Unit) -> int:
        """The class whose suspect a unit is; of several the one that suspects it most.

        Raises:
            CircuitsError: it is no suspect.
        """
        for suspect in self.audit.suspects:
            if suspect.unit == str(unit):
                return suspect.class_index
        known = ", ".join(dict.fromkeys(s.unit.rpartition("/")[2] for s in self.audit.suspects[:6]))
        raise CircuitsError(f"{unit.short} is no suspect of this audit of {self.audit.model}; its first are {known}")


def audited_images(model: Model, folder: str | os.PathLike[str], images: Any = None) -> AuditedImages:
    """A finished audit with its images, to go on from.

    Args:
        model: that was audited.
        folder: what `circuits audit --out` or `audit(store=...)` and `save` wrote.
        images: the images, where they are no longer where they were.

    Raises:
        CircuitsError: no finished audit, or one of other weights or images. ImageError: the images are not there.
    """
    path = Path(folder).expanduser()
    audit, index = audit_of(model, path), read_index(path)
    if index is None:
        raise CircuitsError(f"{named(path)} has no index.json, which holds the classes of the images: audit again")
    settings = index["settings"]
    if images is not None:
        opened = open_images(images)
    elif index.get("origin") is not None:
        opened = reopen(index["origin"])
    else:
        raise ImageError(f"the images of the audit in {named(path)} were given in memory: give them again (images=)")
    if not opened.digest == settings["images"] == audit.provenance.get("images_digest"):
        raise ImageError(f"{shorten(opened.name)} ({len(opened)} images) are not those of the audit in {named(path)}")
    labels, groups = np.array(settings["labels"], dtype=np.int64), settings["groups"]
    count = model.layer("logits").channels
    if (
        len(labels) != len(opened)
        or (labels < 0).any()
        or (labels >= count).any()
        or len(groups or labels) != len(labels)
    ):
        raise CircuitsError(f"{named(path)} is damaged: its classes or groups do not fit its images. Audit again")
    names = None if groups is None else tuple(map(str, groups))
    finding, judging = halves(opened, labels, names, audit.seed)
    classes = tuple(c.class_index for c in audit.classes)
    return AuditedImages(audit, Inputs(opened, labels, names, finding, judging, classes, dict(audit.omitted)))


@outside_inference_mode
def removal(
    model: Model,
    audited: AuditedImages,
    units: Mapping[str, float],
    *,
    random: int = 8,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress = None,
) -> Accuracy:
    """What the network answers on an audit's held-out images with some suspects removed, in full or in part.

    Beside it stand as many other units of the same layers, about as active, removed by the same shares, each at its own
    mean. (The audit holds a unit against those whose removal changes the layer as much, one at a time.)

    Args:
        model: that was audited.
        audited: of `audited_images`.
        units: suspect -> share that is removed, from 0 for nothing to 1.
        random: how often other units are sampled.
        batch_size: images per forward pass.
        seed: of the sample.
        progress: True for a bar, or a function of (done, total).

    Raises:
        CircuitsError: no suspect of the audit, or a share below 0 or above 1. AddressError: no such unit.
    """
    whole_number("random", random, least=0)
    chosen = _chosen(model, audited, units)
    means = _Means(model, audited)
    rng = np.random.default_rng(seed)
    others = [means.edits(_others(chosen, means, rng)) for _ in range(random)] if chosen else []
    given = audited.inputs
    return accuracy(
        model,
        audited.held_out,
        edits=means.edits(chosen),
        labels=given.labels[given.judging].tolist(),
        groups=None if given.groups is None else [given.groups[i] for i in given.judging],
        controls=others,
        batch_size=batch_size,
        seed=seed,
        progress=progress,
    )


def removal_edits(model: Model, audited: AuditedImages, units: Mapping[str, float]) -> list[Edit]:
    """The edits of `removal`, for `circuits.edit` and `circuits.export`; arguments and errors are its own."""
    return _Means(model, audited).edits(_chosen(model, audited, units))


@dataclass(frozen=True)
class _Part:
    """A unit that is removed by a share, at its mean over images of other classes than one."""

    unit: Unit
    share: float
    index: int


def _chosen(model: Model, audited: AuditedImages, units: Mapping[str, float]) -> list[_Part]:
    parts = {}
    for address, share in units.items():
        number(f"units[{address!r}]", share, least=0, most=1)
        unit = model.resolve(address)
        index = audited.class_of(unit)
        if share > 0:
            parts[unit] = _Part(unit, float(share), index)
    return list(parts.values())


def _others(parts: Sequence[_Part], means: _Means, rng: np.random.Generator) -> list[_Part]:
    """For each part another unit of its layer that is about as active."""
    units = [part.unit for part in parts]
    activity = {unit.space: means.activity(unit.space) for unit in units}
    return [replace(part, unit=other) for part, other in zip(parts, matched_units(units, activity, rng), strict=True)]


class _Means:
    """What removed units are held at, each computed once."""

    def __init__(self, model: Model, audited: AuditedImages) -> None:
        self.model, self.audited = model, audited
        self._held: dict[tuple[int, str], dict[str, Tensor]] = {}
        self._activity: dict[str, Tensor] = {}
        self._pools: dict[str, dict[str, slice]] = {}

    def activity(self, space: str) -> Tensor:
        """Mean activation of each unit on the images that are judged on, `(units,)`; not of a dictionary's error."""
        if space not in self._activity:
            source = source_of(self.model, space)
            layer = self.model.layers[source.layer]
            means = _mean(self.model, self.audited.held_out, [layer], lambda m: source.activity(source.parts(m)))
            self._activity[space] = means[layer.name][: source.width - isinstance(source, Latents)]
        return self._activity[space]

    def edits(self, parts: Sequence[_Part]) -> list[Edit]:
        """Units removed by their shares."""
        return [edit for part in parts for edit in self._of(part)]

    def _of(self, part: _Part) -> list[Edit]:
        unit, share, channel = part.unit, part.share, part.unit.index or 0
        if unit.basis is not None:
            return [Set(unit, 0.0) if share == 1 else Scale(unit, 1 - share)]
        pools = self._pools_of(unit.layer)
        means = {name: float(values[channel]) for name, values in self._held_at(part.index, unit.layer).items()}
        own = means[unit.layer]
        edits: list[Edit] = [Set(unit, own)] if share == 1 else [Scale(unit, 1 - share), Add(unit, share * own)]
        for name, channels in pools.items():
            pooled = Unit(name, channels.start + channel, unit.model)
            # what reaches this pool is at the mean of the layer, or of the pool before it
            reaching = [q for q in (unit.layer, *pools) if q != name and name in self._pools_of(q)]
            before = means[max(reaching, key=self.model.layers.position)]
            change = share * (means[name] - before)
            edits.append(Set(pooled, means[name]) if share == 1 else Add(pooled, change))
        return edits

    def _pools_of(self, layer: str) -> dict[str, slice]:
        if layer not in self._pools:
            self._pools[layer] = channel_pools(self.model, layer)
        return self._pools[layer]

    def _held_at(self, index: int, layer: str) -> dict[str, Tensor]:
        """Means of a layer's channels, and of their pools, over images of other classes than one."""
        if (index, layer) not in self._held:
            channels = {layer: slice(None), **self._pools_of(layer)}
            layers = [self.model.layers[name] for name in channels]
            means = _mean(self.model, self.audited.references[index], layers, lambda maps: maps)
            self._held[index, layer] = {name: means[name][some] for name, some in channels.items()}
        return self._held[index, layer]


def _mean(model: Model, images: Images, layers: Sequence[Layer], of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Means over images and positions of a function of the maps of layers, by layer."""
    totals: dict[str, Tensor] = {}
    with torch.no_grad():
        for _, batch in images.batches(model.input, batch_size=BATCH):
            for name, maps in read(model, batch, layers).items():
                means = of(maps).double().mean(dim=(2, 3)).sum(dim=0).cpu()
                totals[name] = totals.get(name, 0) + means / len(images)
    return totals
