"""Streams over more vectors than memory holds: one shuffled window at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from sae.checks import whole
from sae.data.streams import DEFAULT_BATCH, check_position, checked_share, numbers_of
from sae.errors import SAEError, TrainingError
from sae.seeding import ORDER, WINDOW, generator


class WindowStream(ABC):
    """Batches without end from windows of vectors, one of which is in memory at a time.

    An epoch goes through all windows. Their contents and the order within are random and different in every epoch. If
    one window holds everything it stays in memory, and only the order changes. The last batch of a window is filled
    from the next one.

    Args:
        batch_size: vectors per batch.
        seed: of the order.

    Attributes:
        windows: of an epoch; 1 where all vectors fit into one.
    """

    def __init__(self, batch_size: int = DEFAULT_BATCH, seed: int = 0) -> None:
        whole("batch_size", batch_size)
        self.batch_size, self.seed = batch_size, seed
        self.epoch, self.window, self.cursor = 0, 0, 0
        self.rank, self.world, self.fixed_share = 0, 1, False
        self.windows = 1
        self._held: tuple[tuple[int, int], Tensor] | None = None
        self._order: Tensor | None = None

    @property
    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of the identity of all vectors."""

    @abstractmethod
    def load(self, epoch: int, window: int) -> Tensor:
        """The vectors `(n, d)` of a window, always the same for the same numbers."""

    def identity(self) -> dict[str, Any]:
        """The identity of the stream, as JSON; a position is valid for one identity."""
        return {name: getattr(self, name) for name in ("digest", "batch_size", "seed", "windows")}

    def share(self, rank: int, world: int) -> None:
        """Give the vectors of every `world`-th input or shard only, from the `rank`-th on."""
        self.rank, self.world = checked_share(rank, world)
        self._held, self._order = None, None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tensor:
        parts, missing, empty = [], self.batch_size, 0
        while missing:
            vectors, order = self._current()
            picked = order[self.cursor : self.cursor + missing]
            parts.append(vectors[picked])
            missing -= len(picked)
            self.cursor += len(picked)
            empty = 0 if len(picked) else empty + 1  # a window of few inputs may hold none
            if empty > self.windows:
                raise TrainingError("the stream gave no activations in a whole epoch")
            if self.cursor >= len(order):
                self._advance()
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _advance(self) -> None:
        self.cursor, self._order = 0, None
        self.window += 1
        if self.window == self.windows:
            self.epoch, self.window = self.epoch + 1, 0

    def _current(self) -> tuple[Tensor, Tensor]:
        # a window that holds everything is the same in every epoch
        key = (0, 0) if self.windows == 1 else (self.epoch, self.window)
        if self._held is None or self._held[0] != key:
            self._held = None  # frees the old window before the new one is loaded
            self._held = (key, self.load(*key))
        vectors = self._held[1]
        if self._order is None:
            random = generator(self.seed, ORDER, self.epoch, self.window)
            self._order = torch.randperm(len(vectors), generator=random).to(vectors.device)
        return vectors, self._order

    def _split(self, count: int, epoch: int, window: int) -> list[int]:
        """The indices, of `count` inputs or shards, that are in a window of this rank.

        Raises:
            SAEError: there are fewer than ranks.
        """
        mine = range(self.rank, count, self.world)
        if not mine:
            raise SAEError(f"{self.world} ranks cannot share {count} inputs or shards: give more of them")
        if self.windows == 1:
            return list(mine)
        order = torch.randperm(len(mine), generator=generator(self.seed, WINDOW, epoch)).tolist()
        bounds = [len(mine) * w // self.windows for w in (window, window + 1)]
        return sorted(mine[i] for i in order[bounds[0] : bounds[1]])

    def tell(self) -> dict[str, Any]:
        """The position, as JSON."""
        return {"epoch": self.epoch, "window": self.window, "cursor": self.cursor, **self._identity()}

    def _identity(self) -> dict[str, Any]:
        return {**self.identity(), "rank": self.rank, "world": self.world}

    def seek(self, position: Mapping[str, Any]) -> None:
        """Go to a position that `tell` gave.

        Raises:
            TrainingError: it belongs to another stream.
        """
        check_position(position, self._identity())
        most = {"epoch": None, "window": self.windows - 1, "cursor": None}
        self.epoch, self.window, self.cursor = numbers_of(position, **most)
        self._order = None
