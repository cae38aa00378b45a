"""Learning rate and sparsity penalty over a training: linear rise, constant, linear fall."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sae.errors import SAEError

REFERENCE_LR, REFERENCE_LATENTS = 2e-4, 2**14


MOST_STEPS = 1000
"""Of a training of minutes."""


def default_lr(latents: int) -> float:
    """`2e-4 * sqrt(2^14 / m)`: the best rate falls with the root of the number of latents (Gao et al. 2024)."""
    return REFERENCE_LR * math.sqrt(REFERENCE_LATENTS / latents)


def short_lr(latents: int) -> float:
    """The rate of a training of minutes, five times `default_lr`.

    It sees each vector a few times, and is over long before a small rate has got anywhere.
    """
    rate: float = 1e-3 * (REFERENCE_LATENTS / latents) ** 0.5
    return rate


def short_size(d: int) -> tuple[int, int]:
    """Latents, and how many of them are active, of an SAE of `d` channels that is trained for minutes.

    Eight latents a channel, at most 4,096; one active for 16 channels, from 4 to 32.

    >>> short_size(512), short_size(48)
    ((4096, 32), (384, 4))
    """
    return min(4096, 8 * d), min(32, max(4, d // 16))


def short_steps(vectors: int) -> int:
    """Steps of a training of minutes: 1,000, or fewer where more would learn few vectors by heart.

    >>> short_steps(361_620), short_steps(6_400), short_steps(900)
    (1000, 400, 100)
    """
    return min(MOST_STEPS, max(100, vectors // 16))


@dataclass(frozen=True)
class Schedule:
    """Factors over `steps` steps.

    Attributes:
        steps: of the whole training.
        warmup: steps over which the learning rate rises from zero.
        decay: share of the steps, at the end, over which it falls to zero.
        sparsity_warmup: steps over which the sparsity penalty rises from zero.
    """

    steps: int
    warmup: int
    decay: float
    sparsity_warmup: int

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1:
            raise SAEError(f"decay={self.decay} is a share of the steps, from 0 to 1")
        for name in ("warmup", "sparsity_warmup"):
            if not 0 <= getattr(self, name) <= self.steps:
                raise SAEError(f"{name}={getattr(self, name)} is a number of the {self.steps} steps")

    def lr(self, step: int) -> float:
        """Factor on the learning rate at a step, counted from 0."""
        up = min(1.0, (step + 1) / (self.warmup + 1))
        falling = self.decay * self.steps
        down = min(1.0, (self.steps - step) / falling) if falling >= 1 else 1.0
        return up * down

    def sparsity(self, step: int) -> float:
        """Factor on the sparsity penalty at a step."""
        return min(1.0, (step + 1) / (self.sparsity_warmup + 1))
