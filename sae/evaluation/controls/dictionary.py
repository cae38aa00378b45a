"""What every metric takes: an SAE, or a control of one."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Dictionary(Protocol):
    """Directions in an activation space, of which few are active on an input: every `SAE` is one."""

    @property
    def latents(self) -> int:
        """Number of latents m."""

    @property
    def write(self) -> Tensor:
        """Directions `(m, d)` that latents are multiplied with."""

    def encode(self, acts: Tensor) -> Tensor:
        """Latents `(N, m)`, zero or above, of raw activations `(N, d)`."""

    def decode(self, latents: Tensor) -> Tensor:
        """Raw activations `(N, d)` of latents."""
