"""Two layers of a convolutional network as a site of transcoders: windows of the first, and what a block makes of them.

A convolution, a pool or an Inception block computes each position of its output from a window of its input. A
transcoder that is to stand in for the block therefore reads that window: its encoder is a convolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from circuits.attribution.class_scores import ClassScores
from circuits.network.hooks import editing, read, stream
from circuits.network.layer import Layer
from circuits.network.layers.axes import as_maps
from circuits.network.layers.windows import BETWEEN, Window
from circuits.network.model import Model
from sae.architectures.base import SAE
from sae.data.activations import MEMORY, SiteStream
from sae.data.site import Block, Function, check_fits, chosen
from sae.data.vision_site import VisionSite, on_channels
from sae.data.windows import field_of, window_between
from sae.errors import SAEError
from zoo.images.sources import Images
from zoo.progress import Progress


class VisionPair:
    """Two layers of a CNN as pairs of vectors: for each position of the second, what a block reads and what it gives.

    What is read is the window of the first layer that a position of the second depends on, found by their receptive
    fields: `(rows * columns * channels,)`, zero outside of the map. Strides and pools are in that map of positions.

    Args:
        model: a model of `circuits.load` or `circuits.wrap`.
        source, target: layers; the target may be a branch.
        patch: positions along each side of the window, or rows and columns, about its middle (default: all of it).

    Attributes:
        window: which positions of the source a position of the target sees.

    Raises:
        AddressError: there is no such layer. GraphError: the target's positions have no window in the source, or depend
            on something else, too. SAEError: the address of one unit.

    >>> pair = VisionPair(circuits.load("scenes"), "mixed3b", "mixed4a")  # doctest: +SKIP
    >>> config = sae.TopK(latents=512, k=16, kind="transcoder")  # doctest: +SKIP
    >>> sae.train(pair.stream("scenes:500"), config, steps=500)  # doctest: +SKIP
    """

    axes = ("image", "y", "x")
    differentiable = True

    def __init__(self, model: Model, source: str, target: str, *, patch: int | Sequence[int] | None = None) -> None:
        self.source, self.target = VisionSite(model, source), VisionSite(model, target)
        self.model = model
        self.window: Window = window_between(model, self.source.layer.name, self.target.layer.name, patch)

    def __repr__(self) -> str:
        return f"VisionPair({self.address!r}, {self.window.size[0]} x {self.window.size[1]}, widths={self.widths})"

    @property
    def layer(self) -> Layer:
        """The layer that is reconstructed."""
        return self.target.layer

    @property
    def address(self) -> str:
        """`model/source..target`."""
        return f"{self.model.name}/{self.source.layer.name}{BETWEEN}{self.target.layer.name}"

    @property
    def widths(self) -> tuple[int, int]:
        """Numbers of a window of the source, and channels of the target."""
        return self.window.size[0] * self.window.size[1] * self.source.d, self.target.d

    @property
    def d(self) -> int:
        """Width of both together."""
        return sum(self.widths)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Metadata of transcoders trained here, JSON-ready: those of the target, and what is read."""
        window = {name: list(getattr(self.window, name)) for name in ("size", "stride", "offset")}
        return {
            **self.target.metadata,
            "hook_name": self.source.layer.name,
            "hook_name_out": self.target.layer.name,
            "layer": self.space,
            "source": self.source.layer.name,
            "target": self.target.layer.name,
            "window": {**window, "channels": self.source.d, "order": ["row", "column", "channel"]},
        }

    @property
    def card(self) -> Mapping[str, Any] | None:
        """How a model of the user's own is opened again; None of any other, known by its name."""
        return self.target.card

    @property
    def center(self) -> int | None:
        """Of a layer and itself, where in a window its middle position begins: what is reconstructed; else None."""
        if self.source.layer.name != self.target.layer.name:
            return None
        (_, columns), (top, left) = self.window.size, self.window.offset
        return (-top * columns - left) * self.source.d

    def open(self, images: Any) -> Images:
        """The images, in whatever form `zoo.images.sources.open_images` takes them."""
        return self.target.open(images)

    def blocks(self, inputs: Any, *, batch_size: int = 32, progress: Progress = None) -> Iterator[Block]:
        """Pairs `(n, h, w, sum(widths))` at the target's positions, batch by batch, in the order of the images."""
        first = 0
        for source, target in self.maps(inputs, batch_size=batch_size, progress=progress):
            yield Block(self._pairs(source, target), first)
            first += len(target)

    def maps(self, inputs: Any, *, batch_size: int = 32, progress: Progress = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Maps `(n, C, h, w)` of source and target, batch by batch."""
        names = [self.source.layer.name, self.target.layer.name]
        for _, acts in stream(self.model, inputs, names, batch_size=batch_size, progress=progress):
            yield acts[names[0]], acts[names[1]]

    @property
    def space(self) -> str:
        """The layer that latents are units of in addresses, `source..target`: the windows that they read."""
        return self.address.rpartition("/")[2]

    def attach(self, name: str, sae: SAE) -> None:
        """Make the latents of a transcoder units of the model, `source..target~name:index`, at the target's positions.

        They are read, by scans for example; what edits a layer or follows weights refuses them.

        Raises:
            SAEError: it was trained on another pair or other weights, or has other widths.
        """
        check_fits(sae, self)
        seen = replace(self.layer, receptive_field=field_of(self.model, self.layer.name))
        self.model.layers.add_windows(self.space, self.source.layer, seen, self.window)
        self.model.attach(self.space, name, sae)

    def _pairs(self, source: Tensor, target: Tensor) -> Tensor:
        """Maps `(N, C, h, w)` of both as pairs `(N, *grid, sum(widths))`."""
        return torch.cat([self.window.of(source), target], dim=1).movedim(1, -1)

    def stream(self, images: Any, **settings: Any) -> PairStream:
        """Training pairs from images, shuffled and without end; for the settings see `SiteStream`."""
        return PairStream(self, self.open(images), **settings)

    @contextmanager
    def replaced(self, function: Function) -> Iterator[None]:
        """While open, the network continues from `function(pairs)` `(N, h, w, d_out)` at the target.

        Raises:
            SAEError: while running, when the function gives another shape.
        """
        held: list[Tensor] = []

        def keep(maps: Tensor) -> Tensor:
            held[:] = [as_maps(maps)]
            return maps

        def of_target(acts: Tensor) -> Tensor:
            if not held:
                raise SAEError(f"{self.address}: {self.source.layer.name} did not run before {self.target.layer.name}")
            return function(self._pairs(held.pop()[:, begin], acts.movedim(-1, 1)))

        (first, begin), (base, channels) = self.source.channels(), self.target.channels()
        with editing(self.model, [(first, keep), (base, on_channels(of_target, channels))]):
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
        """Class scores `(n, classes)` before any softmax, once per function of pairs, and the labels where known.

        Images are decoded, and run up to the target, once for all functions. See `sae.data.site.Site.predictions`.
        With `gradients` these pass from the scores to the functions.
        """
        images = self.open(inputs)
        labels = self.target.labels(images)
        base, channels = self.target.channels()
        rest = ClassScores(self.model, base)
        source = self.source.layer
        for indices, batch in images.batches(self.model.input, batch_size=batch_size, progress=progress):
            with torch.no_grad():
                maps = read(self.model, batch, [source])[source.name]
                acts, context = rest.begin(batch)
                pairs = self._pairs(maps, as_maps(acts)[:, channels])
            with torch.set_grad_enabled(gradients):
                scores = [
                    rest.scores(acts if way is None else on_channels(_ready(way, pairs), channels)(acts), context)
                    for way in ways
                ]
            yield scores, None if labels is None else labels[indices]


class PairStream(SiteStream):
    """Training pairs from a network, whose windows are cut from maps in memory when a batch needs them.

    The windows of a map overlap: those of 5 x 5 positions hold every number of it 25 times.

    Args: see `SiteStream`; `site` is a `VisionPair`.
    """

    site: VisionPair

    def __init__(self, site: VisionPair, inputs: Any, *, memory: int = MEMORY, **settings: Any) -> None:
        super().__init__(site, inputs, memory=memory, **settings)
        (height, width), (rows, columns) = (layer.size or (1, 1) for layer in (site.source.layer, site.layer))
        targets = min(rows * columns, self.sampling.per_input or rows * columns) * site.target.d
        each = 4 * (height * width * site.source.d + targets)
        self.windows = min(len(inputs), math.ceil(len(inputs) * each / memory))

    @property
    def center(self) -> int | None:
        """That of the site."""
        return self.site.center

    def load(self, epoch: int, window: int) -> Any:
        """The pairs of a window, read from the network."""
        indices = self._split(len(self.inputs), epoch, window)
        if not indices:
            return super().load(epoch, window)
        maps, targets, sampled, first = [], [], [], 0
        some = chosen(self.inputs, indices)
        for source, target in self.site.maps(some, batch_size=self.forward_batch, progress=self.progress):
            vectors, positions = self.sampling.pick(Block(target.movedim(1, -1), first), indices, epoch)
            positions[:, 0] = torch.searchsorted(torch.tensor(indices), positions[:, 0].contiguous())
            maps.append(self.site.window.padded(source).movedim(1, -1).to(self.device or source.device))
            targets.append(vectors.to(self.device or vectors.device))
            sampled.append(positions)
            first += len(target)
        return _CutWindows(torch.cat(maps), torch.cat(targets), torch.cat(sampled), self.site.window)


class _CutWindows:
    """Pairs as rows of a matrix that is never whole: `rows[numbers]` are some of them.

    Args:
        maps: `(N, h, w, C)` sources, padded; targets: `(n, d_out)`; positions: `(n, 3)` image, row and column of each.
        window: that is cut at each position.
    """

    def __init__(self, maps: Tensor, targets: Tensor, positions: Tensor, window: Window) -> None:
        _, height, width, _ = maps.shape
        self.maps, self.targets, self.device = maps.flatten(0, 2), targets, targets.device
        image, row, column = positions.to(self.device).unbind(1)
        self.corners = (image * height + row * window.stride[0]) * width + column * window.stride[1]
        rows, columns = (torch.arange(size, device=self.device) for size in window.size)
        self.steps = (rows[:, None] * width + columns).flatten()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, numbers: Tensor) -> Tensor:
        windows = self.maps[self.corners[numbers, None] + self.steps].flatten(1)
        return torch.cat([windows, self.targets[numbers]], dim=1)


def _ready(way: Function, pairs: Tensor) -> Function:
    """A function of pairs as one of the target's activations, which are in the pairs."""
    return lambda _acts: way(pairs)
