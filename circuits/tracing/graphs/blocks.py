"""Transcoders in attribution graphs: latents that read one layer, and stand in another in place of the block between.

The output of the block is, at the positions of the later layer B,

    B = latents x write directions + offset + skip(windows of A) + error

with latents read by the encoder from windows of the earlier layer A. The error is what is left of what the network has
at B, so that the replacement is exact; it has no sources. What the block itself does is not looked at: the paths into
the latents and through the linear skip begin at A (Dunefsky et al. 2024, arXiv 2406.11944; Ameisen et al. 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.basis import latent_maps
from circuits.network.hooks import read
from circuits.network.layers.windows import BETWEEN, Window
from circuits.network.model import Model
from circuits.tracing.ablation.sources import Channels, Latents, latents_of, source_of


@dataclass(frozen=True, eq=False)
class Block(Latents):
    """The latents of a transcoder, and its error as the last unit, at the layer that it writes.

    Attributes:
        reads: the layer that is read; window: its windows, `(N, d, h, w)` at the positions of `layer`.
        linear: what the skip adds `(n, C)` for windows `(n, d)`; None without a skip.
    """

    reads: str
    window: Window
    linear: Callable[[Tensor], Tensor] | None

    def parts_from(self, source: Tensor, acts: Tensor) -> Tensor:
        """The parts `(N, K, h, w)` of activations `(N, C, h, w)`, from the maps `(N, C', h', w')` that are read."""
        windows = self.window.of(source)
        latents = latent_maps(self.encode)(windows).to(acts)
        rest = acts - self._decoded(latents)
        if self.linear is not None:
            rest = rest - latent_maps(self.linear)(windows).to(acts)
        return torch.cat([latents, rest], dim=1)

    def parts_on(self, images: Tensor, acts: Tensor) -> Tensor:
        with torch.no_grad():
            maps = read(self.model, images.to(self.model.device), [self.model.layers[self.reads]])[self.reads]
        return self.parts_from(maps, acts)

    def parts(self, acts: Tensor) -> Tensor:
        raise CircuitsError(f"the latents of {self.name} are read from {self.reads}, not from {self.layer}")

    def again(self, source: Tensor, error: Tensor) -> Tensor:
        """What the transcoder gives `(N, C, h, w)` for other maps that it reads, with an error that is held."""
        windows = self.window.of(source)
        given = self._decoded(latent_maps(self.encode)(windows).to(error)) + error
        return given if self.linear is None else given + latent_maps(self.linear)(windows).to(error)

    def through_skip(self, source: Tensor, gradient: Tensor) -> tuple[Tensor | None, float]:
        """The derivative by the maps that are read, through the skip, and what the skip gives where these are zero.

        Args:
            source: the maps `(N, C', h', w')`.
            gradient: by what is written, `(N, C, h, w)`.
        """
        if self.linear is None:
            return None, 0.0
        with torch.enable_grad():
            leaf = torch.zeros_like(source, requires_grad=True)
            still = latent_maps(self.linear)(self.window.of(leaf))
        (slope,) = torch.autograd.grad(still, leaf, gradient.to(still))
        return slope.to(gradient), float((gradient * still.detach()).sum())

    def onto(self, source: Tensor, gradient: Tensor) -> Tensor:
        """A derivative by windows `(N, d, h, w)`, by the maps that they are cut from."""
        with torch.enable_grad():
            leaf = torch.zeros_like(source, requires_grad=True)
            (slope,) = torch.autograd.grad(self.window.of(leaf), leaf, gradient)
        return slope


def graph_source(model: Model, name: str) -> Channels:
    """The units of a layer, of a dictionary attached to one, or of a transcoder, `mixed4b..mixed4c~block`.

    Raises:
        AddressError: there is no such layer or basis. CircuitsError: a branch, one unit, or a transcoder of a branch.
    """
    space, _, basis = str(name).rpartition("/")[2].partition("~")
    if space not in model.layers.windows or not basis:
        return source_of(model, name)
    at = Unit(space, basis=basis)
    windows, last = model.layers.windows[space].windows, model.layer(space.partition(BETWEEN)[2])
    assert windows is not None
    parts = [layer for layer in (model.layers[windows[0]], last) if layer.part is not None]
    if parts:
        whole = parts[0].part
        assert whole is not None
        raise CircuitsError(
            f"{name} is of a branch: a graph takes transcoders between whole layers, such as {whole[0]}"
        )
    own = latents_of(model, at, last.name)
    linear = getattr(model.basis(space, basis), "linear_part", None)
    blank = torch.zeros(1, model.layers[space].channels, device=model.device, dtype=model.dtype)
    with torch.no_grad():
        skips = linear is not None and linear(blank) is not None
    return Block(**vars(own), reads=windows[0], window=windows[1], linear=linear if skips else None)


def without_overlaps(model: Model, names: Sequence[str]) -> list[str]:
    """Those of some dictionaries that go together in one graph, earliest first: SAEs before transcoders, as named."""
    chosen: list[Channels] = []
    for source in sorted((graph_source(model, name) for name in names), key=lambda source: isinstance(source, Block)):
        wider = sorted([*chosen, source], key=lambda source: model.layers.position(source.layer))
        with suppress(CircuitsError):
            check_apart(model, wider)
            chosen = wider
    return [source.name for source in chosen]


def check_apart(model: Model, sources: Sequence[Channels]) -> None:
    """Refuse units inside of a block that a transcoder stands in for, blocks that overlap, and a layer named twice.

    Raises:
        CircuitsError: they do.
    """
    position = model.layers.position
    for a, b in zip(sources, sources[1:], strict=False):
        if a.layer == b.layer:
            kinds = "transcoders" if isinstance(a, Block) and isinstance(b, Block) else "kinds of its units"
            raise CircuitsError(f"{b.layer} is named twice, by {a.name} and {b.name}: take one of these {kinds}, "
                                "layers=[...]")  # fmt: skip
    for block in (s for s in sources if isinstance(s, Block)):
        for other in sources:
            begin = position(other.reads) if isinstance(other, Block) else position(other.layer)
            if other is not block and begin < position(block.layer) and position(block.reads) < position(other.layer):
                what = "overlaps" if isinstance(other, Block) else "lies inside of"
                raise CircuitsError(
                    f"{other.name} {what} the block that {block.name} stands in for: take one of them, layers=[...]"
                )
