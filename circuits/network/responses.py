"""What a unit responds with: its value at a position, at its peak, or pooled over an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from circuits.errors import AddressError, GraphError
from circuits.network.address import Unit
from circuits.network.basis import latent_maps, reads_linearly
from circuits.network.hooks import read
from circuits.network.layers.axes import as_maps
from circuits.network.model import Model
from circuits.network.operations import Pair
from zoo.images.sources import open_images
from zoo.progress import Progress

Pool = Literal["max", "mean"]
"""How a map of responses becomes one number an image."""


def read_directions(model: Model, layer: str, basis: str | None, indices: Sequence[int]) -> Tensor | None:
    """`(T, C)` directions that latents are read along, in the network's type, or None for plain channels.

    Raises:
        GraphError: latents that are not read along a direction each, such as those of matching pursuit.
    """
    if basis is None:
        return None
    dictionary = model.basis(layer, basis)
    if not reads_linearly(dictionary):
        raise GraphError(
            f"a latent of {layer}~{basis} reads what others have left of the activations, so that no weights lead into "
            "it: attribute it on images (circuits.attribute)"
        )
    return dictionary.read[list(indices)].detach().to(model.dtype)


def channels_together(model: Model, images: Tensor) -> Tensor:
    """Images `(N, channels, H, W)` as the model's convolutions take them fastest: on a CPU, channels beside each other.

    The layout goes through the network: measured on GoogLeNet, forward and back take three quarters of the time. The
    values are the same; what is computed of them may be rounded otherwise.
    """
    if model.graph is None or model.device.type != "cpu" or not model.graph.convolves_in_any_layout:
        return images
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def respond(model: Model, unit: Unit, acts: Tensor) -> Tensor:
    """The response map `(N, h, w)` of a unit, from the activations `(N, C, h, w)` of its layer."""
    assert unit.index is not None
    if unit.basis is None:
        return acts[:, unit.index]
    rows = acts.movedim(1, -1)
    latents = model.basis(unit.layer, unit.basis).encode(rows.reshape(-1, rows.shape[-1]))
    return latents[:, unit.index].view(rows.shape[:-1])


def peaks(response: Tensor, unit: Unit) -> list[Pair]:
    """Where to read a unit on each image: its own position, or where `response` `(N, h, w)` is largest."""
    if unit.at is not None:
        return [(unit.at[0], unit.at[1])] * len(response)
    flat = response.detach().flatten(1).argmax(dim=1).tolist()
    width = response.shape[2]
    return [(i // width, i % width) for i in flat]


def pooled_responses(
    model: Model,
    images: Any,
    layers: Sequence[str],
    *,
    pool: Pool = "max",
    batch_size: int = 32,
    progress: Progress = None,
) -> dict[str, Tensor]:
    """One number per unit and image: layer or basis -> `(N, units)` maximum or mean over positions."""
    spaces = {layer_or_basis(model, name): model.resolve(name) for name in layers}
    to_read = [model.layers[name] for name in dict.fromkeys(unit.layer for unit in spaces.values())]
    parts: dict[str, list[Tensor]] = {name: [] for name in spaces}
    with torch.no_grad():
        for _, batch in open_images(images).batches(model.input, batch_size=batch_size, progress=progress):
            acts = read(model, batch, to_read)
            for name, unit in spaces.items():
                maps = acts[unit.layer]
                if unit.basis is not None:
                    maps = latent_maps(model.basis(unit.layer, unit.basis).encode)(maps)
                parts[name].append((maps.amax(dim=(2, 3)) if pool == "max" else maps.mean(dim=(2, 3))).cpu())
    return {name: torch.cat(values) for name, values in parts.items()}


class ActivationMeans:
    """Means over images of the activations of some layers, taken while the network runs.

    Args:
        per_position: also a mean for each position.
    """

    def __init__(self, *, per_position: bool = False) -> None:
        self._per_position = per_position
        self._totals: dict[str, Tensor] = {}
        self._maps: dict[str, Tensor] = {}
        self._counts: dict[str, tuple[int, int]] = {}

    def tap(self, name: str) -> Callable[[Tensor], Tensor]:
        """A function of the layer's activations that takes them in and returns them as they are."""

        def take(acts: Tensor) -> Tensor:
            maps = as_maps(acts)
            self._totals[name] = self._totals.get(name, 0) + maps.sum(dim=(0, 2, 3)).cpu().double()
            if self._per_position:
                self._maps[name] = self._maps.get(name, 0) + maps.double().sum(dim=0, keepdim=True)
            images, _ = self._counts.get(name, (0, 0))
            self._counts[name] = images + len(maps), maps.shape[2] * maps.shape[3]
            return acts

        return take

    @property
    def layers(self) -> list[str]:
        """Layers that ran."""
        return list(self._totals)

    def of(self, name: str) -> Tensor:
        """Mean of each channel over images and positions `(C,)`, float32 on the CPU."""
        images, positions = self._counts[name]
        return (self._totals[name] / (images * positions)).float()

    def maps(self, name: str) -> Tensor:
        """Mean at each position `(1, C, h, w)`."""
        return (self._maps[name] / self._counts[name][0]).float()


def layer_or_basis(model: Model, name: str) -> str:
    """The canonical name of a layer, or of a basis attached to one."""
    unit = model.resolve(name)
    if unit.index is not None:
        raise AddressError(f"name a layer; {unit.short} is one unit of {unit.space}")
    return unit.space
