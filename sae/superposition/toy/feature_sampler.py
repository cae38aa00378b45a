"""Examples of sparse features, for many toy models at once.

All models of a sweep read the same uniform numbers u, one stream for each feature and `data_seed`. At density p the
feature is `max(0, 1 - u / p)`: above 0 with probability p, and then uniform in [0, 1]. So models of one density share
their examples, no number is sampled twice, and a model sees the same examples whatever it is trained beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sae.superposition.toy.toy_models import Sets, ToyModel

TRAINING, EVALUATION = 0, 1
"""Two disjoint sets of random numbers, so that no model is evaluated on its training examples."""


@dataclass(frozen=True)
class Law:
    """The distribution of a model's examples; models with equal laws see equal examples."""

    densities: tuple[float, ...]
    correlated: Sets
    exclusive: Sets
    signed: bool
    data_seed: int

    @classmethod
    def of(cls, model: ToyModel) -> Law:
        """The law of a model."""
        return cls(model.densities, model.correlated, model.exclusive, model.kind == "absolute", model.data_seed)

    @property
    def gated(self) -> bool:
        """Whether it has sets of features: activity and value are then two separate random numbers."""
        return bool(self.correlated or self.exclusive)

    @property
    def even(self) -> bool:
        """Whether all features have one density and none is in a set."""
        return not self.gated and len(set(self.densities)) == 1


@dataclass(frozen=True)
class UniformBatch:
    """Uniform numbers for one batch.

    Attributes:
        values: `(streams, features, batch)`; sets: `(seeds, features, batch)`, where some law has sets.
        counts: by law, number of leading examples that may have a feature; all after them are 0.
    """

    values: Tensor
    sets: Tensor | None
    counts: list[int]


class Draws:
    """Uniform numbers for batches, by seed and feature.

    Numbers are sampled in blocks of several batches, which changes nothing but the speed. A feature's numbers do not
    depend on the number of features. Within a batch examples are sorted by their smallest number: those without a
    feature then come last, at any density.

    Args:
        laws: of all models.
        batch: examples.
        which: `TRAINING` or `EVALUATION`.
        block: batches at a time.
        ordered: False keeps examples in the order in which they were sampled.
    """

    def __init__(
        self,
        laws: Sequence[Law],
        batch: int,
        which: int,
        device: torch.device,
        dtype: torch.dtype,
        block: int = 16,
        ordered: bool = True,
    ) -> None:
        self.seeds = list(dict.fromkeys(law.data_seed for law in laws))
        self.features = max(len(law.densities) for law in laws)
        self.gated = any(law.gated for law in laws)
        # a stream is a seed's numbers, sorted for that many features, or (0) in the original order
        keys = [(law.data_seed, len(law.densities) if ordered and law.even else 0) for law in laws]
        self.streams = list(dict.fromkeys(keys))
        self.stream_of = [self.streams.index(key) for key in keys]
        self._densities = [law.densities[0] if key[1] else None for law, key in zip(laws, keys, strict=True)]
        # a second set of numbers decides whether a set of features is active
        self._generators = [
            [[_generator(seed, i, 2 * g + which, device) for i in range(self.features)] for seed in self.seeds]
            for g in range(2 if self.gated else 1)
        ]
        shape = (len(self._generators), len(self.seeds), self.features, block, batch)
        self._numbers = torch.empty(shape, device=device, dtype=dtype)
        self._values = torch.empty((len(self.streams), *shape[2:]), device=device, dtype=dtype)
        self._counts: list[list[int]] = []
        self._block, self._next = block, block

    def next(self) -> UniformBatch:
        """Numbers of the next batch."""
        if self._next == self._block:
            self._fill()
            self._next = 0
        i = self._next
        self._next += 1
        sets = self._numbers[1, :, :, i] if self.gated else None
        return UniformBatch(self._values[:, :, i], sets, self._counts[i])

    def _fill(self) -> None:
        for numbers, generators in zip(self._numbers, self._generators, strict=True):
            for row, streams in zip(numbers, generators, strict=True):
                for numbers_of, stream in zip(row, streams, strict=True):
                    torch.rand(numbers_of.shape, generator=stream, out=numbers_of)
        least: dict[int, Tensor] = {}
        for i, (seed, features) in enumerate(self.streams):
            own = self._numbers[0, self.seeds.index(seed)]
            if features:
                least[i], order = own[:features].amin(dim=0).sort(dim=1, stable=True)
                torch.gather(own, 2, order.expand(len(own), -1, -1), out=self._values[i])
            else:
                self._values[i] = own
        block, batch = self._values.shape[2:]
        full = torch.full((block,), batch, device=self._values.device)
        counts = [
            full if p is None else (least[i] < p).sum(dim=1)
            for i, p in zip(self.stream_of, self._densities, strict=True)
        ]
        self._counts = torch.stack(counts, dim=1).tolist()


def _generator(seed: int, feature: int, which: int, device: torch.device) -> torch.Generator:
    state = np.random.SeedSequence((seed, feature, which)).generate_state(2, np.uint32)
    return torch.Generator(device=device).manual_seed(int(state[0]) << 32 | int(state[1]))


class Sampler:
    """Turns uniform numbers into examples for K laws, all with sets or all without, all signed or none.

    Args:
        laws: the K laws, which are `rows` of the laws of `draws`.
        draws: the numbers.
    """

    def __init__(
        self, laws: Sequence[Law], draws: Draws, rows: slice, device: torch.device, dtype: torch.dtype
    ) -> None:
        count = draws.features

        def column(values: list[list[float]]) -> Tensor:
            return torch.tensor(values, device=device, dtype=dtype)[:, :, None]

        self.signed, self.gated = laws[0].signed, laws[0].gated
        self._streams = _compact_index(draws.stream_of[rows], device)
        self._seeds = _compact_index([draws.seeds.index(law.data_seed) for law in laws], device)
        padded = [[*law.densities, *[0.0] * (count - len(law.densities))] for law in laws]
        # a feature that a smaller model lacks never exceeds 0
        self._start = column([[float(p > 0) for p in row] for row in padded])
        self._slope = column([[-1 / p if p > 0 else -1.0 for p in row] for row in padded])
        leads, low, high = zip(*(_gates(law, count) for law in laws), strict=True)
        self._leads = torch.tensor(leads, device=device)[:, :, None]
        self._low, self._high = column(list(low)), column(list(high))

    def fill(self, x: Tensor, batch: UniformBatch) -> None:
        """Write examples into `x (K, features, count)`: the first so many of the batch."""
        count = x.shape[2]
        values = batch.values[self._streams, :, :count]
        if not self.gated:
            torch.addcmul(self._start, values, self._slope, out=x)
            if self.signed:
                x.mul_(2).sub_(1).mul_(x > -1)
            else:
                x.clamp_min_(0)
            return
        assert batch.sets is not None
        sets = batch.sets[self._seeds, :, :count].expand(len(self._leads), -1, -1)
        lead = sets.gather(1, self._leads.expand(-1, -1, sets.shape[2]))
        active = (lead >= self._low) & (lead < self._high)
        torch.mul(2 * values - 1 if self.signed else values, active, out=x)


def _compact_index(indices: Sequence[int], device: torch.device) -> slice | Tensor:
    """An index that needs no copy when all entries are equal."""
    first = indices[0]
    return slice(first, first + 1) if len(set(indices)) == 1 else torch.tensor(indices, device=device)


def _gates(law: Law, count: int) -> tuple[list[int], list[float], list[float]]:
    """By feature: the index of the number that decides whether it is active, and the bounds for that number."""
    leads = list(range(count))
    low = [0.0] * count
    high = [*law.densities, *[0.0] * (count - len(law.densities))]
    for group in law.correlated:
        for i in group:
            leads[i] = group[0]
    for group in law.exclusive:
        for rank, i in enumerate(group):
            p = law.densities[i]
            leads[i], low[i], high[i] = group[0], rank * p, (rank + 1) * p
    return leads, low, high


def sample(model: ToyModel, count: int, *, seed: int = 0, device: torch.device | str = "cpu") -> Tensor:
    """Examples `(count, features)` of a model's features, different from its training examples.

    >>> sample(ToyModel(5, 2, density=0.1), 1000).shape
    torch.Size([1000, 5])
    """
    device, law = torch.device(device), Law.of(model)
    law = Law(law.densities, law.correlated, law.exclusive, law.signed, seed)
    draws = Draws([law], count, EVALUATION, device, torch.float32, block=1, ordered=False)
    x = torch.empty(1, model.features, count, device=device)
    Sampler([law], draws, slice(0, 1), device, torch.float32).fill(x, draws.next())
    return x[0].T.contiguous()
