"""Bases to steer in: the latents of an SAE, the directions of any basis, or the channels themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from circuits.network.basis import Basis
from sae.architectures.base import SAE
from sae.data.site import ROWS, Site, check_fits
from sae.errors import SAEError

Dictionary: TypeAlias = Basis | None
"""An SAE or another basis; None stands for the channels."""


@dataclass(frozen=True)
class Channels:
    """The channels of a site as a basis: latent i is channel i, and writes to it alone.

    Attributes:
        d: number of channels.

    >>> Channels(3).encode(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """

    d: int

    @property
    def read(self) -> Tensor:
        """The identity `(d, d)`."""
        return torch.eye(self.d)

    @property
    def write(self) -> Tensor:
        """The identity `(d, d)`."""
        return torch.eye(self.d)

    def encode(self, acts: Tensor) -> Tensor:
        """The activations `(N, d)` themselves."""
        return acts

    def decode(self, latents: Tensor) -> Tensor:
        """The latents `(N, d)` themselves."""
        return latents


def basis_at(s: Dictionary, site: Site) -> Basis:
    """The basis for a dictionary at a site; for None, its channels.

    Raises:
        SAEError: it is no basis, has another width, or was trained on another layer or other weights.
    """
    if s is None:
        return Channels(site.d)
    if isinstance(s, SAE):
        check_fits(s, site)
        return s
    if any(not hasattr(s, name) for name in ("read", "write", "encode")):
        raise SAEError(f"give an SAE, another basis, or None for the channels; got {type(s).__name__}")
    if s.read.shape[1] != site.d:
        raise SAEError(f"these directions are {s.read.shape[1]} wide; {site.address} has {site.d} channels")
    return s


def size_of(basis: Basis) -> int:
    """Number of latents of a basis."""
    return basis.d if isinstance(basis, Channels) else len(basis.read)


def check_latent(latent: Any, basis: Basis) -> int:
    """`latent`, when the basis has it.

    Raises:
        SAEError: it is out of range, or no whole number.
    """
    count, noun = size_of(basis), "channels" if isinstance(basis, Channels) else "latents"
    if isinstance(latent, bool) or not isinstance(latent, int) or not 0 <= latent < count:
        raise SAEError(f"there are {count} {noun}, 0 to {count - 1}; asked for {latent!r}")
    return latent


def address_of(latent: int, s: Dictionary, site: Site, name: str) -> str:
    """The address of a latent, or of a channel."""
    channel = s is None or isinstance(s, Channels)
    return f"{site.address}:{latent}" if channel else f"{site.address}~{name}:{latent}"


@torch.no_grad()
def in_parts(basis: Basis, vectors: Tensor, function: Callable[[Tensor], None]) -> None:
    """Call `function` with the latents `(rows, m)` of vectors `(n, d)`, `ROWS` rows at a time to bound memory."""
    device = basis.read.device
    for part in torch.split(vectors, ROWS):
        function(basis.encode(part.to(device) if not isinstance(basis, Channels) else part))
