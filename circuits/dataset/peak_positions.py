"""Where units fire: the peak of every channel of some layers on every picture, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from circuits.common.examples import Example
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.hooks import read
from circuits.network.model import Model
from circuits.network.operations import Pair
from circuits.network.responses import peaks, respond
from zoo.images.sources import Images, open_images
from zoo.progress import Progress


class Place(NamedTuple):
    """One picture, the position where a unit was read on it, and its response there."""

    image: int
    position: Pair
    value: float


class Peaks:
    """Peak and its position for every channel of some layers on every picture.

    Attributes:
        pictures: the pictures, in order.
    """

    def __init__(self, model: Model, pictures: Images) -> None:
        self.model, self.pictures = model, pictures
        self._values: dict[str, list[Tensor]] = {}
        self._flat: dict[str, list[Tensor]] = {}
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._widths: dict[str, int] = {}
        self._target: dict[Unit, list[Place]] = {}

    def add(self, layer: str, acts: Tensor) -> None:
        """Take in the activations `(n, C, h, w)` of the next pictures."""
        values, flat = acts.flatten(2).max(dim=2)
        self._values.setdefault(layer, []).append(values.cpu())
        self._flat.setdefault(layer, []).append(flat.to(torch.int32).cpu())
        total = acts.sum(dim=(0, 2, 3)).cpu().double()
        self._sums[layer] = self._sums.get(layer, torch.zeros_like(total)) + total
        self._counts[layer] = self._counts.get(layer, 0) + acts.shape[0] * acts.shape[2] * acts.shape[3]
        self._widths[layer] = acts.shape[3]

    def add_target(self, unit: Unit, indices: Sequence[int], acts: Tensor) -> None:
        """Take in a unit that is no plain channel, or has a position of its own."""
        response = respond(self.model, unit, acts)
        rows = enumerate(zip(indices, peaks(response, unit), strict=True))
        new = [Place(n, (y, x), float(response[i, y, x])) for i, (n, (y, x)) in rows]
        self._target.setdefault(unit, []).extend(new)

    @property
    def layers(self) -> list[str]:
        """Layers that were looked at."""
        return list(self._values)

    def maxima(self, layer: str) -> Tensor:
        """Peak of every channel on every picture, `(N, C)`."""
        return torch.cat(self._values[layer])

    def means(self, layer: str) -> Tensor:
        """Mean of every channel over pictures and positions, `(C,)`."""
        return (self._sums[layer] / self._counts[layer]).float().to(self.model.device)

    def places(self, unit: Unit, *, limit: int, active_only: bool = True) -> list[Place]:
        """The `limit` pictures on which `unit` responds most, with the position of its peak; strongest first.

        Raises:
            CircuitsError: it is active (above zero; a class score counts everywhere) on none of them.
        """
        if unit in self._target:
            rows = list(self._target[unit])
        else:
            assert unit.index is not None
            width = self._widths[unit.layer]
            values = torch.cat(self._values[unit.layer])[:, unit.index].tolist()
            flat = torch.cat(self._flat[unit.layer])[:, unit.index].tolist()
            rows = [Place(i, (f // width, f % width), v) for i, (v, f) in enumerate(zip(values, flat, strict=True))]
        if active_only and self.model.layers[unit.layer].size is not None:
            rows = [r for r in rows if r.value > 0]
            if not rows:
                raise CircuitsError(
                    f"{unit} is active on none of the {len(self.pictures)} pictures of {self.pictures.name}; "
                    "give images on which it fires, or look for another unit with circuits find"
                )
        rows.sort(key=lambda r: (-r.value, r.image))
        return rows[:limit]


def layer_peaks(
    model: Model,
    images: Any,
    layers: Sequence[str],
    target: Unit | None = None,
    *,
    batch_size: int = 32,
    progress: Progress = None,
) -> Peaks:
    """Peaks of all channels of `layers` (and the layers feeding their weights) on all pictures, in one pass."""
    pictures = open_images(images)
    found = Peaks(model, pictures)
    names = dict.fromkeys(layers)
    for source, after in zip(layers[1:], layers, strict=False):
        if model.graph is not None:
            start = model.graph.start(model.node(source), model.node(after))
            names[source if start is model.node(source) else model.name_of(start)] = None
    wanted = [model.layers[n] for n in names]
    special = target is not None and (target.basis is not None or target.at is not None)
    with torch.no_grad():
        for indices, batch in pictures.batches(model.input, batch_size=batch_size, progress=progress):
            acts = read(model, batch, wanted, clone=True)
            for name, values in acts.items():
                found.add(name, values)
            if special and target is not None:
                found.add_target(target, indices, acts[target.layer])
    return found


def examples(
    model: Model, unit: Unit, pictures: Images, rows: Sequence[tuple[float, int, Pair]]
) -> tuple[Example, ...]:
    """`(value, picture index, (y, x))` rows as examples with receptive-field boxes, in the order given."""
    size = model.input.hw
    field = model.receptive_field(unit)
    made = []
    for value, index, (y, x) in rows:
        box = (0, 0, *size) if field is None else field.box(y, x, within=size)
        made.append(Example(index, pictures.ids[index], (y, x), value, box))
    return tuple(made)
