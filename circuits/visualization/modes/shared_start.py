"""Pictures that all start from the same noise, so that what differs between them is what is looked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

from circuits.visualization.parametrizations import Device, Factory, Fourier, Parametrization, Size


@dataclass(frozen=True)
class Alike:
    """A start like `of`, but the same for all pictures, whatever their seeds.

    Attributes:
        of: the parametrization; seed: of them all.
        sd: how loud the start is, where `of` says so: what further attempts for a silent unit raise.
    """

    of: Any
    seed: int
    sd: float | None = None

    def __call__(self, seeds: Sequence[int], size: Size, channels: int = 3, device: Device = "cpu") -> Parametrization:
        of: Factory = self.of if self.sd is None else replace(self.of, sd=self.sd)
        return of([self.seed] * len(seeds), size, channels, device)


def alike(start: Factory | None, seed: int) -> Alike:
    """All from one start; Fourier's by default."""
    of = start or Fourier()
    return Alike(of, seed, getattr(of, "sd", None) if is_dataclass(of) else None)
