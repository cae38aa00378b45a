"""Examples of sparse features, for many toy models at once.

All models of a sweep read the same uniform numbers, one stream for each feature and `data_seed`; what differs is what
a model makes of them: at density p the number u stands for `1 - u / p` where that is above 0, which it is with
probability p, uniform in [0, 1]. So models of one density share their examples, nothing is drawn twice, and a model
sees the same examples whatever it is trained beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sae.superposition.toy.toy_models import Sets, ToyModel

TRAINING, EVALUATION = 0, 1
"""Which draws: what is trained on is never what is judged on."""


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
        """Whether it has sets, so that whether and how much are two draws."""
        return bool(self.correlated or self.exclusive)

    @property
    def even(self) -> bool:
        """Whether all features have one density and none is in a set."""
        return not self.gated and len(set(self.densities)) == 1


@dataclass(frozen=True)
class Drawn:
    """Uniform numbers for one batch.

    Attributes:
        values: `(streams, features, batch)`; sets: `(seeds, features, batch)`, where some law has sets.
        counts: by law, how many of the first examples may hold a feature: from there on all are nothing.
    """

    values: Tensor
    sets: Tensor | None
    counts: list[int]


class Draws:
    """Uniform numbers for batches, by seed and feature.

    Numbers come in blocks of several batches, which changes nothing but the speed. A feature's numbers do not depend
    on how many others there are. Within a batch examples stand in the order of their smallest number: those that are
    nothing at one density are then the last of the batch, at any density.

    Args:
        laws: of all models.
        batch: examples.
        which: `TRAINING` or `EVALUATION`.
        block: batches at a time.
        ordered: False leaves examples in the order they were drawn in.
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
        # a stream is a seed's numbers in the order for so many features, or (0) as they were drawn
        keys = [(law.data_seed, len(law.densities) if ordered and law.even else 0) for law in laws]
        self.streams = list(dict.fromkeys(keys))
        self.stream_of = [self.streams.index(key) for key in keys]
        self._densities = [law.densities[0] if key[1] else None for law, key in zip(laws, keys, strict=True)]
        # a second column of numbers says whether a set is active
        self._generators = [
            [[_generator(seed, i, 2 * g + which, device) for i in range(self.features)] for seed in self.seeds]
            for g in range(2 if self.gated else 1)
        ]
        shape = (len(self._generators), len(self.seeds), self.features, block, batch)
        self._numbers = torch.empty(shape, device=device, dtype=dtype)
        self._values = torch.empty((len(self.streams), *shape[2:]), device=device, dtype=dtype)
        self._counts: list[list[int]] = []
        self._block, self._next = block, block

    def next(self) -> Drawn:
        """Numbers of the next batch."""
        if self._next == self._block:
            self._fill()
            self._next = 0
        i = self._next
        self._next += 1
        sets = self._numbers[1, :, :, i] if self.gated else None
        return Drawn(self._values[:, :, i], sets, self._counts[i])

    def _fill(self) -> None:
        for numbers, generators in zip(self._numbers, self._generators, strict=True):
            for row, streams in zip(numbers, generators, strict=True):
                for place, stream in zip(row, streams, strict=True):
                    torch.rand(place.shape, generator=stream, out=place)
        least: dict[int, Tensor] = {}
        for i, (seed, features) in enumerate(self.streams):
            drawn = self._numbers[0, self.seeds.index(seed)]
            if features:
                least[i], order = drawn[:features].amin(dim=0).sort(dim=1, stable=True)
                torch.gather(drawn, 2, order.expand(len(drawn), -1, -1), out=self._values[i])
            else:
                self._values[i] = drawn
        block, batch = self._values.shape[2:]
        whole = torch.full((block,), batch, device=self._values.device)
        counts = [
            whole if p is None else (least[i] < p).sum(dim=1)
            for i, p in zip(self.stream_of, self._densities, strict=True)
        ]
        self._counts = torch.stack(counts, dim=1).tolist()


def _generator(seed: int, feature: int, which: int, device: torch.device) -> torch.Generator:
    state = np.random.SeedSequence((seed, feature, which)).generate_state(2, np.uint32)
    return torch.Generator(device=device).manual_seed(int(state[0]) << 32 | int(state[1]))


class Sampler:
    """Makes examples of uniform numbers for K laws, all with sets or all without, all signed or none.

    Args:
        laws: the K laws, which are `rows` of those that numbers are drawn for.
        draws: the numbers.
    """

    def __init__(
        self, laws: Sequence[Law], draws: Draws, rows: slice, device: torch.device, dtype: torch.dtype
    ) -> None:
        count = draws.features

        def column(values: list[list[float]]) -> Tensor:
            return torch.tensor(values, device=device, dtype=dtype)[:, :, None]

        self.signed, self.gated = laws[0].signed, laws[0].gated
        self._streams = _places(draws.stream_of[rows], device)
        self._seeds = _places([draws.seeds.index(law.data_seed) for law in laws], device)
        padded = [[*law.densities, *[0.0] * (count - len(law.densities))] for law in laws]
        # a feature that a smaller model lacks never exceeds 0
        self._start = column([[float(p > 0) for p in row] for row in padded])
        self._slope = column([[-1 / p if p > 0 else -1.0 for p in row] for row in padded])
        leads, low, high = zip(*(_gates(law, count) for law in laws), strict=True)
        self._leads = torch.tensor(leads, device=device)[:, :, None]
        self._low, self._high = column(list(low)), column(list(high))

    def fill(self, x: Tensor, drawn: Drawn) -> None:
        """Write examples into `x (K, features, count)`: the first so many of the batch."""
        count = x.shape[2]
        values = drawn.values[self._streams, :, :count]
        if not self.gated:
            torch.addcmul(self._start, values, self._slope, out=x)
            if self.signed:
                x.mul_(2).sub_(1).mul_(x > -1)
            else:
                x.clamp_min_(0)
            return
        assert drawn.sets is not None
        sets = drawn.sets[self._seeds, :, :count].expand(len(self._leads), -1, -1)
        lead = sets.gather(1, self._leads.expand(-1, -1, sets.shape[2]))
        active = (lead >= self._low) & (lead < self._high)
        torch.mul(2 * values - 1 if self.signed else values, active, out=x)


def _places(indices: Sequence[int], device: torch.device) -> slice | Tensor:
    """An index that takes no copy where all are one."""
    first = indices[0]
    return slice(first, first + 1) if len(set(indices)) == 1 else torch.tensor(indices, device=device)


def _gates(law: Law, count: int) -> tuple[list[int], list[float], list[float]]:
    """By feature: whose number says whether it is active, and between which bounds that number then lies."""
    leads = list(range(count))
    low = [0.0] * count
    high = [*law.densities, *[0.0] * (count - len(law.densities))]
    for group in law.correlated:
        for i in group:
            leads[i] = group[0]
    for group in law.exclusive:
        for place, i in enumerate(group):
            p = law.densities[i]
            leads[i], low[i], high[i] = group[0], place * p, (place + 1) * p
    return leads, low, high


def sample(model: ToyModel, count: int, *, seed: int = 0, device: torch.device | str = "cpu") -> Tensor:
    """Examples `(count, features)` of a model's features, other than those it is trained on.

    >>> sample(ToyModel(5, 2, density=0.1), 1000).shape
    torch.Size([1000, 5])
    """
    place, law = torch.device(device), Law.of(model)
    law = Law(law.densities, law.correlated, law.exclusive, law.signed, seed)
    draws = Draws([law], count, EVALUATION, place, torch.float32, block=1, ordered=False)
    x = torch.empty(1, model.features, count, device=place)
    Sampler([law], draws, slice(0, 1), place, torch.float32).fill(x, draws.next())
    return x[0].T.contiguous()
