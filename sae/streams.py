"""Streams: where training vectors come from, and how a broken run finds its place again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from sae.base import check_activations, whole
from sae.errors import SAEError, TrainingError, shorten
from sae.randomness import ORDER, generator

DEFAULT_BATCH = 4096


@runtime_checkable
class Stream(Protocol):
    """An iterator over float tensors `(n, d)` that can tell its position and go back to it."""

    def __iter__(self) -> Iterator[Tensor]: ...

    def __next__(self) -> Tensor:
        """The next vectors `(n, d)`."""

    def tell(self) -> dict[str, Any]:
        """The position, as JSON."""

    def seek(self, position: Mapping[str, Any]) -> None:
        """Go on as if all that came before `position` had been read.

        Raises:
            CircuitsError: it is no position of this stream.
        """


class TensorStream:
    """Batches of vectors held in memory, without end, in a new random order every epoch.

    A batch that an epoch's end would cut short is filled from the next epoch.

    Args:
        x: `(n, d)` float tensor, on any device; batches are on the same.
        batch_size: vectors per batch.
        seed: of the order.
        shuffle: False gives the vectors in their own order.

    Raises:
        SAEError: no `(n, d)` float tensor, empty, or with values that are not finite.

    >>> next(TensorStream(torch.randn(10, 3), batch_size=4)).shape
    torch.Size([4, 3])
    """

    def __init__(self, x: Tensor, batch_size: int = DEFAULT_BATCH, seed: int = 0, *, shuffle: bool = True) -> None:
        self.x = check_activations(x)
        whole("batch_size", batch_size)
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.epoch, self.cursor = 0, 0
        self._order: Tensor | None = None
        self._digest: str | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tensor:
        parts, wanted = [], self.batch_size
        while wanted:
            picked = self.order()[self.cursor : self.cursor + wanted]
            parts.append(self.x[picked])
            wanted -= len(picked)
            self.cursor += len(picked)
            if self.cursor == len(self.x):
                self.epoch, self.cursor, self._order = self.epoch + 1, 0, None
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def order(self) -> Tensor:
        """The order of this epoch: `(n,)` indices."""
        if self._order is None:
            n = len(self.x)
            if self.shuffle:
                # seeded by the epoch, so that a position needs no state of a generator
                order = torch.randperm(n, generator=generator(self.seed, ORDER, self.epoch))
            else:
                order = torch.arange(n)
            self._order = order.to(self.x.device)
        return self._order

    @property
    def digest(self) -> str:
        """Which vectors these are: SHA-256 of their number, width and up to 1,024 of them."""
        if self._digest is None:
            n, d = self.x.shape
            some = self.x[torch.linspace(0, n - 1, min(n, 1024)).long().to(self.x.device)]
            head = f"{n} {d} {self.x.dtype}".encode()
            self._digest = hashlib.sha256(
                head + some.cpu().contiguous().view(torch.uint8).numpy().tobytes()
            ).hexdigest()
        return self._digest

    def _identity(self) -> dict[str, Any]:
        return {"digest": self.digest, "batch_size": self.batch_size, "seed": self.seed, "shuffle": self.shuffle}

    def tell(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "cursor": self.cursor, **self._identity()}

    def seek(self, position: Mapping[str, Any]) -> None:
        own = self._identity()
        other = [name for name, value in own.items() if position.get(name) != value]
        if other:
            what = "; ".join(f"{n} is {shorten(own[n], 20)}, was {shorten(position.get(n), 20)}" for n in other)
            raise TrainingError(f"the position belongs to another stream of vectors: {what}")
        self.epoch, self.cursor, self._order = int(position["epoch"]), int(position["cursor"]), None


class Rebatched:
    """Another stream cut into batches of one size; the vectors and their order stay.

    >>> next(Rebatched(TensorStream(torch.randn(10, 3), batch_size=4), batch_size=7)).shape
    torch.Size([7, 3])
    """

    def __init__(self, inner: Stream, batch_size: int) -> None:
        whole("batch_size", batch_size)
        self.inner, self.batch_size = inner, batch_size
        self._before = inner.tell()
        self._chunk: Tensor | None = None
        self._used = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tensor:
        parts, wanted = [], self.batch_size
        while wanted:
            if self._chunk is None or self._used == len(self._chunk):
                self._before, self._used = self.inner.tell(), 0
                self._chunk = next(self.inner)  # at the stream's end a rest shorter than a batch is left
                check_activations(self._chunk)
            part = self._chunk[self._used : self._used + wanted]
            parts.append(part)
            self._used += len(part)
            wanted -= len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def tell(self) -> dict[str, Any]:
        return {"chunk": self._before, "used": self._used, "batch_size": self.batch_size}

    def seek(self, position: Mapping[str, Any]) -> None:
        if position.get("batch_size") != self.batch_size:
            raise TrainingError(f"the position is of batches of {position.get('batch_size')}, not {self.batch_size}")
        self.inner.seek(position["chunk"])
        self._before, self._used = dict(position["chunk"]), int(position["used"])
        self._chunk = next(self.inner) if self._used else None


class Replayed:
    """A plain iterable as a stream that can go back to its start, for as long as it is `keeping` its batches.

    It is enough to look at the first batches before training; a checkpoint needs a stream that can restore any
    position.
    """

    def __init__(self, source: Iterable[Tensor]) -> None:
        self.source = iter(source)
        self.count = 0
        self._kept: list[Tensor] = []
        self._ahead: list[Tensor] = []
        self.keeping = True

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tensor:
        batch = self._ahead.pop(0) if self._ahead else next(self.source)
        self.count += 1
        if self.keeping:
            self._kept.append(batch)
        return batch

    def tell(self) -> dict[str, Any]:
        return {"batches": self.count}

    def seek(self, position: Mapping[str, Any]) -> None:
        if position.get("batches") != 0 or not self.keeping:
            raise TrainingError("a plain iterable cannot go back; give a stream with tell() and seek()")
        self._ahead, self._kept, self.count = self._kept + self._ahead, [], 0


def open_stream(data: Stream | Tensor | Iterable[Tensor], batch_size: int | None, seed: int) -> Stream:
    """What `train` takes, as a stream.

    Args:
        data: a stream, a tensor `(n, d)`, or any iterable over such tensors.
        batch_size: vectors per step (default: 4,096 of a tensor, of a stream what it gives).
        seed: of a tensor's order.
    """
    if isinstance(data, Tensor):
        return TensorStream(data, batch_size or DEFAULT_BATCH, seed)
    if isinstance(data, Stream):
        stream: Stream = data
    elif isinstance(data, Iterable):
        stream = Replayed(data)
    else:
        raise SAEError(f"train takes a stream, a tensor (n, d) or an iterable over tensors; got {type(data).__name__}")
    own = getattr(stream, "batch_size", None)
    if batch_size is None or own == batch_size:
        return stream
    if isinstance(stream, Replayed):
        raise SAEError(
            "batch_size= needs a tensor, or a stream with tell() and seek(); an iterable gives its own batches"
        )
    return Rebatched(stream, batch_size)
