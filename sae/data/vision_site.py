"""A layer of a convolutional network as a site of SAEs: every position of its map is a vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circuits.attribution.class_scores import ClassScores
from circuits.dataset.accuracy import class_labels
from circuits.dataset.scan_store import own_card_and_input
from circuits.network.hooks import editing, stream
from circuits.network.layer import Layer
from circuits.network.layers.axes import as_maps
from circuits.network.model import Model
from sae.architectures.base import SAE
from sae.data.activations import SiteStream
from sae.data.site import Block, Function, check_fits
from sae.errors import SAEError
from zoo.images.sources import Images, open_images
from zoo.progress import Progress


class VisionSite:
    """A layer of a CNN, or a branch of one, as vectors `(N, d)`: one for each position of each image.

    An SAE applied to every position of a map equals two 1x1 convolutions.

    Args:
        model: a model of `circuits.load` or `circuits.wrap`.
        layer: a layer, or a branch such as `mixed4c_5x5` (its channels only).

    Raises:
        AddressError: there is no such layer. SAEError: the address is that of one unit.

    >>> site = VisionSite(circuits.load("scenes"), "mixed3b")  # doctest: +SKIP
    >>> next(iter(site.blocks("scenes:4"))).vectors.shape  # doctest: +SKIP
    torch.Size([1024, 48])
    """

    axes = ("image", "y", "x")
    differentiable = True

    def __init__(self, model: Model, layer: str) -> None:
        unit = model.resolve(layer)
        if unit.index is not None or unit.basis is not None:
            raise SAEError(f"an SAE reads a whole layer; {unit.short} is one unit. Name the layer: {unit.layer}")
        self.model = model
        self.layer: Layer = model.layers[unit.layer]

    def __repr__(self) -> str:
        return f"VisionSite({self.address!r}, d={self.d})"

    @property
    def address(self) -> str:
        """`model/layer`."""
        return f"{self.model.name}/{self.layer.name}"

    @property
    def d(self) -> int:
        """Channels of the layer."""
        return self.layer.channels

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Metadata of SAEs trained here, JSON-ready, with the keys of SAELens among them."""
        field = self.layer.receptive_field
        spec = self.model.input
        return {
            "model_name": self.model.name,
            "hook_name": self.layer.name,
            "model": self.model.name,
            "layer": self.layer.name,
            "weights_digest": self.model.digest,
            "site": "vision",
            "kind": self.layer.kind,
            "map": list(self.layer.size or (1, 1)),
            "stride": self.layer.stride,
            "receptive_field": None if field is None else list(field.size),
            "input_normalisation": {
                "size": list(spec.shape),
                "resize": spec.resize,
                "mean": list(spec.mean),
                "std": list(spec.std),
                "scale": spec.scale,
                "order": spec.order,
            },
        }

    @property
    def card(self) -> Mapping[str, Any] | None:
        """How a model of the user's own is opened again, as scans keep it; None of any other, known by its name."""
        return own_card_and_input(self.model)

    def open(self, images: Any) -> Images:
        """The images, in whatever form `zoo.images.sources.open_images` takes them."""
        return open_images(images)

    def blocks(self, inputs: Any, *, batch_size: int = 32, progress: Progress = None) -> Iterator[Block]:
        """Activations `(n, h, w, d)` batch by batch, in the order of the images.

        Args:
            inputs: images: a folder, a tensor in [0, 1], `scenes:500`, ...
            batch_size: images per forward pass.
            progress: True for a bar, or a function of (done, total).
        """
        name = self.layer.name
        first = 0
        for _, acts in stream(self.model, inputs, [name], batch_size=batch_size, progress=progress):
            maps = acts[name].movedim(1, -1)
            yield Block(maps, first)
            first += len(maps)

    def stream(self, images: Any, **settings: Any) -> SiteStream:
        """Training vectors from images, shuffled and without end; for the settings see `SiteStream`."""
        return SiteStream(self, self.open(images), **settings)

    @contextmanager
    def replaced(self, function: Function) -> Iterator[None]:
        """While open, the network continues from `function(acts)`, acts `(N, h, w, d)`, of the same shape.

        Raises:
            SAEError: while running, when the function gives another shape.
        """
        base, channels = self.channels()
        with editing(self.model, [(base, on_channels(function, channels))]):
            yield

    def predictions(
        self,
        inputs: Any,
        ways: Sequence[Function | None],
        *,
        batch_size: int = 32,
        progress: Progress = None,
        gradients: bool = False,
    ) -> Iterator[tuple[list[Tensor], Tensor | None]]:
        """Class scores `(n, classes)` before any softmax, once per function, and the labels of the images where known.

        Images are decoded, and run up to this layer, once for all functions. See `sae.data.site.Site.predictions`.
        With `gradients` these pass from the scores to the functions.
        """
        images = self.open(inputs)
        labels = self.labels(images)
        base, channels = self.channels()
        rest = ClassScores(self.model, base)
        functions = [None if way is None else on_channels(way, channels) for way in ways]
        for indices, batch in images.batches(self.model.input, batch_size=batch_size, progress=progress):
            with torch.no_grad():
                acts, context = rest.begin(batch)
            with torch.set_grad_enabled(gradients):
                scores = [rest.scores(acts if f is None else f(acts), context) for f in functions]
            yield scores, None if labels is None else labels[indices]

    def labels(self, images: Images) -> Tensor | None:
        """Class of each image in the model's order, -1 where unknown; None where no image has one."""
        return None if images.labels is None else torch.from_numpy(class_labels(self.model, images))

    @property
    def space(self) -> str:
        """The layer that latents are units of in addresses: of a branch the whole layer."""
        return self.channels()[0]

    def attach(self, name: str, sae: SAE) -> None:
        """Make the SAE's latents units of the model, `layer~name:index`.

        The latents of a branch's SAE encode and decode the branch's channels of the whole layer.

        Raises:
            SAEError: it was trained on another layer or other weights, or has another width.
        """
        check_fits(sae, self)
        base, channels = self.channels()
        width = self.model.layers[base].channels
        self.model.attach(base, name, sae if self.layer.part is None else OnBranch(sae, channels, width))

    def channels(self) -> tuple[str, slice]:
        """The layer that the network computes, and which channels of it these are."""
        if self.layer.part is None:
            return self.layer.name, slice(None)
        base, start = self.layer.part
        return base, slice(start, start + self.layer.channels)


@dataclass(frozen=True, eq=False)
class OnBranch:
    """An SAE of a branch as a basis of the whole layer: it encodes and decodes the branch's channels.

    Attributes:
        sae: of the branch; channels: which of the layer's they are; width: channels of the layer.
    """

    sae: SAE
    channels: slice
    width: int

    @property
    def reads_linearly(self) -> bool:
        """That of the SAE."""
        return self.sae.reads_linearly

    @property
    def read(self) -> Tensor:
        """Directions `(m, width)`, zero outside the branch."""
        return self._padded(self.sae.read)

    @property
    def write(self) -> Tensor:
        """Directions `(m, width)`, zero outside the branch."""
        return self._padded(self.sae.write)

    @property
    def offset(self) -> Tensor:
        """The reconstruction `(width,)` when no latent is active, zero outside the branch."""
        return self._padded(self.sae.offset[None])[0]

    def identity(self) -> dict[str, Any]:
        """That of the SAE."""
        return self.sae.identity()

    def encode(self, acts: Tensor) -> Tensor:
        """Latents `(N, m)` of the layer's activations `(N, width)`."""
        return self.sae.encode(acts[:, self.channels])

    def _padded(self, rows: Tensor) -> Tensor:
        padded = rows.new_zeros((len(rows), self.width))
        padded[:, self.channels] = rows
        return padded


def _layout(maps: Tensor) -> torch.memory_format:
    return torch.contiguous_format if maps.is_contiguous() else torch.channels_last


def on_channels(function: Function, channels: slice) -> Callable[[Tensor], Tensor]:
    """A function of activations `(N, h, w, d)` as one of the maps `(N, C, h, w)` that hold them as some channels."""

    def apply(acts: Tensor) -> Tensor:
        maps = as_maps(acts)
        before = maps[:, channels].movedim(1, -1)
        after = function(before)
        if after.shape != before.shape:
            raise SAEError(
                f"the activations here are {tuple(before.shape)}; they were replaced by {tuple(after.shape)}"
            )
        # laid out as before: convolutions round differently on another layout
        new = after.movedim(-1, 1).contiguous(memory_format=_layout(maps))
        if channels != slice(None):
            layer = maps.clone()
            layer[:, channels] = new
            new = layer
        return new.reshape(acts.shape)

    return apply
