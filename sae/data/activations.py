"""Activations to train on: which positions of an input, in memory at once or streamed in windows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sae.checks import whole
from sae.data.shuffle_buffer import WindowStream
from sae.data.site import Block, Site, chosen, digest_of, widths_of, written_of
from sae.data.streams import DEFAULT_BATCH
from sae.errors import SAEError
from sae.seeding import SAMPLING, generator
from zoo.common.checks import one_of, whole_number
from zoo.progress import Progress, reporter

Rule = Literal["uniform", "magnitude"]
MEMORY = 2 * 2**30


@dataclass(frozen=True)
class Sampling:
    """Which positions of an input are training vectors; saved with the SAEs trained on them.

    Metrics are always of all positions, or of uniform ones: vectors sampled by magnitude bias them.

    Attributes:
        per_input: positions of each input, sampled at random without replacement (default: all).
        rule: "uniform", or "magnitude": in proportion to the length of the vector, as is done for early vision.
        margin: positions at the border of a map that are left out, because padding affects them.
        seed: of the sample; every input has its own, whatever the batches.
    """

    per_input: int | None = None
    rule: Rule = "uniform"
    margin: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per_input is not None:
            whole("per_input", self.per_input)
        one_of("rule", self.rule, get_args(Rule), error=SAEError)
        if self.rule == "magnitude" and self.per_input is None:
            raise SAEError("sampling by magnitude needs per_input=, how many positions of each input")
        whole_number("margin", self.margin, least=0, error=SAEError)

    def pick(self, block: Block, indices: Sequence[int] | None = None, again: int = 0) -> tuple[Tensor, Tensor]:
        """Vectors `(n, d)` of a block and their positions `(n, axes)`, input by input.

        Args:
            block: activations of some inputs.
            indices: the index of each input of the stream, on which samples and positions depend (default: its
                number in the stream).
            again: another number is another sample of the same inputs.

        Raises:
            SAEError: the margin leaves no position.
        """
        acts, mask = block.acts, block.mask
        shape = acts.shape[:-1]
        numbers = [block.first + i if indices is None else indices[block.first + i] for i in range(shape[0])]
        there = torch.ones(shape, dtype=torch.bool) if mask is None else mask.cpu().clone()
        if self.margin:
            for axis, size in enumerate(shape[1:], 1):
                if size <= 2 * self.margin:
                    raise SAEError(f"a margin of {self.margin} leaves nothing of {size} positions")
                there.narrow(axis, 0, self.margin).fill_(False)
                there.narrow(axis, size - self.margin, self.margin).fill_(False)
        there = there.flatten(1)
        if self.per_input is not None:
            there = self._sampled(acts.flatten(1, -2), there, numbers, again)
        rows = there.flatten().nonzero()[:, 0]
        vectors = acts.reshape(-1, acts.shape[-1])[rows.to(acts.device)]
        positions = Block(torch.empty(*shape, 0), 0).positions[rows]
        positions[:, 0] = torch.tensor(numbers)[positions[:, 0]]
        return vectors, positions

    def _sampled(self, acts: Tensor, there: Tensor, numbers: Sequence[int], again: int) -> Tensor:
        weights = acts.detach().norm(dim=-1).double().cpu() if self.rule == "magnitude" else torch.ones(there.shape)
        weights = torch.where(there, weights.double(), 0.0)
        sampled = torch.zeros_like(there)
        for row, (weight, number) in enumerate(zip(weights, numbers, strict=True)):
            count = min(self.per_input or 0, int((weight > 0).sum()))
            if count:
                random = generator(self.seed, SAMPLING, number, again)
                sampled[row, torch.multinomial(weight, count, generator=random)] = True
        return sampled

    def describe(self) -> dict[str, Any]:
        """The rule as JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, eq=False)
class Activations:
    """Vectors of a site in memory.

    Attributes:
        vectors: `(n, d)`; positions: `(n, axes)` of each.
        axes: names of the columns of `positions`; metadata: site, inputs and sampling, JSON.
    """

    vectors: Tensor
    positions: Tensor
    axes: tuple[str, ...]
    metadata: dict[str, Any]


def about(site: Site, inputs: Any, sampling: Sampling) -> dict[str, Any]:
    """Metadata of vectors: the site, the inputs, and the sampling of positions."""
    return {
        **site.metadata,
        "inputs": {"digest": digest_of(inputs), "count": len(inputs), "name": getattr(inputs, "name", None)},
        "sampling": sampling.describe(),
    }


def collect(
    site: Site,
    inputs: Any,
    *,
    sampling: Sampling | None = None,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    progress: Progress = None,
) -> Activations:
    """Activations of a site on inputs, in memory.

    Args:
        site: a `VisionSite` or `LanguageSite`.
        inputs: images or texts.
        sampling: which positions (default: all).
        batch_size: inputs per forward pass.
        device: of the vectors (default: that of the network).
        progress: True for a bar, or a function of (done, total).

    Raises:
        SAEError: there are no vectors.

    >>> collect(VisionSite(model, "mixed3b"), "scenes:10").vectors.shape  # doctest: +SKIP
    torch.Size([2560, 48])
    """
    inputs = opened(site, inputs)
    sampling = sampling or Sampling()
    vectors, positions = _gather(site, inputs, None, sampling, 0, batch_size, device, progress)
    return Activations(vectors, positions, site.axes, about(site, inputs, sampling))


def fitting(site: Site, inputs: Any, *, vectors: int, seed: int = 0) -> Sampling:
    """All positions, or as many uniform ones of each input as make about so many vectors together.

    Args:
        site: where they are read; inputs: that it has opened.
        vectors: how many; there is at least one of each input.
        seed: of the sample.
    """
    whole("vectors", vectors)
    positions = positions_of(site, inputs)
    each = max(1, vectors // max(1, len(inputs)))
    return Sampling(seed=seed) if each >= positions else Sampling(each, seed=seed)


def positions_of(site: Site, inputs: Any) -> int:
    """How many positions an input has; texts are of different lengths: of the longest of the first four."""
    some = site.blocks(chosen(inputs, range(min(len(inputs), 4))), batch_size=4)
    return max(math.prod(block.acts.shape[1:-1]) for block in some)


def opened(site: Site, inputs: Any) -> Any:
    """Inputs with a length and a subset, of whatever the site takes."""
    opens = getattr(site, "open", None)
    return opens(inputs) if callable(opens) else inputs


def _gather(
    site: Site, inputs: Any, indices: Sequence[int] | None, sampling: Sampling, again: int, batch_size: int,
    device: str | torch.device | None, progress: Progress,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    some = inputs if indices is None else chosen(inputs, indices)
    parts, all_positions = [], []
    for block in site.blocks(some, batch_size=batch_size, progress=progress):
        vectors, positions = sampling.pick(block, indices, again)
        parts.append(vectors.to(device or vectors.device))
        all_positions.append(positions)
    if not sum(len(p) for p in parts):
        raise SAEError(f"{site.address}: no activations on {len(some)} inputs")
    return torch.cat(parts), torch.cat(all_positions)


class SiteStream(WindowStream):
    """Training vectors from a network, window by window; in one window if memory allows.

    With one window each input is run once, and every epoch shuffles its vectors. Otherwise every epoch runs the inputs
    again, in a new order, and samples new positions. The window may be on a GPU.

    Args:
        site: where to read.
        inputs: images or texts that the site has opened (`site.open`).
        sampling: which positions (default: all).
        batch_size: vectors per batch; seed: of the order.
        memory: bytes that a window may take.
        device: of the windows (default: that of the network).
        forward_batch: inputs per forward pass.
        progress: of filling a window: True for a bar, or a function of (done, total).

    Raises:
        SAEError: no inputs, or no activations.
    """

    def __init__(
        self,
        site: Site,
        inputs: Any,
        *,
        sampling: Sampling | None = None,
        batch_size: int = DEFAULT_BATCH,
        seed: int = 0,
        memory: int = MEMORY,
        device: str | torch.device | None = None,
        forward_batch: int = 32,
        progress: Progress = None,
    ) -> None:
        super().__init__(batch_size, seed)
        whole("memory", memory)
        if not len(inputs):
            raise SAEError(f"{site.address}: no inputs to read activations from")
        self.site, self.inputs, self.sampling = site, inputs, sampling or Sampling()
        self.device, self.forward_batch, self.progress = device, forward_batch, progress
        self.metadata = about(site, inputs, self.sampling)
        some = list(site.blocks(chosen(inputs, range(min(len(inputs), 4))), batch_size=4))
        positions = max(math.prod(block.acts.shape[1:-1]) for block in some)  # texts are of different lengths
        each = min(positions, self.sampling.per_input or positions) * site.d * some[0].acts.element_size()
        self.windows = min(len(inputs), math.ceil(len(inputs) * each / memory))

    @property
    def widths(self) -> tuple[int, int] | None:
        """Those of input and target, where the site is a pair."""
        return widths_of(self.site)

    @property
    def written(self) -> tuple[int, ...] | None:
        """Widths of the vectors side by side in what is reconstructed, where the site has several."""
        return written_of(self.site)

    @property
    def digest(self) -> str:
        """SHA-256 of site, inputs and sampling."""
        return hashlib.sha256(json.dumps(self.metadata, sort_keys=True).encode()).hexdigest()

    @property
    def card(self) -> Mapping[str, Any] | None:
        """How a model of the user's own is opened again, for files of SAEs; `metadata`, without it, is digested."""
        card: Mapping[str, Any] | None = getattr(self.site, "card", None)
        return card

    def load(self, epoch: int, window: int) -> Tensor:
        """The vectors of a window, read from the network."""
        indices = self._split(len(self.inputs), epoch, window)
        if not indices:
            return torch.empty(0, self.site.d, device=self.device)
        with reporter(self.progress, "inputs") as advance:
            vectors, _ = _gather(
                self.site, self.inputs, indices, self.sampling, epoch, self.forward_batch, self.device, advance
            )
        return vectors
