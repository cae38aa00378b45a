"""Streams: where training vectors come from, and how a broken run finds its place again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from sae.checks import check_activations, whole
from sae.errors import SAEError, TrainingError, shorten
from sae.seeding import ORDER, generator

DEFAULT_BATCH = 4096


@runtime_checkable
class Stream(Protocol):
    """An iterator over float tensors `(n, d)` that can tell its position and go back to it.

    Where several processes share a training, each reads a stream of its own. One that would give all of them the
    same vectors has a method `share(rank, world)`, called before anything is read: from then on it gives this rank's
    part of them (as `TensorStream` does), or is wrapped in `RankShare`.
    """

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
        rank, world: give the `rank`-th of `world` parts of every `world * batch_size` vectors. Left out, `train` says
            which, so that processes that train together see different vectors of one tensor; 0 and 1 where each has
            a tensor of its own.

    Raises:
        SAEError: no `(n, d)` float tensor, empty, or with values that are not finite; no such rank.

    >>> next(TensorStream(torch.randn(10, 3), batch_size=4)).shape
    torch.Size([4, 3])
    """

    def __init__(
        self, x: Tensor, batch_size: int = DEFAULT_BATCH, seed: int = 0, *, shuffle: bool = True,
        rank: int | None = None, world: int | None = None,
    ) -> None:  # fmt: skip
        self.x = check_activations(x)
        whole("batch_size", batch_size)
        if (rank is None) != (world is None):
            raise SAEError("give rank= and world= both, or neither")
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.fixed_share = rank is not None
        self.rank, self.world = checked_share(rank or 0, 1 if world is None else world)
        self.epoch, self.cursor = 0, 0
        self._order: Tensor | None = None
        self._digest: str | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tensor:
        parts, passed, first = [], 0, self.rank * self.batch_size
        while passed < self.batch_size * self.world:
            picked = self.order()[self.cursor : self.cursor + self.batch_size * self.world - passed]
            own = picked[max(0, first - passed) : max(0, first + self.batch_size - passed)]
            if len(own):
                parts.append(self.x[own])
            passed += len(picked)
            self.cursor += len(picked)
            if self.cursor == len(self.x):
                self.epoch, self.cursor, self._order = self.epoch + 1, 0, None
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def share(self, rank: int, world: int) -> None:
        """Give the `rank`-th of `world` parts from now on, unless it was told its part when it was made."""
        if not self.fixed_share:
            self.rank, self.world = checked_share(rank, world)

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
        # of all ranks: the same position holds for another number of them with as many vectors together
        together = self.batch_size * self.world
        return {"digest": self.digest, "batch_size": together, "seed": self.seed, "shuffle": self.shuffle}

    def tell(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "cursor": self.cursor, **self._identity()}

    def seek(self, position: Mapping[str, Any]) -> None:
        own = self._identity()
        other = [name for name, value in own.items() if position.get(name) != value]
        if other:
            what = "; ".join(f"{n} is {shorten(own[n], 20)}, was {shorten(position.get(n), 20)}" for n in other)
            raise TrainingError(f"the position belongs to another stream of vectors: {what}")
        self.epoch, self.cursor, self._order = int(position["epoch"]), int(position["cursor"]), None


def checked_share(rank: int, world: int) -> tuple[int, int]:
    """`rank` and `world` when the one is a part of the other.

    Raises:
        SAEError: it is not.
    """
    whole("world", world)
    if not isinstance(rank, int) or not 0 <= rank < world:
        raise SAEError(f"rank={shorten(rank)} is none of the {world} ranks, 0 to {world - 1}")
    return rank, world


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

    def share(self, rank: int, world: int) -> None:
        """Hand on which part is wanted."""
        share(self.inner, rank, world)
        self._before = self.inner.tell()

    def tell(self) -> dict[str, Any]:
        return {"chunk": self._before, "used": self._used, "batch_size": self.batch_size}

    def seek(self, position: Mapping[str, Any]) -> None:
        if position.get("batch_size") != self.batch_size:
            raise TrainingError(f"the position is of batches of {position.get('batch_size')}, not {self.batch_size}")
        self.inner.seek(position["chunk"])
        self._before, self._used = dict(position["chunk"]), int(position["used"])
        self._chunk = next(self.inner) if self._used else None


class RankShare:
    """Another stream whose batches are dealt out to ranks in turn: each reads all and keeps its own.

    For streams that can be read anywhere and cost little to read, compared with a step.

    >>> next(RankShare(TensorStream(torch.arange(8.0)[:, None], 2, shuffle=False), rank=1, world=2))[:, 0]
    tensor([2., 3.])
    """

    def __init__(self, inner: Stream, rank: int | None = None, world: int | None = None) -> None:
        if (rank is None) != (world is None):
            raise SAEError("give rank= and world= both, or neither")
        self.inner, self.fixed_share = inner, rank is not None
        self.rank, self.world = checked_share(rank or 0, 1 if world is None else world)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tensor:
        batches = [next(self.inner) for _ in range(self.world)]  # a last round that is not whole is left
        return batches[self.rank]

    def share(self, rank: int, world: int) -> None:
        """Keep the `rank`-th of every `world` batches from now on, unless it was told when it was made."""
        if not self.fixed_share:
            self.rank, self.world = checked_share(rank, world)

    def tell(self) -> dict[str, Any]:
        return self.inner.tell()

    def seek(self, position: Mapping[str, Any]) -> None:
        self.inner.seek(position)


def share(stream: Stream, rank: int, world: int) -> None:
    """Tell a stream which part of its vectors is wanted, if it can be told."""
    method = getattr(stream, "share", None)
    if callable(method):
        method(rank, world)


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
