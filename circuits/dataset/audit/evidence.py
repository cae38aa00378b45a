"""What a class's score stands on, unit by unit, and where on the images that evidence lies.

The score of class c is its log odds, `z_c - log sum_{k != c} exp z_k`: what is added to all logits is no evidence.
What a layer gives it is the difference between the log odds on images of c and those with the whole layer at its mean
over images of other classes. Integrated gradients share that difference out among the units (`rankings`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.attribution.class_scores import class_name
from circuits.dataset.audit.inputs import mask_names
from circuits.dataset.audit.pixels import by_cell, by_object, object_masks
from circuits.dataset.labels.shares import cell_edges, cell_sums
from circuits.network.address import Unit
from circuits.network.hooks import frozen, read
from circuits.network.layer import Layer
from circuits.network.model import Model
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.ablation.sources import Latents, source_of
from circuits.tracing.baselines import Baseline, Mean, Zero
from circuits.tracing.curves.smallest import ranked_circuit
from circuits.tracing.rankings.unit_scores import unit_scores
from circuits.tracing.target import Target
from zoo.images.sources import Images


@dataclass(frozen=True)
class ClassOdds(Target):
    """The log odds of a class, `(N, 1, 1)`."""

    index: int = 0

    def values(self, out: Tensor) -> Tensor:
        """From all class scores `(N, classes, h, w)`; of class maps, those of their means."""
        scores = out.flatten(2).mean(2)
        odds: Tensor = scores[:, self.index] - self.rest(_without(scores, self.index))
        return odds[:, None, None]

    def rest(self, others: Tensor) -> Tensor:
        """One number `(N,)` for the scores of all other classes."""
        return others.logsumexp(dim=1)


@dataclass(frozen=True)
class ClassMargin(ClassOdds):
    """How much the score of a class exceeds the largest other: above 0 where it is the network's answer."""

    def rest(self, others: Tensor) -> Tensor:
        return others.amax(dim=1)


def _without(scores: Tensor, index: int) -> Tensor:
    return torch.cat([scores[:, :index], scores[:, index + 1 :]], dim=1)


def class_units(model: Model) -> tuple[Unit, ...]:
    """The class scores of a model."""
    logits = model.layer("logits")
    return tuple(Unit(logits.name, i, model.name) for i in range(logits.channels))


def odds_of(model: Model, index: int) -> ClassOdds:
    """The log odds of a class as a target."""
    return ClassOdds(f"log odds of {model.logits}:{index}", model.logits, class_units(model), index=index)


def margin_of(model: Model, index: int) -> ClassMargin:
    """The margin of a class as a target."""
    return ClassMargin(f"margin of {model.logits}:{index}", model.logits, class_units(model), index=index)


def baseline_for(model: Model, space: str, others: Images) -> Baseline:
    """What a unit is set to where it is removed: channels at their mean over images of other classes, latents at zero.

    A channel after a ReLU is rarely zero, and zero would be less than any image gives; at its mean over the images of
    other classes it tells nothing about the class. The latents of a dictionary are zero on most images, and their mean
    before a max pool is not defined.
    """
    return Zero() if isinstance(source_of(model, space), Latents) else Mean(images=others)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the units of a layer give a class.

    Attributes:
        space: the layer, or dictionary; ablation: on images of the class, the others at their baseline.
        shares: `(units,)` of the whole, signed; members: the smallest set, by rank.
        attribution: `(N, units)` positive part of activation x gradient of the log odds, over all positions.
        attribution_off: the same at positions off the object's mask; None without masks, NaN for images without one.
        pixels: what the pixels of the object and those of the background give each unit, `(N, units)` both, times its
            sign; NaN for images without a mask; None without masks.
        cells: what each cell of a grid over the image gives each unit, `(N, units, cells)`, likewise, 0 where it takes
            away; None with masks.
        signs: `(units,)` 1 where a unit is more active on images of the class than on others, on average, else -1: it
            then acts by being low.
        rectified: `(units,)` whether a unit is never below zero: where such a one is low, its cue is absent.
        peaks, other_peaks: `(N, units)` largest activation on each image of the class, and of the others; of units that
            act by being low the mean activation, times -1. The larger, the more of its cue is there.
        change: `(units,)` root mean square of what removal takes away on images of the class.
    """

    space: str
    ablation: Ablation
    shares: Tensor
    members: tuple[int, ...]
    attribution: Tensor
    attribution_off: Tensor | None
    pixels: tuple[Tensor, Tensor] | None
    cells: Tensor | None
    signs: Tensor
    rectified: Tensor
    peaks: Tensor
    other_peaks: Tensor
    change: Tensor


def class_evidence(
    model: Model, spaces: Sequence[str], index: int, own: Images, others: Images, *, keep: float, steps: int,
    batch_size: int, seed: int, report: Callable[[int], None] = lambda step: None,
) -> dict[str, Evidence]:  # fmt: skip
    """What the units of some layers give a class; a layer that raises its log odds by nothing is left out.

    Args:
        model: the model.
        spaces: layers, or dictionaries.
        index: of the class.
        own: images of the class; others: of other classes.
        keep, steps, batch_size, seed: see `audit`.
        report: called with 1 when the pixels have been asked, and with one more after each layer.

    Raises:
        ConstantError: the log odds are the same on all images of the class.
    """
    parts = None if own.annotations is None else mask_names(own, class_name(model, index))
    masks = None if own.annotations is None else object_masks(own, parts, model)
    ablations = {}
    for space in spaces:
        baseline = baseline_for(model, space, others)
        ablation = Ablation(model, odds_of(model, index), [space], own, baseline, measure="mean", batch_size=batch_size)
        gain = float((ablation.clean - ablation.nothing).mean())
        if gain > 1e-6 * float(ablation.clean.abs().mean()):
            ablations[space] = ablation
    if not ablations:
        return {}
    partners = others.subset(np.random.default_rng([seed, index]).integers(len(others), size=len(own)).tolist())
    if masks is None:
        cells = by_cell(model, list(ablations), own, partners, batch_size)
        pixels = {}
    else:
        cells = {}
        known = np.flatnonzero(~np.isnan(masks).any(axis=(1, 2)))
        halves = by_object(
            model,
            list(ablations),
            own.subset(known.tolist()),
            partners.subset(known.tolist()),
            masks[known],
            batch_size,
        )
        pixels = {space: tuple(_spread(part, known, len(own)) for part in both) for space, both in halves.items()}
    other_levels = levels_on(model, list(ablations), others, batch_size)
    report(1)
    layers = {}
    for done, (space, ablation) in enumerate(ablations.items(), start=2):
        layers[space] = _of_layer(
            ablation, space, keep, steps, masks, pixels.get(space), cells.get(space), other_levels[space]
        )
        report(done)
    return layers


def _spread(values: Tensor, known: NDArray[np.int64], count: int) -> Tensor:
    """Rows for all images, NaN where nothing is known."""
    rows = values.new_full((count, *values.shape[1:]), torch.nan)
    rows[torch.from_numpy(known)] = values
    return rows


def _of_layer(
    ablation: Ablation, space: str, keep: float, steps: int, masks: NDArray[np.float32] | None,
    pixels: Any, cells: Tensor | None, other_levels: Levels,
) -> Evidence:  # fmt: skip
    signed = unit_scores(ablation, "integrated", steps=steps)[space].signed
    members = ranked_circuit(ablation, {space: signed}, keep)[space]
    source = ablation.sources[space]
    squares, rows = torch.zeros(len(signed), dtype=torch.float64), []
    rectified = torch.ones(len(signed), dtype=torch.bool)
    for batch in ablation.batches():
        moved = source.activity(batch.parts - batch.baselines[space])
        squares += moved.double().pow(2).mean(dim=(2, 3)).sum(dim=0).cpu()
        activity = source.activity(batch.parts)
        rectified &= (activity >= 0).all(dim=0).all(dim=1).all(dim=1).cpu()
        rows.append(levels_of(activity))
    levels = Levels.joined(rows)
    signs = torch.where(levels.means.mean(dim=0) >= other_levels.means.mean(dim=0), 1.0, -1.0)
    attribution, attribution_off = positive_attribution(ablation, masks)
    return Evidence(
        space=space,
        ablation=ablation,
        shares=signed / signed.clamp(min=0).sum(),
        members=tuple(sorted(members, key=lambda u: -float(signed[u]))),
        attribution=attribution,
        attribution_off=attribution_off,
        pixels=None if pixels is None else tuple(signs * part for part in pixels),
        cells=None if cells is None else (signs[:, None] * cells).clamp(min=0),
        signs=signs,
        rectified=rectified,
        peaks=levels.cues(signs),
        other_peaks=other_levels.cues(signs),
        change=(squares / len(ablation.images)).sqrt(),
    )


class Levels(NamedTuple):
    """Largest and mean activation of each unit on each image, `(N, units)`."""

    peaks: Tensor
    means: Tensor

    @staticmethod
    def joined(parts: Sequence[Levels]) -> Levels:
        """Of all images of several batches."""
        return Levels(torch.cat([p.peaks for p in parts]), torch.cat([p.means for p in parts]))

    def cues(self, signs: Tensor) -> Tensor:
        """How much of a unit's cue is there; see `Evidence`."""
        return torch.where(signs > 0, self.peaks, -self.means)


def levels_of(activity: Tensor) -> Levels:
    """From maps `(N, units, h, w)`."""
    return Levels(activity.amax(dim=(2, 3)).cpu(), activity.mean(dim=(2, 3)).cpu())


def levels_on(model: Model, spaces: Sequence[str], images: Images, batch_size: int) -> dict[str, Levels]:
    """Those of the units of some layers on images; the error of a dictionary is its last unit."""
    sources = {space: source_of(model, space) for space in spaces}
    layers = {source.layer: model.layers[source.layer] for source in sources.values()}
    rows: dict[str, list[Levels]] = {space: [] for space in spaces}
    with torch.no_grad():
        for _, batch in images.batches(model.input, batch_size=batch_size):
            maps = read(model, batch, list(layers.values()))
            for space, source in sources.items():
                rows[space].append(levels_of(source.activity(source.parts(maps[source.layer]))))
    return {space: Levels.joined(parts) for space, parts in rows.items()}


def positive_attribution(ablation: Ablation, masks: NDArray[np.float32] | None) -> tuple[Tensor, Tensor | None]:
    """Positive part of activation x gradient of each unit on each image `(N, units)`, and that off the object.

    Args:
        ablation: of one layer; masks: of the objects, `(N, H, W)`, NaN for images without.
    """
    model, (space,) = ablation.model, ablation.layers
    source = ablation.sources[space]
    inside = None if masks is None else _shares(model, model.layers[source.layer], masks)
    totals, offs, first = [], [], 0
    with frozen(model.module), torch.enable_grad():
        for batch in ablation.batches():
            leaf = batch.acts.detach().clone().requires_grad_(True)
            odds = ablation.target.values(ablation.segment.respond(leaf, batch.context))
            (gradient,) = torch.autograd.grad(odds.sum(), leaf)
            maps = source.by_unit(gradient, batch.parts.detach()).clamp(min=0).flatten(2).cpu()  # (n, units, positions)
            totals.append(maps.sum(dim=2))
            if inside is not None:
                offs.append(torch.einsum("nup,np->nu", maps, 1 - inside[first : first + len(maps)]))
            first += len(maps)
    return torch.cat(totals), torch.cat(offs) if offs else None


def _shares(model: Model, layer: Layer, masks: NDArray[np.float32]) -> Tensor:
    """Share of the cell of each position of a layer that a mask covers, `(N, positions)`."""
    rows, columns = (cell_edges(layer, axis, length) for axis, length in enumerate(model.input.hw))
    area = np.outer(np.diff(rows), np.diff(columns)).ravel()
    return torch.from_numpy(np.stack([cell_sums(mask, rows, columns) / area for mask in masks])).float()
