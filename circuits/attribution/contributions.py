"""Contributions of parent units to the units of a layer, example by example, in two passes over the images.

The first pass finds the top activating images of each unit. The second reads the layer before on these
images and gives, for every unit and each of its examples, the contribution of each parent at that position:
gradient x activation of the unit's value before its ReLU, summed over positions,

    contribution[c] = sum_q a[c, q] d pre(unit at p) / d a[c, q].

This is exact where the network is piecewise linear without biases in between, as weight x activation is; of the
nonlinearities it takes the slopes on this image. One gradient serves many units and images: each example is a row of a
batch, rows do not interact, so the gradient of the sum of one value per row holds every row's own. A row is only the
window of the source map that the target position reads (`SourceWindow`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from circuits.attribution.kernel_composition import SourceWindow, source_window
from circuits.common.examples import Example
from circuits.dataset.peak_positions import examples as as_examples
from circuits.errors import AddressError, CircuitsError, shorten
from circuits.network.address import Unit
from circuits.network.hooks import frozen, read
from circuits.network.layer import Layer
from circuits.network.model import Model
from circuits.network.operations import Pair
from circuits.network.subnetwork import Segment
from zoo.common.autograd import outside_inference_mode
from zoo.images.sources import Images, open_images
from zoo.progress import Progress, reporter

_CHUNK = 256 * 2**20  # bytes of activations under one gradient


@dataclass(frozen=True)
class Upstream:
    """One unit's examples, and the contributions of its parents to each.

    Attributes:
        unit: address.
        examples: strongest first, one position an image.
        parents: `(n, P)` contribution of every channel of `source` at these positions.
        deeper_acts: `(n, D)` activations of a deeper layer at the matching position; None without one.
        source, deeper: names of the two layers.
    """

    unit: str
    examples: tuple[Example, ...]
    parents: NDArray[np.float32]
    deeper_acts: NDArray[np.float32] | None
    source: str
    deeper: str | None


@outside_inference_mode
def upstream(
    model: Model,
    units: Sequence[str | Unit],
    images: Any,
    *,
    source: str | None = None,
    deeper: str | None = "auto",
    examples: Mapping[str, Sequence[Example]] | None = None,
    n: int = 64,
    batch_size: int = 32,
    progress: Progress = None,
) -> list[Upstream]:
    """Contributions of parents to units of one layer on their top activating images.

    Args:
        model: the model.
        units: channels, neurons `@y,x`, class scores, or latents of one attached basis; all of one layer.
        images: images in any form that `capture` takes.
        source: the layer of parents (default: the trunk's layer before).
        deeper: the layer for `deeper_acts`; "auto" is the last layer of the trunk on the grid of the units, else the
            next one after them; None for none.
        examples: unit address -> where to look, instead of its top activating positions; one position an image.
        n: at most so many images a unit. An image on which the unit is not active does not count.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total).

    Returns:
        One for each unit, in the order of `units`; without examples where it is active on none.

    Raises:
        AddressError: an unknown unit or layer. CircuitsError: units of several layers, or without parents.
    """
    resolved = [model.unit(u) for u in units]
    if not resolved:
        raise CircuitsError("name at least one unit")
    if len({(u.layer, u.basis) for u in resolved}) != 1:
        raise CircuitsError(f"the units of one call share a layer; got {shorten(', '.join(u.short for u in resolved))}")
    dataset = open_images(images)
    first = source_layer(model, resolved[0], source)
    last = deeper_layer(model, resolved[0].layer, deeper)
    with reporter(progress, "img") as report:
        total = (1 if examples is not None else 2) * len(dataset)
        if examples is None:
            per_unit = top_examples(model, resolved, dataset, n, batch_size, lambda done, _: report(done, total))
        else:
            per_unit = [_checked(model, u, examples, dataset) for u in resolved]
        before = 0 if examples is not None else len(dataset)
        reader = _Reader(model, resolved, first, last)
        rows = reader.read(per_unit, dataset, batch_size, lambda done, _: report(before + done, total))
    return [Upstream(str(u), e, *row, first, last) for u, e, row in zip(resolved, per_unit, rows, strict=True)]


def source_layer(model: Model, unit: Unit, source: str | None) -> str:
    """The layer of a unit's parents.

    Raises:
        CircuitsError: it is the image itself, or a branch.
    """
    if source is None:
        source = model.before(unit.layer)
        if source is None:
            raise CircuitsError(f"{unit.short} is in the first layer: its parents are pixels, not units")
    layer = model.layer(source)
    if layer.part is not None:
        raise AddressError(f"the parents are all of a layer: name {layer.part[0]}, not its branch {layer.name}")
    return layer.name


def deeper_layer(model: Model, layer: str, deeper: str | None) -> str | None:
    """The layer whose activations describe what a position shows: see `upstream`."""
    if deeper is None:
        return None
    names = list(model.layers)
    if deeper == "auto":
        later = [n for n in model.trunk if names.index(n) > names.index(layer)]
        # a coarser grid blurs the position, and deeper layers vary by much that is elsewhere in the image
        same = [n for n in later if model.layers[n].size == model.layers[layer].size]
        return same[-1] if same else later[0] if later else None
    base = model.layer(deeper)
    if base.part is not None or names.index(base.name) <= names.index(layer):
        raise CircuitsError(f"deeper={shorten(deeper)!r} is a whole layer after {layer}, such as {names[-1]}")
    return base.name


def top_examples(
    model: Model,
    units: Sequence[Unit],
    dataset: Images,
    n: int,
    batch_size: int = 32,
    progress: Progress = None,
) -> list[tuple[Example, ...]]:
    """The `n` images that activate each unit of one layer most, with the position of its peak; one pass for all."""
    layer = model.layers[units[0].layer]
    values, flat = [], []
    with torch.no_grad():
        for _, batch in dataset.batches(model.input, batch_size=batch_size, progress=progress):
            peak, position = _responses(model, units, read(model, batch, [layer])[layer.name]).flatten(2).max(dim=2)
            values.append(peak.cpu())
            flat.append(position.to(torch.int32).cpu())
    table, positions = torch.cat(values), torch.cat(flat)
    order = table.argsort(dim=0, descending=True, stable=True)[:n].T.tolist()
    width = 1 if layer.size is None else layer.size[1]
    per_unit = []
    for k, unit in enumerate(units):
        # a class score counts everywhere, a map only where it is active
        active = [i for i in order[k] if layer.size is None or table[i, k] > 0]
        rows = []
        for i in active:
            f = int(positions[i, k])
            rows.append((float(table[i, k]), i, (unit.at[0], unit.at[1]) if unit.at else divmod(f, width)))
        per_unit.append(as_examples(model, unit, dataset, rows))
    return per_unit


def _responses(model: Model, units: Sequence[Unit], acts: Tensor) -> Tensor:
    """`(N, units, h, w)`, one position where units have one of their own."""
    indices = [u.index or 0 for u in units]
    basis = units[0].basis
    if basis is None:
        maps = acts[:, indices]
    else:
        rows = acts.movedim(1, -1)
        latents = model.basis(units[0].layer, basis).encode(rows.reshape(-1, rows.shape[-1]))[:, indices]
        maps = latents.view(*rows.shape[:-1], len(indices)).movedim(-1, 1)
    if any(u.at for u in units):
        fixed = maps.clone()
        for k, u in enumerate(units):
            if u.at is not None:
                fixed[:, k] = maps[:, k, u.at[0], u.at[1]][:, None, None]
        return fixed
    return maps


def _checked(
    model: Model, unit: Unit, examples: Mapping[str, Sequence[Example]], dataset: Images
) -> tuple[Example, ...]:
    for name in (str(unit), unit.short):
        if name in examples:
            break
    else:
        raise CircuitsError(f"examples= has none for {unit}; it has some for {shorten(', '.join(examples), 120)}")
    size = model.layers[unit.layer].size or (1, 1)
    for e in checked_examples(examples[name], dataset, str(unit)):
        if not (0 <= e.position[0] < size[0] and 0 <= e.position[1] < size[1]):
            raise CircuitsError(f"an example of {unit} is at {e.position}, outside the map of {size[0]}x{size[1]}")
    return tuple(examples[name])


def checked_examples(examples: Sequence[Example], dataset: Images, unit: str) -> Sequence[Example]:
    """The examples of `unit`, if they are of these images.

    Raises:
        CircuitsError: they are not.
    """
    for e in examples:
        if not 0 <= e.image < len(dataset) or dataset.ids[e.image] != e.id:
            raise CircuitsError(
                f"an example of {unit} is on an image {shorten(e.id)!r} at position {e.image}, which is not in "
                f"{shorten(dataset.name)} ({len(dataset)} images): give the images that it was found on"
            )
    return examples


@dataclass
class _Reader:
    """The second pass: contributions of parents, and the deeper layer, at the examples of all units."""

    model: Model
    units: list[Unit]
    source: str
    deeper: str | None
    segment: Segment = field(init=False)
    start: Layer = field(init=False)
    window: SourceWindow | None = field(init=False)

    def __post_init__(self) -> None:
        model, unit = self.model, self.units[0]
        name = self.source
        if model.graph is not None:
            name = model.start(name, unit.layer)
        self.start = model.layers[name]
        # latents share one run of the layer they read: its channels as they are after the ReLU
        channels = sorted({u.index or 0 for u in self.units})
        read_channels = range(model.layers[unit.layer].channels) if unit.basis is not None else channels
        self.segment = Segment(model, name, [Unit(unit.layer, c) for c in read_channels], pre=unit.basis is None)
        self.window = source_window(self.segment)

    def read(
        self, examples: Sequence[tuple[Example, ...]], dataset: Images, batch_size: int, progress: Progress
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
        parents = [np.zeros((len(e), self.start.channels), np.float32) for e in examples]
        deep = None if self.deeper is None else self.model.layers[self.deeper]
        deeper_acts = [None if deep is None else np.zeros((len(e), deep.channels), np.float32) for e in examples]
        by_image: dict[int, list[tuple[int, int]]] = {}
        for k, unit_examples in enumerate(examples):
            for row, example in enumerate(unit_examples):
                by_image.setdefault(example.image, []).append((k, row))
        layers = [self.start] if deep is None else [self.start, deep]
        for indices, batch in dataset.batches(
            self.model.input, batch_size=batch_size, indices=sorted(by_image), progress=progress
        ):
            with torch.no_grad():
                acts = read(self.model, batch, layers)
                context = self.segment.context(batch) if self.segment.bypassed else {}
            jobs = [(i, k, row) for i, index in enumerate(indices) for k, row in by_image[index]]
            for (_, k, row), values in zip(jobs, self._contributions(acts, context, jobs, examples), strict=True):
                parents[k][row] = values
            if deep is not None:
                for (_, k, row), values in zip(jobs, self._at_examples(acts[deep.name], jobs, examples), strict=True):
                    deeper_acts[k][row] = values  # type: ignore[index]
        return list(zip(parents, deeper_acts, strict=True))

    def _contributions(
        self, acts: dict[str, Tensor], context: Any, jobs: list[tuple[int, int, int]], examples: Sequence[Any]
    ) -> Iterable[NDArray[np.float32]]:
        maps = acts[self.start.name]
        area = maps.shape[2] * maps.shape[3] if self.window is None else self.window.size[0] * self.window.size[1]
        per = max(1, _CHUNK // (maps.shape[1] * area * maps.element_size()))
        for begin in range(0, len(jobs), per):
            some = jobs[begin : begin + per]
            positions = [examples[k][row].position for _, k, row in some]
            yield from self._gradient(maps, context, some, positions)

    def _gradient(
        self, maps: Tensor, context: Any, jobs: list[tuple[int, int, int]], positions: list[Pair]
    ) -> NDArray[np.float32]:
        image_of = [i for i, _, _ in jobs]
        if self.window is None:
            fed, at = maps[image_of], positions
            side = self.segment.picked(context, image_of, len(maps))
        else:
            fed, at = self.window.crops(maps, positions, images=image_of), [self.window.within(p) for p in positions]
            side = {}
        units = [self.units[k] for _, k, _ in jobs]
        with frozen(self.model.module), torch.enable_grad():
            leaf = fed.detach().clone().requires_grad_(True)
            out = self.segment.respond(leaf, side)
            ys, xs = (torch.tensor([p[a] for p in at]) for a in range(2))
            rows_here = out[torch.arange(len(jobs)), :, ys, xs]
            (gradient,) = torch.autograd.grad(self._pick(rows_here, units).sum(), leaf)
        contributions: NDArray[np.float32] = (gradient * fed).sum(dim=(2, 3)).float().cpu().numpy()
        return contributions

    def _pick(self, rows: Tensor, units: list[Unit]) -> Tensor:
        """The value of each unit, from its row `(channels,)` of the layer."""
        basis = units[0].basis
        if basis is not None:
            rows = self.model.basis(units[0].layer, basis).encode(rows)
            columns = [u.index or 0 for u in units]
        else:
            order = {u.index: c for c, u in enumerate(self.segment.units)}
            columns = [order[u.index] for u in units]
        return rows[torch.arange(len(units)), torch.tensor(columns)]

    def _at_examples(
        self, maps: Tensor, jobs: list[tuple[int, int, int]], examples: Sequence[Any]
    ) -> Iterable[NDArray[np.float32]]:
        assert self.deeper is not None
        if maps.shape[2:] == (1, 1):
            return maps[[i for i, _, _ in jobs], :, 0, 0].float().cpu().numpy()
        locate = _matching(self.model, self.units[0].layer, self.deeper, maps.shape[2:])
        points = torch.tensor([locate(examples[k][row].position) for _, k, row in jobs], dtype=maps.dtype)
        values = []
        for image, group in groupby(range(len(jobs)), key=lambda j: jobs[j][0]):
            grid = points[list(group)].to(maps.device)[None, :, None]  # (1, positions, 1, 2), x before y
            read_here = F.grid_sample(maps[image : image + 1], grid, padding_mode="border", align_corners=False)
            values.append(read_here[0, :, :, 0].T)
        return torch.cat(values).float().cpu().numpy()


def _matching(model: Model, layer: str, deeper: str, shape: Sequence[int]) -> Callable[[Pair], tuple[float, float]]:
    """From a position of one layer to the same position of the image on a deeper map, `(x, y)` in [-1, 1]."""
    near, far = model.layers[layer].receptive_field, model.layers[deeper].receptive_field
    size = model.layers[layer].size or (1, 1)

    def along(position: int, axis: int) -> float:
        if near is None or far is None:  # no receptive fields: by the share of the map
            return (position + 0.5) / size[axis] * 2 - 1
        pixel = position * near.stride[axis] + near.offset[axis] + (near.size[axis] - 1) / 2
        cell = (pixel - far.offset[axis] - (far.size[axis] - 1) / 2) / far.stride[axis]
        return (cell + 0.5) / shape[axis] * 2 - 1

    return lambda p: (along(p[1], 1), along(p[0], 0))
