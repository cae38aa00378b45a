"""The peak of every channel of some layers on every image, in one pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from circuits.common.examples import Example
from circuits.common.kept_activations import KeptActivations, rows_of
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.basis import latent_maps
from circuits.network.hooks import read
from circuits.network.layer import Layer
from circuits.network.model import Model
from circuits.network.operations import Pair
from circuits.network.responses import channels_together, peaks, respond
from zoo.images.sources import Images, open_images
from zoo.progress import Progress


class PeakPosition(NamedTuple):
    """One image, the position where a unit was read on it, and its response there."""

    image: int
    position: Pair
    value: float


class Peaks:
    """Peak and its position for every channel of some layers on every image.

    Attributes:
        images: the images, in order.
        activations: layer -> activations `(n, C, h, w)` of the images, batch by batch; None where they are too large.
    """

    activations: dict[str, list[Tensor]] | None

    def __init__(self, model: Model, images: Images) -> None:
        self.model, self.images = model, images
        self._values: dict[str, list[Tensor]] = {}
        self._flat: dict[str, list[Tensor]] = {}
        self._totals: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._widths: dict[str, int] = {}
        self._target: dict[Unit, list[PeakPosition]] = {}
        self.activations, self._needed_alone = {}, False

    def add(self, layer: str, acts: Tensor) -> None:
        """Take in the activations `(n, C, h, w)` of the next images."""
        values, flat = acts.flatten(2).max(dim=2)
        self._values.setdefault(layer, []).append(values.cpu())
        self._flat.setdefault(layer, []).append(flat.to(torch.int32).cpu())
        total = acts.sum(dim=(0, 2, 3)).cpu().double()
        self._totals[layer] = self._totals.get(layer, torch.zeros_like(total)) + total
        self._counts[layer] = self._counts.get(layer, 0) + acts.shape[0] * acts.shape[2] * acts.shape[3]
        self._widths[layer] = acts.shape[3]

    def hold(self, acts: Mapping[str, Tensor], needed: Sequence[str], most: int) -> None:
        """Hold the activations of the next images, as long as all together have at most `most` bytes.

        With more, those of the layers that are not needed are dropped first.
        """
        if self.activations is None:
            return
        for name in needed if self._needed_alone else acts:
            self.activations.setdefault(name, []).append(acts[name])
        if self._held_bytes() > most and not self._needed_alone:
            self._needed_alone = True
            self.activations = {name: self.activations[name] for name in needed}
        if self._held_bytes() > most:
            self.activations = None

    def _held_bytes(self) -> int:
        return sum(t.element_size() * t.nelement() for batches in (self.activations or {}).values() for t in batches)

    def held(self, indices: Sequence[int], layers: Sequence[str]) -> dict[str, Tensor] | None:
        """Activations `(n, C, h, w)` of layers on some images, in the order given; None where they are not held."""
        if self.activations is None or any(name not in self.activations for name in layers):
            return None
        first, row_of = 0, dict[int, tuple[int, int]]()
        for number, batch in enumerate(self.activations[layers[0]]):
            row_of |= {first + row: (number, row) for row in range(len(batch))}
            first += len(batch)
        rows = [row_of[index] for index in indices]
        return {name: torch.stack([self.activations[name][number][row] for number, row in rows]) for name in layers}

    def add_target(self, unit: Unit, indices: Sequence[int], acts: Tensor) -> None:
        """Take in a unit that is no plain channel, or has a position of its own."""
        response = respond(self.model, unit, acts)
        rows = enumerate(zip(indices, peaks(response, unit), strict=True))
        new = [PeakPosition(n, (y, x), float(response[i, y, x])) for i, (n, (y, x)) in rows]
        self._target.setdefault(unit, []).extend(new)

    @property
    def layers(self) -> list[str]:
        """Layers that were read."""
        return list(self._values)

    def maxima(self, layer: str) -> Tensor:
        """Peak of every channel on every image, `(N, C)`."""
        return torch.cat(self._values[layer])

    def means(self, layer: str) -> Tensor:
        """Mean of every channel over images and positions, `(C,)`."""
        return (self._totals[layer] / self._counts[layer]).float().to(self.model.device)

    def strongest(self, unit: Unit, *, limit: int, active_only: bool = True) -> list[PeakPosition]:
        """The `limit` images on which `unit` responds most, with the position of its peak; strongest first.

        Raises:
            CircuitsError: it is active (above zero; a class score counts everywhere) on none of them.
        """
        if unit in self._target:
            rows = list(self._target[unit])
        else:
            assert unit.index is not None
            width = self._widths[unit.space]
            values = torch.cat(self._values[unit.space])[:, unit.index].tolist()
            flat = torch.cat(self._flat[unit.space])[:, unit.index].tolist()
            rows = [
                PeakPosition(i, (f // width, f % width), v) for i, (v, f) in enumerate(zip(values, flat, strict=True))
            ]
        if active_only and self.model.layers[unit.layer].size is not None:
            rows = [r for r in rows if r.value > 0]
            if not rows:
                raise CircuitsError(
                    f"{unit} is active on none of the {len(self.images)} images of {self.images.name}; "
                    "give images that activate it, or look for another unit with circuits find"
                )
        rows.sort(key=lambda r: (-r.value, r.image))
        return rows[:limit]


def layer_peaks(
    model: Model,
    images: Any,
    layers: Sequence[str],
    target: Unit | None = None,
    *,
    also: Sequence[str] = (),
    keep: Sequence[str] = (),
    most: int = 1 << 30,
    activations: KeptActivations | None = None,
    batch_size: int = 32,
    progress: Progress = None,
) -> Peaks:
    """Peaks of all units of `layers` (the layers feeding their weights, and `also`) on all images, in one pass.

    Args:
        model, images: of what.
        layers: layers, or bases attached to them (`mixed3b~sae`); target: a unit of the first that may be a latent.
        also: further layers.
        keep: layers among these whose activations are held, see `Peaks.activations`, and with them those of all others
            as long as there is room; most: bytes of them, with more of which none are.
        activations: those on disk, instead of which those of the same images and layers are read, and to which they go.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total).
    """
    dataset = open_images(images)
    result = Peaks(model, dataset)
    spaces = {name: model.resolve(name) for name in layers if "~" in name}
    plain = [spaces[name].layer if name in spaces else name for name in layers]
    names = dict.fromkeys([*plain, *starts(model, plain), *also])
    to_read = [model.layers[n] for n in names]
    special = target is not None and (target.basis is not None or target.at is not None)
    if activations is not None and (not keep or special or spaces or not _may_keep(model, dataset, to_read, most)):
        activations = None
    with torch.no_grad():
        if activations is not None:
            passes = _with_kept(model, dataset, list(names), activations, batch_size, progress)
        else:
            passes = _pass(model, dataset, to_read, batch_size, progress, together=bool(keep))
        for indices, acts in passes:
            for name, values in acts.items():
                result.add(name, values)
            if keep:
                result.hold(acts, keep, most)
            for name, space in spaces.items():
                result.add(name, latent_maps(model.basis(space.layer, str(space.basis)).encode)(acts[space.layer]))
            if special and target is not None:
                result.add_target(target, indices, acts[target.layer])
    return result


_Passes: TypeAlias = Iterator[tuple[Sequence[int], dict[str, Tensor]]]


def _pass(
    model: Model, dataset: Images, to_read: Sequence[Layer], batch_size: int, progress: Progress, *, together: bool
) -> _Passes:
    for indices, batch in dataset.batches(model.input, batch_size=batch_size, progress=progress):
        yield indices, read(model, channels_together(model, batch) if together else batch, to_read, clone=True)


def _may_keep(model: Model, dataset: Images, layers: Sequence[Layer], most: int) -> bool:
    """Whether activations are those of the network as it is, in the type that is kept, and not too large to be held."""
    if model.device.type != "cpu" or model.dtype != torch.float32 or model.node_edits or model.graph is None:
        return False
    return 4 * len(dataset) * sum(math.prod((at.channels, *(at.size or (1, 1)))) for at in layers) <= most


def _with_kept(
    model: Model,
    dataset: Images,
    names: Sequence[str],
    activations: KeptActivations,
    batch_size: int,
    progress: Progress,
) -> _Passes:
    """Activations of images that are kept, and of the others, which are then kept where they are most of the images."""
    rows, images = {name: activations.rows(name) for name in names}, [digest.hex() for digest in dataset.contents()]
    there = set.intersection(*(set(r.images) if r is not None else set[str]() for r in rows.values()))
    missing = [i for i, image in enumerate(images) if image not in there]
    ready = [i for i, image in enumerate(images) if image in there]
    acts = {name: [r.dense([images[i] for i in ready])] if r and ready else [] for name, r in rows.items()}
    if missing:
        layers = [model.layers[name] for name in names]
        for _, values in _pass(model, dataset.subset(missing), layers, batch_size, progress, together=True):
            for name in names:
                acts[name].append(values[name])
    order = [*ready, *missing]
    rows_in_order = sorted(range(len(order)), key=order.__getitem__)
    joined = {}
    for name in names:
        maps = torch.cat(acts.pop(name))
        joined[name] = (
            maps if rows_in_order == list(range(len(order))) else channels_together(model, maps[rows_in_order])
        )
        if 2 * len(missing) > len(order):
            activations.write(name, rows_of(model.digest, images, joined[name]))
    for start in range(0, len(order), batch_size):
        indices = range(start, min(start + batch_size, len(order)))
        yield indices, {name: maps[start : indices.stop] for name, maps in joined.items()}


def starts(model: Model, layers: Sequence[str]) -> list[str]:
    """The layers that feed the weights from each of `layers` to the one before it in this list, later ones first."""
    if model.graph is None:
        return []
    return [model.start(source, after) for source, after in zip(layers[1:], layers, strict=False)]


def examples(model: Model, unit: Unit, dataset: Images, rows: Sequence[tuple[float, int, Pair]]) -> tuple[Example, ...]:
    """`(value, image index, (y, x))` rows as examples with receptive-field boxes, in the order given."""
    size = model.input.hw
    field = model.receptive_field(unit)
    result = []
    for value, index, (y, x) in rows:
        box = (0, 0, *size) if field is None else field.box(y, x, within=size)
        result.append(Example(index, dataset.ids[index], (y, x), value, box))
    return tuple(result)
