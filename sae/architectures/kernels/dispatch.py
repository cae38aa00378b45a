"""The choice of a path by shape and device."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch

from sae.architectures.kernels.backend import Path
from sae.architectures.kernels.dense import Dense
from sae.architectures.kernels.embedding_bag import Bags
from sae.errors import SAEError
from zoo.common.checks import one_of

PATHS = ("dense", "bags", "triton")

SPARSE_FROM = {"cpu": 4, "cuda": 64}
"""Latents per active latent, m / k, from which the sparse path is chosen."""

SHAPES = ((256, 4096, 32), (512, 4096, 32), (512, 8192, 32), (832, 8192, 64), (768, 32768, 32), (2304, 65536, 32))

_forced: ContextVar[str | None] = ContextVar("sae_kernels_path", default=None)


@dataclass(frozen=True)
class Choice:
    """The path for one shape, and why.

    Attributes:
        d, m, k: width of an input, latents, active latents; device: "cpu", "cuda", ...
        path: one of `PATHS`; reason: of the choice.
        dense, sparse: operations per input of a dense step and of the sparse one.
    """

    d: int
    m: int
    k: int
    device: str
    path: str
    reason: str
    dense: int
    sparse: int


def operations(d: int, m: int, k: int | None = None) -> int:
    """Multiplications and additions per input of a training step: `12dm` dense, or `2dm + 8kd` with k active latents.

    Dense is two products forward and, for the gradient of each of their factors, four backward. The sparse step
    keeps the encoder's product; the reconstruction, the gradient of the latents, and those of both matrices touch
    k rows each.

    >>> operations(512, 4096), operations(512, 4096, 32)
    (25165824, 4325376)
    """
    return 12 * d * m if k is None else 2 * d * m + 8 * k * d


def choose(d: int, m: int, k: int, device: str | torch.device = "cpu") -> Choice:
    """The path for inputs of width d, m latents of which k are active, on a device.

    On the CPU the rule is measured (`benchmarks/sae.py --paths`): the sparse path wins for every width as soon as
    there are four latents per active one. On a GPU it is an estimate from bandwidth and arithmetic.

    >>> choose(512, 4096, 32).path, choose(512, 64, 32).path
    ('bags', 'dense')
    """
    kind = torch.device(device).type
    forced = _forced.get()
    ratio = m / k
    if forced is not None:
        path, reason = forced, "set by using()"
    elif kind == "cpu":
        path = "bags" if ratio >= SPARSE_FROM["cpu"] else "dense"
        reason = f"m / k = {ratio:.4g}; measured: sparse from {SPARSE_FROM['cpu']}"
    elif kind != "cuda":
        path, reason = "dense", f"no sparse kernels for {kind}"
    elif not _has_triton():
        path, reason = "dense", "Triton is not installed"
    else:
        path = "triton" if ratio >= SPARSE_FROM["cuda"] else "dense"
        reason = f"m / k = {ratio:.4g}; estimated, not measured: sparse from {SPARSE_FROM['cuda']}"
    return Choice(d, m, k, kind, path, reason, operations(d, m), operations(d, m, k))


def path_of(d: int, m: int, k: int, device: str | torch.device = "cpu") -> Path:
    """The path that `choose` names."""
    return _path(choose(d, m, k, device).path)


@contextmanager
def using(name: str) -> Iterator[None]:
    """While open, use this path instead of the rule's.

    Raises:
        SAEError: there is no such path, or it cannot be used here.

    >>> with using("dense"):
    ...     choose(512, 4096, 32).path
    'dense'
    """
    one_of("path", name, PATHS, error=SAEError)
    _path(name)
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def describe(device: str | torch.device | None = None) -> list[dict[str, Any]]:
    """The choices for a few usual shapes, as JSON-ready rows; on the GPU if there is one.

    >>> describe("cpu")[1]["path"]
    'bags'
    """
    target = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return [asdict(choose(d, m, k, target)) for d, m, k in SHAPES]


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@cache
def _path(name: str) -> Path:
    if name == "dense":
        return Dense()
    if name == "bags":
        return Bags()
    if not _has_triton():
        raise SAEError("the path 'triton' needs Triton, which comes with torch for CUDA; it is not installed here")
    from sae.architectures.kernels.triton import Segments

    return Segments()
