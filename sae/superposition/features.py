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

from sae.superposition.models import Sets, ToyModel

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


class Draws:
    """Uniform numbers `(data seeds, features, batch)`, a new one each time, by seed and feature.

    Numbers come in blocks of several batches, which changes nothing but the speed. A feature's numbers do not depend
    on how many others there are.
    """

    def __init__(
        self, laws: Sequence[Law], batch: int, which: int, device: torch.device, dtype: torch.dtype, block: int = 16
    ) -> None:
        self.seeds = list(dict.fromkeys(law.data_seed for law in laws))
        self.features = max(len(law.densities) for law in laws)
        self.gated = any(law.gated for law in laws)
        # a second column of numbers says whether a set is active
        self._generators = [
            [[_generator(seed, i, 2 * g + which, device) for i in range(self.features)] for seed in self.seeds]
            for g in range(2 if self.gated else 1)
        ]
        shape = (len(self._generators), len(self.seeds), self.features, block, batch)
        self._numbers = torch.empty(shape, device=device, dtype=dtype)
        self._block, self._next = block, block

    def next(self) -> tuple[Tensor, Tensor | None]:
        """Numbers for values, and for sets, if there are any: `(seeds, features, batch)` each."""
        if self._next == self._block:
            for numbers, generators in zip(self._numbers, self._generators, strict=True):
                for row, streams in zip(numbers, generators, strict=True):
                    for place, stream in zip(row, streams, strict=True):
                        torch.rand(place.shape, generator=stream, out=place)
            self._next = 0
        values = self._numbers[:, :, :, self._next]
        self._next += 1
        return values[0], values[1] if self.gated else None


def _generator(seed: int, feature: int, which: int, device: torch.device) -> torch.Generator:
    state = np.random.SeedSequence((seed, feature, which)).generate_state(2, np.uint32)
    return torch.Generator(device=device).manual_seed(int(state[0]) << 32 | int(state[1]))


class Sampler:
    """Makes examples of uniform numbers for K laws, all with sets or all without, all signed or none."""

    def __init__(self, laws: Sequence[Law], draws: Draws, device: torch.device, dtype: torch.dtype) -> None:
        count = draws.features

        def column(values: list[list[float]]) -> Tensor:
            return torch.tensor(values, device=device, dtype=dtype)[:, :, None]

        self.signed, self.gated = laws[0].signed, laws[0].gated
        seeds = [draws.seeds.index(law.data_seed) for law in laws]
        one = len(set(seeds)) == 1
        self._streams = slice(seeds[0], seeds[0] + 1) if one else torch.tensor(seeds, device=device)
        padded = [[*law.densities, *[0.0] * (count - len(law.densities))] for law in laws]
        # a feature that a smaller model lacks never exceeds 0
        self._start = column([[float(p > 0) for p in row] for row in padded])
        self._slope = column([[-1 / p if p > 0 else -1.0 for p in row] for row in padded])
        leads, low, high = zip(*(_gates(law, count) for law in laws), strict=True)
        self._leads = torch.tensor(leads, device=device)[:, :, None]
        self._low, self._high = column(list(low)), column(list(high))

    def fill(self, x: Tensor, draws: tuple[Tensor, Tensor | None]) -> None:
        """Write examples into `x (K, features, batch)`."""
        values = draws[0][self._streams]
        if not self.gated:
            torch.addcmul(self._start, values, self._slope, out=x)
            if self.signed:
                x.mul_(2).sub_(1).mul_(x > -1)
            else:
                x.clamp_min_(0)
            return
        assert draws[1] is not None
        sets = draws[1][self._streams].expand(len(self._leads), -1, -1)
        drawn = sets.gather(1, self._leads.expand(-1, -1, sets.shape[2]))
        active = (drawn >= self._low) & (drawn < self._high)
        torch.mul(2 * values - 1 if self.signed else values, active, out=x)


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
    draws = Draws([law], count, EVALUATION, place, torch.float32, block=1)
    x = torch.empty(1, model.features, count, device=place)
    Sampler([law], draws, place, torch.float32).fill(x, draws.next())
    return x[0].T.contiguous()
