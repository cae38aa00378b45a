"""What a scan reads: layers, attached bases, and the pre-activations of layers that end in a ReLU."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from circuits.errors import AddressError, CircuitsError, shorten
from circuits.network.address import Unit
from circuits.network.basis import latent_maps
from circuits.network.layer import Layer
from circuits.network.model import Model

_EXACT_RECTIFIERS = (F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")


@dataclass(frozen=True)
class Site:
    """A layer, or a basis attached to it.

    Attributes:
        name: `LAYER` or `LAYER~BASIS`.
        layer: the layer.
        read: name of the layer whose activations are looked at: the one before the ReLU where there is one.
        units: number of channels or latents.
        encode: makes maps of latents of maps of channels; None for the channels themselves.
    """

    name: str
    layer: Layer
    read: str
    units: int
    encode: Callable[[Tensor], Tensor] | None = None

    @property
    def signed(self) -> bool:
        """Whether responses are read before the ReLU."""
        return self.read != self.layer.name

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the map."""
        return self.layer.size or (1, 1)


def sites_of(model: Model, layers: Sequence[str] | None) -> list[Site]:
    """Where to read layers or bases attached to them, by name; by default all that is rectified, and the trunk.

    Raises:
        AddressError: there is no such layer or basis, or one unit is named. CircuitsError: none is named.
    """
    sites = [_site(model, name) for name in _names(model, layers)]
    return [*{site.name: site for site in sites}.values()]  # one named twice would be counted twice


def as_scanned(model: Model, unit: Unit, scanned: Container[str]) -> Unit:
    """`unit` under the name by which a scan has its layer, where several names have the same output.

    The last block of a stage, the stage itself and the block's last ReLU do, for example.
    """
    if unit.space in scanned or unit.basis is not None or model.graph is None:
        return unit
    node = model.node(unit.layer)
    same = (n for n in model.layers if n in scanned and model.layers[n].part is None and model.node(n) is node)
    same = (n for n in same if model.layers[n].axes == model.layers[unit.layer].axes)
    return replace(unit, layer=next(same, unit.layer))


def _names(model: Model, layers: Sequence[str] | None) -> list[str]:
    if layers is not None:
        if isinstance(layers, str) or not layers:
            raise CircuitsError("layers= is a list of names, with at least one")
        return list(layers)
    names, visited = [], set()
    for name, layer in model.layers.items():
        node = model.node(name) if model.graph is not None else name
        if layer.base == name and (layer.kind == "relu" or layer.trunk) and node not in visited:
            # a residual block and its last ReLU have the same output, and addresses and the pages use the trunk's name
            names.append(name if model.graph is None else model.name_of(model.node(name)))
            visited.add(node)
    return names


def _site(model: Model, name: str) -> Site:
    unit = Unit.parse(name)
    if unit.index is not None:
        raise AddressError(f"a scan takes whole layers; {shorten(name)} is one unit")
    layer = model.layer(unit.layer)
    if layer.part is not None:
        layer = model.layers[layer.part[0]]
    if unit.basis is not None:
        basis = model.basis(layer.name, unit.basis)
        if layer.windows is not None:
            source, window = model.layers[layer.windows[0]], layer.windows[1]
            encode = latent_maps(basis.encode)
            cut = source.part or (source.name, 0)
            channels = slice(cut[1], cut[1] + source.channels)
            return Site(
                unit.space, layer, cut[0], len(basis.read), lambda maps: encode(window.of(maps[:, channels]))
            )  # fmt: skip
        return Site(f"{layer.name}~{unit.basis}", layer, layer.name, len(basis.read), latent_maps(basis.encode))
    return Site(layer.name, layer, _before_relu(model, layer.name), layer.channels)


def _before_relu(model: Model, name: str) -> str:
    """The layer that a plain ReLU makes `name` of; `name` itself where there is none, or it has no name."""
    if model.graph is None:
        return name
    op = model.graph.ops[model.node(name)]
    plain = isinstance(op.module, nn.ReLU) or (op.module is None and model.node(name).target in _EXACT_RECTIFIERS)
    if op.kind != "relu" or not plain:
        return name
    before = (n for n in model.layers if model.layers[n].part is None and model.node(n) is op.inputs[0])
    return next((n for n in before if model.layers[n].axes.grid == model.layers[name].axes.grid), name)
