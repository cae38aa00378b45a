"""Ablations of many sets of units of one layer, at the price of what they change.

The convolutions that read a layer are linear: with unit c ablated their outputs change by `W[:, c] * (b_c - a_c)`, and
with only a set C kept they are `conv(b) + W[:, C] * (a_C - b_C)`. So a single edit costs 1/S of running a convolution
over S channels again, and a circuit of n units n/S; only what comes after runs for each. This is exact up to the order
of summation. The kernel of a latent is what it writes, times W. Where something else than a convolution reads the
channels, or the latents pass a pool or a ReLU before, the whole segment runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circuits.network.subnetwork import Reader
from circuits.tracing.ablation.ablation import Ablation, UnitsByLayer
from circuits.tracing.ablation.measured import Batch
from circuits.tracing.ablation.sources import Latents

VALUES = 1 << 23
"""Numbers in the largest tensor of a chunk of edits."""


@dataclass(frozen=True)
class _Read:
    """What one convolution reads on a batch: parts and their baselines, and its output without bias for both."""

    reader: Reader
    kernels: Tensor
    acts: Tensor
    base: Tensor
    natural: Tensor
    ablated: Tensor


class ChannelEdits:
    """Runs of an `Ablation` of one source layer with many different sets of units ablated."""

    def __init__(self, ablation: Ablation) -> None:
        self.ablation = ablation
        (self.layer,) = ablation.layers
        self.source = ablation.sources[self.layer]
        readers = ablation.segment.readers() if ablation.stored else None
        if readers is not None and isinstance(self.source, Latents):
            begin = ablation.model.node(self.source.layer)
            readers = readers if all(reader.reads is begin for reader in readers) else None
        self._reads: list[list[_Read]] | None = None
        if readers is not None:
            with torch.no_grad():
                self._reads = [self._read(batch, readers) for batch in ablation.batches()]

    @property
    def by_change(self) -> bool:
        """Whether edits run at the price of what they change."""
        return self._reads is not None

    def _read(self, batch: Batch, readers: Sequence[Reader]) -> list[_Read]:
        nodes = list(dict.fromkeys(reader.reads for reader in readers))
        acts, base = self.ablation.natural_and_ablated(batch, nodes)
        reads = []
        for reader in readers:
            kernels, a, b = reader.kernels(), acts[reader.reads], base[reader.reads]
            natural, ablated = reader.convolve(a, kernels), reader.convolve(b, kernels)
            if isinstance(self.source, Latents):
                a, b = batch.parts, batch.baselines[self.layer].expand_as(batch.parts)
                kernels = torch.cat([torch.einsum("ocij,mc->omij", kernels, self.source.write), kernels], dim=1)
            reads.append(_Read(reader, kernels, a, b, natural, ablated))
        return reads

    @torch.no_grad()
    def single(self) -> Iterator[Tensor]:
        """Responses `(units, N, h, w)`, chunk by chunk over the layer's units, with each of them ablated alone."""
        width = self.source.width
        if self._reads is not None:
            error = self.source.latents if isinstance(self.source, Latents) else None
            largest = max(r.natural[0].numel() for reads in self._reads for r in reads)
            count = max(len(reads[0].acts) for reads in self._reads)
            for some in _chunks(width if error is None else error, VALUES // (largest * count)):
                yield torch.cat([self._changed(reads, some) for reads in self._reads], dim=1)
            if error is not None:
                yield self.ablation.respond_without({self.layer: {error}})[None]
            return
        largest = max(batch.acts.numel() for batch in self.ablation.batches())
        for some in _chunks(width, VALUES // largest):
            yield torch.cat([self._copies(batch, some) for batch in self.ablation.batches()], dim=1)

    def _changed(self, reads: Sequence[_Read], channels: slice) -> Tensor:
        outputs = []
        for r in reads:
            moved, w = (r.base - r.acts)[:, channels], r.kernels[:, channels].transpose(0, 1)  # (n, K, ..), (K, O, ..)
            natural, conv = r.natural + r.reader.bias(), r.reader.conv
            if r.kernels.shape[2:] == (1, 1) and conv.stride == (1, 1) and conv.padding == (0, 0):
                out = torch.addcmul(natural[None], moved.transpose(0, 1)[:, :, None], w[:, None])
            else:
                flat = r.reader.convolve(moved, w.reshape(-1, 1, *w.shape[2:]), groups=len(w))
                out = natural[None] + flat.view(len(flat), len(w), -1, *flat.shape[2:]).transpose(0, 1)
            outputs.append((r.reader, out.flatten(0, 1)))
        return self._values(outputs, len(reads[0].acts))

    def _values(self, outputs: Sequence[tuple[Reader, Tensor]], n: int) -> Tensor:
        values = self.ablation.target.values(self.ablation.segment.respond_after(outputs))
        return values.reshape(-1, n, *values.shape[1:])

    def _copies(self, batch: Batch, channels: slice) -> Tensor:
        """Whole copies of the activations, one edited for each unit."""
        n, some, ablation = len(batch.acts), range(*channels.indices(self.source.width)), self.ablation
        context = ablation.segment.picked(batch.context, list(range(n)) * len(some), n)
        if isinstance(self.source, Latents):
            acts = self.source.without_each(some, batch.acts, batch.parts, batch.baselines[self.layer])
            values = ablation.target.values(ablation.segment.respond(acts.flatten(0, 1), context))
            return values.reshape(-1, n, *values.shape[1:])
        masks = torch.ones((len(some), self.source.width), dtype=torch.bool, device=batch.acts.device)
        masks[torch.arange(len(some)), list(some)] = False
        acts = batch.acts.repeat(len(some), 1, 1, 1)
        baselines = {k: v if len(v) == 1 else v.repeat(len(some), 1, 1, 1) for k, v in batch.baselines.items()}
        rows = masks.repeat_interleave(n, dim=0)
        values = ablation.ablated(Batch(acts, acts, context, baselines), {self.layer: rows})
        return values.reshape(-1, n, *values.shape[1:])

    @torch.no_grad()
    def keep(self, units: set[int]) -> Tensor:
        """Response `(N, h, w)` with all units of the layer but these ablated."""
        if self._reads is None:
            return self.ablation.respond({self.layer: units})
        chosen = self.source.parts_of(units)
        rows = []
        for reads in self._reads:
            outputs = []
            for r in reads:
                part = r.reader.convolve((r.acts - r.base)[:, chosen], r.kernels[:, chosen]) if chosen else 0.0
                outputs.append((r.reader, r.ablated + part + r.reader.bias()))
            rows.append(self._values(outputs, len(reads[0].acts))[0])
        return torch.cat(rows)


def responder(ablation: Ablation) -> Callable[[UnitsByLayer], Tensor]:
    """What gives the response `(N, h, w)` of a circuit: by channels where it is of one layer, else run by run."""
    if len(ablation.layers) > 1:
        return ablation.respond
    (layer,), runs = ablation.layers, ChannelEdits(ablation)
    return lambda units: runs.keep(units[layer])


def _chunks(width: int, per: int) -> list[slice]:
    return [slice(i, min(i + max(1, per), width)) for i in range(0, width, max(1, per))]
