"""Label units by the parts that they detect, on images whose parts are outlined."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.common.untrained import untrained
from circuits.dataset.labels.results import CONTROLS, LayerLabels, PartLabels
from circuits.dataset.labels.scoring import Halves, Scores, resampled, score_units
from circuits.dataset.labels.shares import part_masks, part_shares
from circuits.dataset.part_labels import part_names
from circuits.errors import CircuitsError
from circuits.network.basis import latent_maps
from circuits.network.hooks import read
from circuits.network.layer import Layer
from circuits.network.model import Model
from circuits.network.responses import layer_or_basis
from zoo.common import checks
from zoo.images.coco import open_annotated
from zoo.images.sources import Images, open_images
from zoo.progress import Progress, reporter

_FEWEST = 5
"""Images of each half that show a part: with fewer, too many bootstrap draws would be without it."""
_TOP = 20
"""Units a part and a layer whose intervals are computed besides those of each unit's best part."""
_MEMORY = 2**30
"""Bytes of activations that are held at a time."""


@dataclass(frozen=True, eq=False)
class _Block:
    """Some columns of what is judged in a layer: its units, or a control.

    Attributes:
        space: the layer or basis; control: which of `CONTROLS`, None for the units themselves.
        columns: how many; read: maps `(n, C, h, w)` -> `(n, columns, h, w)`.
    """

    space: str
    layer: Layer
    control: str | None
    columns: int
    read: Callable[[Tensor], Tensor]


def label(
    model: Model,
    images: Any,
    *,
    annotations: str | os.PathLike[str] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    layers: Sequence[str] | None = None,
    draws: int = 200,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> PartLabels:
    """Which part of a thing each unit detects, by masks.

    Every unit of the chosen layers is scored against every part by AUC and IoU over pixels (`circuits.dataset.labels`
    says how masks are brought to the grid of a layer). A random half of the images chooses: each unit's part, each
    part's units, the thresholds. The other half reports, with bootstrap intervals over images. Controls are chosen
    and reported alike: as many random directions in the same layer, the same units of the untrained network, and the
    masks of other images.

    Args:
        model: the model.
        images: images with parts: a folder with a COCO file as `annotations`, or `scenes:500`.
        annotations: a COCO file with polygons or run lengths.
        groups: name -> categories of the COCO file that together are one part.
        layers: names of layers with positions, or of bases attached to them (`mixed4c~sae`); by default all of the
            trunk that have positions.
        draws: bootstrap samples of the images.
        seed: of the halves, the controls and the bootstrap.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total) of what is judged.

    Raises:
        AddressError: unknown layer. ImageError: images and annotations do not fit together, or are damaged.
        CircuitsError: a layer without positions, images without parts, or no part that enough images show.

    Source: Bau et al. 2017, "Network Dissection", arXiv 1704.05796, with the threshold chosen on other images.

    >>> label(load("scenes"), "scenes:60", layers=["mixed3b"]).best("wheel")[0].unit
    'scenes/mixed3b:1'
    """
    checks.whole_number("draws", draws, least=2)
    if groups and annotations is None:
        raise CircuitsError("groups= puts categories of a COCO file together: give it, annotations=FILE")
    dataset = open_images(images) if annotations is None else open_annotated(images, annotations, groups=groups)
    spaces = [layer_or_basis(model, name) for name in _names(model, layers)]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(dataset), generator=generator)
    halves = order[: len(order) // 2].sort().values, order[len(order) // 2 :].sort().values
    image_counts, omitted = _image_counts(dataset, halves)
    parts = list(image_counts)
    weights = _draws(draws, len(halves[1]), generator)
    shares = {name: part_shares(model, layer, dataset, parts) for name, layer in _layers(model, spaces).items()}
    masks = {name: Halves.of(s.inside, s.area, halves, generator) for name, s in shares.items()}
    scores: dict[tuple[str, str | None], list[Scores]] = {}
    intervals: dict[str, list[Tensor]] = {space: [] for space in spaces}
    blank = untrained(model, seed=seed)
    untrained_blocks = [block for space in spaces for block in _unit_blocks(blank, space, dataset, CONTROLS[1])]
    networks = ((model, _blocks(model, spaces, dataset, generator)), (blank, untrained_blocks))
    total = sum(len(blocks) for _, blocks in networks)
    done = 0
    with reporter(progress, "layer") as report, torch.no_grad():
        for network, blocks in networks:
            for block, acts in _read(network, dataset, blocks, batch_size):
                mask = masks[block.layer.name]
                result = score_units(acts, mask, shuffled=block.control is None)
                if block.control is None:
                    shuffled = Scores(result.auc[:, len(parts) :], result.iou[:, len(parts) :], result.threshold)
                    scores.setdefault((block.space, CONTROLS[2]), []).append(shuffled)
                    first = slice(len(parts))
                    result = Scores(result.auc[:, first], result.iou[:, first], result.threshold[first])
                    intervals[block.space].append(_intervals(acts, mask, result, weights))
                scores.setdefault((block.space, block.control), []).append(result)
                done += 1
                report(done, total)
    return PartLabels(
        model=model.name,
        weights=model.digest,
        parts=tuple(parts),
        image_counts=image_counts,
        omitted=omitted,
        images={
            "name": dataset.name, "digest": dataset.digest, "count": len(dataset), "origin": dataset.origin,
        },
        layers={space: _layer_labels(space, scores, intervals[space]) for space in spaces},
        provenance=provenance(
            weights=model.digest, images=dataset.digest, annotations=None if annotations is None else str(annotations),
            groups={name: list(members) for name, members in (groups or {}).items()}, draws=draws, seed=seed,
        ),
    )  # fmt: skip


def _names(model: Model, layers: Sequence[str] | None) -> list[str]:
    if layers is None:
        return [name for name in model.trunk if model.layers[name].size is not None]
    if isinstance(layers, str) or not layers:
        raise CircuitsError("layers= is a list of names, with at least one")
    return list(dict.fromkeys(layers))


def _layers(model: Model, spaces: Sequence[str]) -> dict[str, Layer]:
    return {layer.name: layer for layer in (model.layers[model.resolve(space).layer] for space in spaces)}


def _image_counts(dataset: Images, halves: tuple[Tensor, Tensor]) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Part -> images of each half that show it; and the parts that too few show, with the reason."""
    names = part_names(dataset)
    visible = [set(part_masks(dataset, i)) for i in range(len(dataset))]
    image_counts, omitted = {}, {}
    for name in names:
        first, second = (sum(name in visible[i] for i in half.tolist()) for half in halves)
        if min(first, second) < _FEWEST:
            omitted[name] = f"{first} and {second} images of the two halves show it, fewer than {_FEWEST}"
        else:
            image_counts[name] = (first, second)
    if not image_counts:
        least = ", ".join(f"{name} ({reason})" for name, reason in list(omitted.items())[:3])
        raise CircuitsError(f"no part of {dataset.name} is shown often enough: {least or 'there is none'}")
    return image_counts, omitted


def _draws(draws: int, images: int, generator: torch.Generator) -> Tensor:
    """`(draws, images)` how often each image is in a bootstrap sample."""
    rows = torch.randint(images, (draws, images), generator=generator)
    return torch.zeros(draws, images, dtype=torch.float64).scatter_add_(1, rows, torch.ones_like(rows).double())


def _blocks(model: Model, spaces: Sequence[str], dataset: Images, generator: torch.Generator) -> list[_Block]:
    """The units, and as many random directions as the layer has channels: its axes, rotated at random."""
    blocks = []
    for space in spaces:
        blocks += _unit_blocks(model, space, dataset, None)
        layer = model.layers[model.resolve(space).layer]
        square = torch.randn(layer.channels, layer.channels, generator=generator)
        rotation = torch.linalg.qr(square).Q.to(model.device)
        blocks += [
            _Block(space, layer, CONTROLS[0], len(range(layer.channels)[columns]), _rotated(rotation[:, columns]))
            for columns in _columns(layer, layer.channels, len(dataset))
        ]
    return blocks


def _unit_blocks(model: Model, space: str, dataset: Images, control: str | None) -> list[_Block]:
    unit = model.resolve(space)
    layer = model.layers[unit.layer]
    basis = None if unit.basis is None else model.basis(unit.layer, unit.basis)
    count = layer.channels if basis is None else len(basis.read)
    encode = None if basis is None else latent_maps(basis.encode)
    return [
        _Block(space, layer, control, len(range(count)[columns]), _chosen(columns, encode))
        for columns in _columns(layer, count, len(dataset))
    ]


def _columns(layer: Layer, count: int, images: int) -> list[slice]:
    """Ranges of units whose activations on all images fit into memory."""
    assert layer.size is not None
    most = max(1, _MEMORY // (4 * images * layer.size[0] * layer.size[1]))
    return [slice(start, start + most) for start in range(0, count, most)]


def _chosen(columns: slice, encode: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor]:
    return lambda maps: (maps if encode is None else encode(maps))[:, columns]


def _rotated(directions: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda maps: torch.einsum("nchw,ck->nkhw", maps.float(), directions)


def _read(model: Model, dataset: Images, blocks: Sequence[_Block], batch_size: int) -> Iterator[tuple[_Block, Tensor]]:
    """Each block with its activations `(N, positions, columns)`; as many in one pass over the images as fit."""
    waiting = list(blocks)
    while waiting:
        group, size = [waiting.pop(0)], 0
        size = _bytes(group[0], len(dataset))
        while waiting and size + _bytes(waiting[0], len(dataset)) <= _MEMORY:
            size += _bytes(waiting[0], len(dataset))
            group.append(waiting.pop(0))
        acts = [torch.empty(len(dataset), _bytes(b, 1) // 4 // b.columns, b.columns) for b in group]
        layers = list({block.layer.name: block.layer for block in group}.values())
        for indices, batch in dataset.batches(model.input, batch_size=batch_size):
            maps = read(model, batch, layers)
            for block, values in zip(group, acts, strict=True):
                values[indices] = block.read(maps[block.layer.name]).float().flatten(2).mT.cpu()
        while group:
            yield group.pop(0), acts.pop(0)


def _bytes(block: _Block, images: int) -> int:
    assert block.layer.size is not None
    return 4 * images * block.layer.size[0] * block.layer.size[1] * block.columns


def _intervals(acts: Tensor, halves: Halves, scores: Scores, weights: Tensor) -> Tensor:
    """`(4, P, units)`: low and high of AUC and of IoU, for each unit's best part and the best units of each part."""
    parts, units = scores.threshold.shape
    best = {(int(k), i) for i, k in enumerate(scores.auc[0].argmax(dim=0))}
    top = scores.auc[0].topk(min(_TOP, units), dim=1).indices.tolist()
    pairs = sorted(best | {(k, i) for k in range(parts) for i in top[k]}, key=lambda pair: pair[1])
    bounds = torch.full((4, parts, units), torch.nan, dtype=torch.float64)
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    with_threshold = [(k, i, float(scores.threshold[k, i])) for k, i in pairs]
    samples = resampled(acts[halves.images[1]], halves.inside[1], halves.area, with_threshold, weights)
    for (k, i), (auc, iou) in zip(pairs, samples, strict=True):
        bounds[:2, k, i], bounds[2:, k, i] = auc.nanquantile(ends), iou.nanquantile(ends)
    return bounds


def _layer_labels(
    space: str, scores: Mapping[tuple[str, str | None], list[Scores]], intervals: list[Tensor]
) -> LayerLabels:
    own = Scores.joined(scores[space, None])
    bounds = torch.cat(intervals, dim=2).numpy()
    controls = [Scores.joined(scores[space, control]) for control in CONTROLS]
    auc, iou = (np.stack([_held_out(getattr(control, name)) for control in controls]) for name in ("auc", "iou"))
    return LayerLabels(
        own.auc.numpy(), own.iou.numpy(), own.threshold.double().numpy(), bounds[:2], bounds[2:], auc, iou
    )


def _held_out(scores: Tensor) -> Any:
    """`(P,)` on the second half, of the unit that is best on the first, from `(2, P, units)`."""
    return scores[1].gather(1, scores[0].argmax(dim=1, keepdim=True))[:, 0].numpy()
