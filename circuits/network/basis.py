"""Directions in a layer's activation space, addressed like channels: `layer~name:index`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from circuits.errors import ModelError


class Basis(Protocol):
    """A dictionary of directions in a layer's activation space: an SAE, or any set of directions."""

    @property
    def read(self) -> Tensor:
        """Directions `(m, d)` that latents are read along."""

    @property
    def write(self) -> Tensor:
        """Directions `(m, d)` that latents write."""

    def encode(self, acts: Tensor) -> Tensor:
        """Latents `(N, m)` of activations `(N, d)`."""


def reads_linearly(basis: Basis) -> bool:
    """Whether latents are read along the rows of `read`, each by itself; a basis may say by an attribute that not."""
    return bool(getattr(basis, "reads_linearly", True))


def basis_digest(basis: Basis) -> str:
    """SHA-256 of what a basis reads, writes and encodes by: which one it is.

    A basis whose `encode` rests on more than its directions, such as biases, has a method `identity()` that gives it,
    tensors and settings by name.
    """
    total = hashlib.sha256(_bytes(basis.read) + _bytes(basis.write))
    for name, value in sorted(getattr(basis, "identity", dict)().items()):
        total.update(name.encode() + (_bytes(value) if isinstance(value, Tensor) else repr(value).encode()))
    return total.hexdigest()


def _bytes(values: Tensor) -> bytes:
    return values.detach().cpu().float().contiguous().numpy().tobytes()


@dataclass(frozen=True, eq=False)
class Directions:
    """Plain directions as a basis: a latent is the inner product with its direction.

    Attributes:
        read: `(m, d)` directions to read along.
        written: `(m, d)` directions that a latent writes (default: the pseudo-inverse's, so that ablating a
            latent takes out just its own component).

    >>> model.attach("mixed4a", "mine", Directions(vectors))  # doctest: +SKIP
    >>> trace(model, "mixed4a~mine:0", images="scenes:50")  # doctest: +SKIP
    """

    read: Tensor
    written: Tensor | None = None

    def __post_init__(self) -> None:
        if self.read.ndim != 2 or not self.read.is_floating_point():
            raise ModelError(f"directions are a float tensor (m, d); got {tuple(self.read.shape)}, {self.read.dtype}")
        if self.written is not None and self.written.shape != self.read.shape:
            raise ModelError(f"read {tuple(self.read.shape)} and written {tuple(self.written.shape)} differ in shape")
        if not bool((self.read.norm(dim=1) > 0).all()):
            raise ModelError("a direction of length zero reads nothing")

    @property
    def write(self) -> Tensor:
        """Directions `(m, d)` that latents write."""
        return self.read.pinverse().T if self.written is None else self.written

    def encode(self, acts: Tensor) -> Tensor:
        """Inner products `(N, m)` of activations `(N, d)` with the directions."""
        return acts @ self.read.to(acts).T


def latent_maps(encode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """From maps `(N, C, h, w)` to maps of latents `(N, m, h, w)`, by what encodes vectors `(n, C)`."""

    def encoded(acts: Tensor) -> Tensor:
        n, d, height, width = acts.shape
        latents = encode(acts.permute(0, 2, 3, 1).reshape(-1, d))
        return latents.reshape(n, height, width, -1).permute(0, 3, 1, 2)

    return encoded
