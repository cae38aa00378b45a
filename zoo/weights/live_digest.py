"""The digest of a network's weights as they are now, also after somebody trained it or loaded a checkpoint into it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from zoo.weights.loading import digest, state_entries, tensor_bytes

WHOLE_BYTES = 128 * 2**20
"""Up to this size every byte is compared: 10 ms for GoogLeNet's 28 MB on one core, where SHA-256 takes 30 ms."""

_SAMPLE = 4096
_HELD: ContextVar[dict[int, str] | None] = ContextVar("_HELD", default=None)


@contextmanager
def weights_held() -> Iterator[None]:
    """While a piece of work runs that changes no weights, compare those of each network once; in this thread."""
    token = _HELD.set({})
    try:
        yield
    finally:
        _HELD.reset(token)


class LiveDigest:
    """Gives the digest of a module's weights, computed again when they have changed since.

    A change is seen by a checksum over all bytes. Of networks above `WHOLE_BYTES` the checksum covers torch's count of
    in-place changes, the address and 4,096 evenly spread values of each tensor: what it can miss there is a
    change through `.data` of values between those.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._checksum: int | None = None
        self._digest = ""

    def __call__(self) -> str:
        """SHA-256 as `zoo.weights.loading.digest` has it."""
        held = _HELD.get()
        if held is not None and id(self) in held:
            return held[id(self)]
        state = self.module.state_dict()
        checksum = _checksum(state)
        if checksum != self._checksum:
            self._digest, self._checksum = digest(state), checksum
        if held is not None:
            held[id(self)] = self._digest
        return self._digest


def _checksum(state: dict[str, Tensor]) -> int:
    entries = list(state_entries(state))
    size = sum(value.numel() * value.element_size() for _, value in entries if isinstance(value, Tensor))
    total = 0
    for name, value in entries:
        total = zlib.crc32(name.encode(), total)
        if not isinstance(value, Tensor):
            total = zlib.crc32(value.encode(), total)
            continue
        about: list[object] = [str(value.dtype), tuple(value.shape)]
        if size > WHOLE_BYTES:
            about += [value.data_ptr(), 0 if value.is_inference() else value._version]
            value = _spread(value)
        total = zlib.crc32(tensor_bytes(value).data, zlib.crc32(repr(about).encode(), total))
    return total


def _spread(value: Tensor) -> Tensor:
    flat = value.detach().reshape(-1)
    if flat.is_quantized or len(flat) <= _SAMPLE:
        return flat
    return flat[torch.linspace(0, len(flat) - 1, _SAMPLE, dtype=torch.float64, device=flat.device).long()]
