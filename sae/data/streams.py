"""Streams of training vectors, whose position can be saved and restored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from sae.checks import check_activations, whole
from sae.errors import SAEError, TrainingError, shorten
from sae.seeding import ORDER, generator
from zoo.common.checks import whole_number

DEFAULT_BATCH = 4096


@runtime_checkable
class Stream(Protocol):
    """An iterator over float tensors `(n, d)` whose position can be saved and restored.

    If several processes train together, each reads a stream of its own. A stream that would give all of them the same
    vectors has a method `share(rank, world)`, which is called before anything is read and selects the vectors of this
    rank (as in `TensorStream`), or is wrapped in `RankShare`.

    A stream of pairs, for transcoders, has both side by side, `(n, d + d_out)`, and an attribute `widths`, which is
    `(d, d_out)`. A stream of several vectors of one thing, for crosscoders, has them side by side and an attribute
    `written`, the width of each; of pairs, `written` divides the targets.
    """

    def __iter__(self) -> Iterator[Tensor]: ...

    def __next__(self) -> Tensor:
        """The next vectors `(n, d)`."""

    def tell(self) -> dict[str, Any]:
        """The position, as JSON."""

    def seek(self, position: Mapping[str, Any]) -> None:
        """Continue from a position that `tell` returned.

        Raises:
            CircuitsError: it is not a position of this stream.
        """


class TensorStream:
    """Batches of vectors in memory, without end, in a new random order every epoch.

    The last batch of an epoch is filled from the next epoch.

    Args:
        x: `(n, d)` float tensor, on any device; batches are on the same. For crosscoders a list of such tensors, one
            for each source, or `(n, sources, d)`: batches have them side by side.
        batch_size: vectors per batch.
        seed: of the order.
        shuffle: False gives the vectors in their own order.
        rank, world: give the `rank`-th of `world` parts of every `world * batch_size` vectors. By default `train` sets
            them, so that processes that train together see different vectors of one tensor; 0 and 1 if each has a
            tensor of its own.
        target: `(n, d_out)`, what a transcoder reconstructs of each: batches are then `(batch_size, d + d_out)`. For
            cross-layer transcoders a list of such tensors, one for each layer.

    Raises:
        SAEError: no `(n, d)` float tensor, empty, or with values that are not finite; no such rank.

    >>> next(TensorStream(torch.randn(10, 3), batch_size=4)).shape
    torch.Size([4, 3])
    """

    def __init__(
        self, x: Tensor | Sequence[Tensor], batch_size: int = DEFAULT_BATCH, seed: int = 0, *, shuffle: bool = True,
        rank: int | None = None, world: int | None = None, target: Tensor | Sequence[Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.x, self.written = side_by_side(x)
        self.widths: tuple[int, int] | None = None
        if target is not None:
            if self.written is not None:
                raise SAEError("a transcoder reads one vector: give x as one tensor (n, d), and several targets")
            targets, self.written = side_by_side(target)
            if len(targets) != len(self.x):
                raise SAEError(f"{len(self.x)} vectors have {len(targets)} targets: give one for each")
            self.widths = (self.x.shape[1], targets.shape[1])
            self.x = torch.cat([self.x, targets.to(self.x)], dim=1)
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
        """Give the `rank`-th of `world` parts from now on, unless `rank` was an argument of the stream."""
        if not self.fixed_share:
            self.rank, self.world = checked_share(rank, world)

    def order(self) -> Tensor:
        """The order of the vectors in this epoch: `(n,)` indices."""
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
        """SHA-256 of number, width and up to 1,024 of the vectors."""
        if self._digest is None:
            n, d = self.x.shape
            some = self.x[torch.linspace(0, n - 1, min(n, 1024)).long().to(self.x.device)]
            head = f"{n} {d} {self.x.dtype}".encode()
            self._digest = hashlib.sha256(
                head + some.cpu().contiguous().view(torch.uint8).numpy().tobytes()
            ).hexdigest()
        return self._digest

    def _identity(self) -> dict[str, Any]:
        # of all ranks: a position is valid for any number of ranks with as many vectors together
        together = self.batch_size * self.world
        return {"digest": self.digest, "batch_size": together, "seed": self.seed, "shuffle": self.shuffle}

    def tell(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "cursor": self.cursor, **self._identity()}

    def seek(self, position: Mapping[str, Any]) -> None:
        check_position(position, self._identity())
        self.epoch, self.cursor = numbers_of(position, epoch=None, cursor=len(self.x) - 1)
        self._order = None


def side_by_side(x: Tensor | Sequence[Tensor]) -> tuple[Tensor, tuple[int, ...] | None]:
    """Vectors of several sources as one `(n, d)`, and the width of each; None of one tensor `(n, d)`.

    Args:
        x: `(n, d)`, `(n, sources, d)`, or a list of tensors `(n, d)` that may differ in width.

    Raises:
        SAEError: no float tensors, empty, with values that are not finite, or of different lengths.
    """
    if isinstance(x, Tensor) and x.ndim != 3:
        return check_activations(x).detach(), None
    each = [check_activations(part).detach() for part in (x.unbind(1) if isinstance(x, Tensor) else x)]
    if not each or len({len(part) for part in each}) > 1:
        counts = ", ".join(str(len(part)) for part in each) or "none"
        raise SAEError(f"vectors of several sources are of the same things, in order; there are {counts}")
    return torch.cat([part.to(each[0]) for part in each], dim=1), tuple(part.shape[1] for part in each)


def check_position(position: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise if a position belongs to a stream of another identity.

    Raises:
        TrainingError: it names the differences.
    """
    differing = [name for name, value in identity.items() if position.get(name) != value]
    if differing:
        listed = "; ".join(f"{n} is {shorten(identity[n], 20)}, was {shorten(position.get(n), 20)}" for n in differing)
        raise TrainingError(f"the position belongs to another stream of vectors: {listed}")


def numbers_of(position: Mapping[str, Any], **most: int | None) -> tuple[int, ...]:
    """Whole numbers of a position by their names, each at most so large.

    Raises:
        TrainingError: one is missing, or out of its range.
    """
    return tuple(
        whole_number(f"{name} of the position", position.get(name), least=0, most=top, error=TrainingError)
        for name, top in most.items()
    )


def checked_share(rank: int, world: int) -> tuple[int, int]:
    """`rank` and `world`, if `rank` is a number from 0 to `world - 1`.

    Raises:
        SAEError: it is not.
    """
    whole("world", world)
    if not isinstance(rank, int) or not 0 <= rank < world:
        raise SAEError(f"rank={shorten(rank)} is none of the {world} ranks, 0 to {world - 1}")
    return rank, world


class Rebatched:
    """Another stream in batches of one size, with the same vectors in the same order.

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
        parts, missing = [], self.batch_size
        while missing:
            if self._chunk is None or self._used == len(self._chunk):
                self._before, self._used = self.inner.tell(), 0
                self._chunk = next(self.inner)  # at the end of the stream vectors that fill no batch are dropped
                check_activations(self._chunk)
            part = self._chunk[self._used : self._used + missing]
            parts.append(part)
            self._used += len(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def share(self, rank: int, world: int) -> None:
        """Pass the rank on to the inner stream."""
        share(self.inner, rank, world)
        self._before = self.inner.tell()

    def tell(self) -> dict[str, Any]:
        return {"chunk": self._before, "used": self._used, "batch_size": self.batch_size}

    def seek(self, position: Mapping[str, Any]) -> None:
        if position.get("batch_size") != self.batch_size:
            raise TrainingError(f"the position is of batches of {position.get('batch_size')}, not {self.batch_size}")
        chunk, (used,) = position.get("chunk"), numbers_of(position, used=None)
        if not isinstance(chunk, dict):
            raise TrainingError(f"the position in the inner stream is {shorten(chunk)}")
        self.inner.seek(chunk)
        self._before, self._used = dict(chunk), used
        self._chunk = next(self.inner) if self._used else None


class RankShare:
    """Another stream whose batches go to the ranks in turn: each rank reads all batches and uses its own.

    For streams that every rank can read and that cost little to read, compared with a step.

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
        batches = [next(self.inner) for _ in range(self.world)]  # an incomplete last round is dropped
        return batches[self.rank]

    def share(self, rank: int, world: int) -> None:
        """Use the `rank`-th of every `world` batches from now on, unless `rank` was an argument of the stream."""
        if not self.fixed_share:
            self.rank, self.world = checked_share(rank, world)

    def tell(self) -> dict[str, Any]:
        return self.inner.tell()

    def seek(self, position: Mapping[str, Any]) -> None:
        self.inner.seek(position)


def share(stream: Stream, rank: int, world: int) -> None:
    """Set the rank of a stream, if it has a method for that."""
    method = getattr(stream, "share", None)
    if callable(method):
        method(rank, world)


class Replayed:
    """A plain iterable as a stream that can go back to its start while it is `keeping` its batches.

    That is enough for the statistics before training; a checkpoint needs a stream that can restore any position.
    """

    def __init__(self, source: Iterable[Tensor]) -> None:
        self.source = iter(source)
        self.count = 0
        self._read: list[Tensor] = []
        self._ahead: list[Tensor] = []
        self.keeping = True

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tensor:
        batch = self._ahead.pop(0) if self._ahead else next(self.source)
        self.count += 1
        if self.keeping:
            self._read.append(batch)
        return batch

    def tell(self) -> dict[str, Any]:
        return {"batches": self.count}

    def seek(self, position: Mapping[str, Any]) -> None:
        if position.get("batches") != 0 or not self.keeping:
            raise TrainingError("a plain iterable cannot go back; give a stream with tell() and seek()")
        self._ahead, self._read, self.count = self._read + self._ahead, [], 0


def open_stream(data: Stream | Tensor | Iterable[Tensor], batch_size: int | None, seed: int) -> Stream:
    """The data of `train` as a stream.

    Args:
        data: a stream, a tensor `(n, d)`, or any iterable over such tensors.
        batch_size: vectors per step (default: 4,096 of a tensor, else the size of the stream's own batches).
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
