"""The SAE as it starts: random directions, read and written, with the statistics of its inputs."""

from __future__ import annotations

from torch import Tensor

from sae.architectures.base import SAE, SAEConfig, build
from sae.training.input_normalization import statistics_of


def untrained_sae(config: SAEConfig, acts: Tensor) -> SAE:
    """An untrained SAE, normalized to activations `(N, d)` as it would be at the start of its training."""
    blank: SAE = build(config, acts.shape[1]).eval().requires_grad_(False)
    statistics_of(acts.cpu()).apply(blank)
    return blank
