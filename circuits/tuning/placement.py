"""Size and center of a stimulus and the position at which units are read, so that their receptive field is centered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from circuits.errors import AddressError, CircuitsError, shorten
from circuits.network.address import Unit
from circuits.network.graph import Graph
from circuits.network.hooks import check_images, graph_edits, read
from circuits.network.layer import Layer
from circuits.network.model import Model
from circuits.network.responses import channels_together
from zoo.common.checks import whole_number
from zoo.inputs import InputSpec

Pair = tuple[int, int]


@dataclass(frozen=True)
class View:
    """An image size and the position whose receptive field is centered on the stimulus.

    Attributes:
        spec: the model's input, at the size of the stimuli.
        position: `(y, x)` on the layer's map.
        center: row and column of the center of its receptive field, in pixels and fractions of pixels.
        reach: positions around `position` that are read too; None for the whole map.
    """

    spec: InputSpec
    position: Pair
    center: tuple[float, float]
    reach: int | None

    def cut(self, acts: Tensor) -> Tensor:
        """The positions that are read: `(N, C, h, w)` -> `(N, C, positions)`."""
        if self.reach is None:
            return acts.flatten(2)
        (y, x), r = self.position, self.reach
        return acts[:, :, max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1].flatten(2)


def view_of(model: Model, layer: Layer, reach: int | None, size: int | Pair | None = None) -> View:
    """The size and center of stimuli for a layer, and the position at which it is read.

    The image is just large enough that the positions read are not affected by padding, and at most the model's input: a
    smaller image gives the same responses for less work. Where the receptive field is unknown or the whole image, the
    model's own input size is used and the middle of the map is read.

    Raises:
        CircuitsError: a reach below 0, or a size that is no number of pixels.
    """
    if reach is not None:
        whole_number("reach", reach, least=0)
    full, field = model.input.hw, layer.receptive_field
    hw = _pair(size)
    if hw is None:
        hw = full
        if field is not None and layer.size is not None:
            need = [field.size[a] + (2 * (reach or 0) + 1) * field.stride[a] for a in range(2)]
            hw = (min(full[0], need[0]), min(full[1], need[1]))
    spec = model.input if hw == full else replace(model.input, size=hw, resize=None)
    if layer.size is None or field is None:
        grid = layer.size or (1, 1)
        return View(spec, ((grid[0] - 1) // 2, (grid[1] - 1) // 2), ((hw[0] - 1) / 2, (hw[1] - 1) / 2), reach)
    position, center = [], []
    for a in range(2):
        first = field.offset[a] + (field.size[a] - 1) / 2
        p = max(0, round(((hw[a] - 1) / 2 - first) / field.stride[a]))
        p = min(p, layer.size[a] - 1) if hw[a] == full[a] else p
        position.append(p)
        center.append(first + p * field.stride[a])
    return View(spec, (position[0], position[1]), (center[0], center[1]), reach)


def _pair(size: int | Pair | None) -> Pair | None:
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in pair):
        raise CircuitsError(f"size is a number of pixels, or two; not {shorten(size)}")
    return (pair[0], pair[1])


def units_of(model: Model, what: str | Unit | Sequence[str | Unit]) -> tuple[Layer, list[Unit]]:
    """The units of addresses, one by one, and the layer that they all belong to.

    Raises:
        AddressError: unknown, of several layers, at a position of its own, or none at all.
    """
    units: list[Unit] = []
    for address in [what] if isinstance(what, (str, Unit)) else what:
        unit = model.resolve(address)
        if unit.at is not None:
            raise AddressError(
                f"tuning centers the stimulus on the unit: write {unit.channel.short}, without a position"
            )
        if unit.index is not None:
            units.append(unit)
            continue
        count = len(model.basis(unit.layer, unit.basis).read) if unit.basis else model.layers[unit.layer].channels
        units += [model.resolve(Unit(unit.layer, i, basis=unit.basis)) for i in range(count)]
    units = list(dict.fromkeys(units))
    layers = list(dict.fromkeys(u.layer for u in units))
    if len(layers) != 1:
        raise AddressError(f"the units of one tuning are of one layer; got {', '.join(layers) or 'none'}")
    return model.layers[layers[0]], units


class Reader:
    """Reads units of one layer at the positions of a view, before or after their ReLU.

    Raises:
        CircuitsError: pre-activations of a model without a graph, or of latents.
    """

    def __init__(self, model: Model, layer: Layer, units: Sequence[Unit], view: View, *, pre: bool = False) -> None:
        self.model, self.layer, self.units, self.view = model, layer, list(units), view
        self._before: list[fx.Node] | None = None
        if pre:
            if model.graph is None:
                raise CircuitsError(f"{model.name} could not be traced, so that its pre-activations are out of reach")
            if any(u.basis is not None for u in units):
                raise CircuitsError("latents are read from activations: leave pre=True out")
            self._before = _before(model.graph, model.node(layer.name))

    def __call__(self, batch: Tensor) -> Tensor:
        """Responses `(N, units)` to images of the view's size: the maximum within reach, on the CPU."""
        with torch.no_grad():
            acts = self.view.cut(self._acts(batch))
        if acts.shape[2] == 0:
            height, width = self.view.spec.hw
            raise CircuitsError(
                f"images of {height}x{width} pixels are too small for {self.layer.name}: "
                "its map does not contain the position that is read; leave size= out"
            )
        out = acts.new_empty((len(acts), len(self.units)))
        by_basis: dict[str | None, list[int]] = {}
        for i, unit in enumerate(self.units):
            by_basis.setdefault(unit.basis, []).append(i)
        for name, columns in by_basis.items():
            indices = [self.units[i].index or 0 for i in columns]
            if name is None:
                out[:, columns] = acts[:, indices].amax(dim=2)
                continue
            rows = acts.movedim(1, -1)
            with torch.no_grad():
                latents = self.model.basis(self.layer.name, name).encode(rows.reshape(-1, rows.shape[-1]))
            out[:, columns] = latents[:, indices].view(*rows.shape[:2], -1).amax(dim=1).to(out)
        return out.float().cpu()

    def _acts(self, batch: Tensor) -> Tensor:
        if self._before is None:
            return read(self.model, channels_together(self.model, batch), [self.layer])[self.layer.name]
        graph = self.model.graph
        assert graph is not None
        x = self.model.input.normalize(check_images(self.model, batch))
        with self.model.lock:
            values = graph.run({graph.input: x}, self._before, edits=graph_edits(self.model))
        acts = torch.cat([values[node] for node in self._before], dim=1)
        return self.layer.axes.maps(acts)


def _before(graph: Graph, node: fx.Node) -> list[fx.Node]:
    """Nodes that hold pre-activations, in the order of the channels: a concatenation has those of its branches."""
    node = graph.before_relu(node)
    if graph.ops[node].kind != "cat":
        return [node]
    return [n for i in graph.ops[node].inputs for n in _before(graph, i)]


def digests(model: Model, **more: Any) -> dict[str, Any]:
    """The provenance of every tuning."""
    return {"weights": model.digest, "model": model.name, **more}
