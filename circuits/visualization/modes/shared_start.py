"""Images that all start from the same noise, so that they differ by their objectives only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

from circuits.visualization.parametrizations import Device, Factory, Fourier, Parametrization, Size


@dataclass(frozen=True)
class SharedStart:
    """A start like `of`, but the same for all images, whatever their seeds.

    Attributes:
        of: the parametrization; seed: of them all.
        sd: standard deviation of the start, where `of` has one: what further attempts for a silent unit raise.
    """

    of: Any
    seed: int
    sd: float | None = None

    def __call__(self, seeds: Sequence[int], size: Size, channels: int = 3, device: Device = "cpu") -> Parametrization:
        of: Factory = self.of if self.sd is None else replace(self.of, sd=self.sd)
        return of([self.seed] * len(seeds), size, channels, device)


def shared_start(start: Factory | None, seed: int) -> SharedStart:
    """All images from one start; Fourier's by default."""
    of = start or Fourier()
    return SharedStart(of, seed, getattr(of, "sd", None) if is_dataclass(of) else None)
