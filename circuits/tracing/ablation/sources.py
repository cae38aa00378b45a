"""What the units of a source layer are: its channels, or the latents of a dictionary and the error it leaves over.

A layer's activations are a sum of parts: of channels each is its own, of a dictionary

    activations = latents x write directions + offset + error

where the error is what the dictionary does not reconstruct: one more unit, `mixed3b~p:error`, as wide as the layer
(Marks et al. 2024, Sparse Feature Circuits, arXiv 2403.19647). To ablate a latent is to replace its part. Latents are
computed once, from the activations as they come: an edit never selects them anew, as a TopK dictionary would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.basis import latent_maps
from circuits.network.hooks import frozen, graph_edits
from circuits.network.layers.axes import as_maps
from circuits.network.model import Model
from circuits.network.operations import Pair, shape_of
from circuits.network.subnetwork import then

Edits = dict[str, Callable[[Tensor], Tensor]]
"""Layer name -> function of its activations."""
ERROR = "error"
"""In the address of the error of a dictionary, where other units have their number: `scenes/mixed3b~p:error`."""


@dataclass(frozen=True, eq=False)
class Channels:
    """The channels of a layer: each is a part of its own.

    Attributes:
        model: its model; name, layer: of the layer; width: number of units.
    """

    model: Model
    name: str
    layer: str
    width: int

    def parts(self, acts: Tensor) -> Tensor:
        """The parts `(N, K, h, w)` of activations `(N, C, h, w)`."""
        return acts

    def parts_on(self, images: Tensor, acts: Tensor) -> Tensor:
        """The parts of the activations `(N, C, h, w)` that the network has on images."""
        return self.parts(acts)

    def acts(self, parts: Tensor) -> Tensor:
        """Activations `(N, C, h, w)` of parts `(N, K, h, w)`."""
        return parts

    def activity(self, parts: Tensor) -> Tensor:
        """How active each unit is, `(N, units, h, w)`; of an error, the length of what it adds."""
        return parts

    def by_unit(self, gradient: Tensor, parts: Tensor) -> Tensor:
        """Products `(N, units, h, w)` of a gradient by the activations `(N, C, h, w)` and changes of the parts."""
        return gradient * parts

    def parts_of(self, units: set[int]) -> list[int]:
        """Which parts are those of some units, in order."""
        return sorted(units)

    def by_part(self, units: Tensor) -> Tensor:
        """Values of units `(..., units)`, for each of their parts `(..., K)`."""
        return units

    def held(self, base: Tensor, natural: Tensor, parts: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """A function of activations that sets all units but `natural` to the baseline.

        Args:
            base: the baseline's parts, `(N or 1, K, h or 1, w or 1)`.
            natural: which units stay, `(units,)`; of channels also for each image `(N, units)`.
            parts: of the activations, where they are known.
        """
        return hold(base, natural)

    def mixed(self, acts: Tensor, base: Tensor, weights: Tensor, parts: Tensor | None = None) -> Tensor:
        """Activations with each unit part of the way from the baseline, by its weight `(units,)`."""
        base, shape = (base, (1, -1, 1, 1)) if acts.ndim == 4 else (base.flatten(1), (1, -1))
        return base + weights.view(shape) * (acts - base)

    def address(self, index: int) -> str:
        """Address of a unit, with the model's name."""
        return str(Unit(self.layer, index, self.model.name))


@dataclass(frozen=True, eq=False)
class Latents(Channels):
    """The latents of a dictionary, and its error as the last unit; its parts are the latents and the error's channels.

    Attributes:
        encode: latents `(n, m)` of activations `(n, C)`.
        write: `(m, C)` what latents write; offset: `(C,)` what is there without any.
    """

    basis: str
    encode: Callable[[Tensor], Tensor]
    write: Tensor
    offset: Tensor

    @property
    def latents(self) -> int:
        """Number of latents, and the number of the error among the units."""
        return self.width - 1

    def parts(self, acts: Tensor) -> Tensor:
        latents = latent_maps(self.encode)(acts).to(acts)
        return torch.cat([latents, acts - self._decoded(latents)], dim=1)

    def acts(self, parts: Tensor) -> Tensor:
        return self._decoded(parts[:, : self.latents]) + parts[:, self.latents :]

    def _decoded(self, latents: Tensor) -> Tensor:
        return F.conv2d(latents, self.write.T[:, :, None, None], self.offset)

    def activity(self, parts: Tensor) -> Tensor:
        length = parts[:, self.latents :].norm(dim=1, keepdim=True)
        return torch.cat([parts[:, : self.latents], length], dim=1)

    def by_unit(self, gradient: Tensor, parts: Tensor) -> Tensor:
        latents = F.conv2d(gradient, self.write[:, :, None, None]) * parts[:, : self.latents]
        error = (gradient * parts[:, self.latents :]).sum(dim=1, keepdim=True)
        return torch.cat([latents, error], dim=1)

    def parts_of(self, units: set[int]) -> list[int]:
        error = range(self.latents, self.latents + self.write.shape[1]) if self.latents in units else ()
        return [*sorted(units - {self.latents}), *error]

    def by_part(self, units: Tensor) -> Tensor:
        width = self.write.shape[1]
        return torch.cat([units[..., :-1], units[..., -1:].expand(*units.shape[:-1], width)], dim=-1)

    def without_each(self, units: Sequence[int], acts: Tensor, parts: Tensor, base: Tensor) -> Tensor:
        """Activations `(units, N, C, h, w)` with each of some units alone at the baseline."""
        moved = base - parts
        changes = [
            moved[:, self.latents :] if u == self.latents else moved[:, u : u + 1] * self.write[u].view(1, -1, 1, 1)
            for u in units
        ]
        return acts + torch.stack(changes)

    def held(self, base: Tensor, natural: Tensor, parts: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        still, stays = self.acts(base), natural[: self.latents].nonzero().flatten()

        def replace(acts: Tensor) -> Tensor:
            own = self.parts(as_maps(acts)) if parts is None else parts
            new = still.expand_as(as_maps(acts))
            if len(stays):  # only what is not ablated is decoded
                moved = own[:, stays] - base[:, stays]
                new = new + F.conv2d(moved, self.write[stays].T[:, :, None, None])
            if natural[-1]:
                new = new + own[:, self.latents :] - base[:, self.latents :]
            return new.reshape(acts.shape)

        return replace

    def mixed(self, acts: Tensor, base: Tensor, weights: Tensor, parts: Tensor | None = None) -> Tensor:
        own = self.parts(as_maps(acts)) if parts is None else parts
        return self.acts(base + self.by_part(weights).view(1, -1, 1, 1) * (own - base)).view_as(acts)

    def address(self, index: int) -> str:
        if index == self.latents:
            return f"{self.model.name}/{self.name}:{ERROR}"
        return str(Unit(self.name.partition("~")[0], index, self.model.name, self.basis))


def source_of(model: Model, name: str) -> Channels:
    """The units of a layer, `mixed3b`, or of a dictionary attached to one, `mixed3b~p`.

    Raises:
        AddressError: there is no such layer or basis. CircuitsError: a branch, one unit, or windows of a layer.
    """
    at = Unit(model.layer(name).name) if isinstance(name, str) and "~" not in name else model.resolve(name)
    if at.index is not None:
        raise CircuitsError(f"name a whole layer; {at.short} is one unit of {at.space}")
    layer = model.layers[at.layer]
    model.layers.position(layer.name)
    if layer.part is not None:
        raise CircuitsError(f"name the whole layer {layer.part[0]}; {at.layer} is channels of it")
    if at.basis is None:
        return Channels(model, layer.name, layer.name, layer.channels)
    return latents_of(model, at, layer.name)


def latents_of(model: Model, at: Unit, layer: str) -> Latents:
    """The latents of the dictionary at an address, which write a layer."""
    assert at.basis is not None
    basis = model.basis(at.layer, at.basis)
    write = basis.write.detach().to(model.device, model.dtype)
    offset = getattr(basis, "offset", None)
    still = write.new_zeros(write.shape[1]) if offset is None else offset.detach().to(write)

    def encode(acts: Tensor) -> Tensor:
        with frozen(basis) if isinstance(basis, nn.Module) else nullcontext():
            return basis.encode(acts)

    return Latents(model, at.space, layer, len(write) + 1, at.basis, encode, write, still)


def space_of(address: str) -> tuple[str, int | None]:
    """The layer or dictionary of a unit's address, and its number in it; None for the error of a dictionary."""
    space, _, last = address.rpartition(":")
    if last == ERROR and "~" in space:
        return Unit.parse(space).space, None
    unit = Unit.parse(address)
    return unit.space, unit.index or 0


def numbered(model: Model, address: str) -> tuple[str, int]:
    """The layer or dictionary of a unit's address in a model, and the unit's number among its units.

    Raises:
        AddressError: no such unit.
    """
    space, index = space_of(address)
    if index is None:
        source = source_of(model, address.rpartition(":")[0])
        return source.name, source.width - 1
    unit = model.unit(address)
    return unit.space, unit.index or 0


def hold(base: Tensor, natural: Tensor, at: slice | None = None) -> Callable[[Tensor], Tensor]:
    """A function of activations `(N, C, ...)` that sets all channels but `natural` to those of `base`.

    Args:
        base: values for all channels.
        natural: which channels stay, `(channels,)` or `(N, channels)`.
        at: the channels that these are of the activations, whose others all stay (default: all).
    """

    def replace(acts: Tensor) -> Tensor:
        values, stays = base if acts.ndim == 4 else base.flatten(1), natural
        if at is not None and natural.shape[-1] < acts.shape[1]:
            stays = natural.new_ones((*natural.shape[:-1], acts.shape[1]))
            stays[..., at] = natural
        return torch.where(stays.view(-1, acts.shape[1], *[1] * (acts.ndim - 2)), acts, values)

    return replace


def with_channels(values: Tensor, at: slice, acts: Tensor) -> Tensor:
    """Activations with other values for some channels."""
    return (
        values if values.shape[1] == acts.shape[1] else torch.cat([acts[:, : at.start], values, acts[:, at.stop :]], 1)
    )


def composed(edits: Sequence[Edits]) -> Edits:
    """Edits of one run; a layer that several edit, as the pool of a concatenation, is edited by each in turn."""
    composed: Edits = {}
    for name, function in (pair for each in edits for pair in each.items()):
        composed[name] = then(composed[name], function) if name in composed else function
    return composed


def at_positions(out: Tensor, positions: Sequence[Pair]) -> Tensor:
    """The first target at a position of each image `(N,)`."""
    return torch.stack([out[i, 0, y, x] for i, (y, x) in enumerate(positions)])


def pooled(model: Model, layer: str, pool: str, acts: Tensor) -> Tensor:
    """What a max pool over the channels of a layer makes of its activations; its other channels are no such.

    Raises:
        CircuitsError: torch.fx cannot trace the network.
    """
    graph = model.graph
    if graph is None:
        raise CircuitsError(
            f"torch.fx cannot trace this network, so no gradient is taken through {pool}: rank by 'patching', or "
            f"from {pool} instead of {layer}"
        )
    begin, end = model.node(layer), model.node(pool)
    edits = {node: f for node, f in graph_edits(model).items() if node is not begin}
    # the other channels of a concatenation do not matter to these, which nothing mixes with them on the way
    feeds = {begin: acts}
    for node in graph.side_inputs(begin, end):
        shape = shape_of(node)
        assert shape is not None
        feeds[node] = acts.new_zeros((len(acts), *shape[1:]))
    return graph.run(feeds, [end], edits=edits)[end]
