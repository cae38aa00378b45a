"""The steps of a training, and what is written meanwhile."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from sae.checks import check_activations
from sae.data.streams import Stream
from sae.distributed import Message, Ranks, describe
from sae.errors import SAEError, TrainingError
from sae.training.checkpoint import Checkpoint, write_checkpoint
from sae.training.input_normalization import InputStatistics
from sae.training.reporting import Callback, Report
from sae.training.sae_trainer import SAETrainer

log = logging.getLogger(__name__)

POSITIONS = "positions of ranks"


class Loop:
    """The steps of a training, and what is written meanwhile.

    Ranks talk at the same places of every step. What fails in between on one of them alone (its vectors, a callback,
    the disk) is kept until the next such place, where all learn of it and stop.
    """

    def __init__(
        self, stream: Stream, trainers: list[SAETrainer], statistics: InputStatistics, settings: Mapping[str, Any],
        device: torch.device, count: int, size: int, file: Path | None, every: int, reports: list[Report], ranks: Ranks,
    ) -> None:  # fmt: skip
        self.stream, self.trainers, self.statistics, self.settings = stream, trainers, statistics, settings
        self.device, self.count, self.size, self.file, self.every = device, count, size, file, every
        self.reports, self.ranks = reports, ranks
        self.listeners: list[Callback] = []
        self.mean = statistics.mean.to(device)
        self.failure: Exception | None = None

    def run(self, step: int, report_every: int, told: Any) -> str:
        """From `step` to the end: "finished", or why not."""
        ended = "finished"
        with deferred() as interrupted:
            while step < self.count:
                x = self._read(step)
                mine = Message(
                    len(x) if x is not None else 0, int(x is None), int(interrupted()), int(bool(self.failure))
                )
                word = self.ranks.exchange(mine)
                if word.failed:
                    self._fail(step)
                if x is None or word.ended:
                    self._report()
                    self._write(step)
                    log.warning("the stream ended after %d of %d steps", step, self.count)
                    ended = f"the stream ended after {step} of {self.count} steps"
                    break
                for trainer in self.trainers:
                    if trainer.collapse is None:
                        trainer.learn(x, word.rows)
                step += 1
                self._alone(partial(told, step * self.size, self.count * self.size))
                if step % report_every == 0 or step == self.count:
                    self._report()
                over = all(t.collapse for t in self.trainers)
                stop = bool(word.interrupted) if self.ranks.world > 1 else interrupted()
                if step % self.every == 0 or step == self.count or stop or over:
                    self._write(step)
                if over:
                    ended = "collapsed"
                if over or stop:
                    break
            word = self.ranks.exchange(Message(interrupted=int(interrupted()), failed=int(bool(self.failure))))
            if word.failed:
                self._fail(step)
            if word.interrupted and ended == "finished":
                raise KeyboardInterrupt
        return ended

    def _read(self, step: int) -> Tensor | None:
        """The next vectors, normalized; None where the stream has ended, or failed."""
        try:
            batch = next(self.stream, None)
            if batch is None:
                return None
            return self._normalized(batch, step)
        except Exception as error:
            if self.ranks.world == 1 and not isinstance(error, TrainingError):
                raise
            self.failure = self.failure or error
            return None

    def _normalized(self, batch: Tensor, step: int) -> Tensor:
        width = len(self.mean)
        if batch.ndim != 2 or batch.shape[1] != width or self.device.type == "cpu":
            try:
                check_activations(batch, width)
            except SAEError as error:
                raise _BadVectors(f"batch {step + 1} of the stream: {error}") from error
        x = batch.to(self.device, non_blocking=True).float()
        return (x - self.mean) * self.statistics.scale

    def _alone(self, work: Callable[[], object]) -> None:
        """What this rank does by itself; an error waits until the others can be told."""
        if self.ranks.world == 1:
            work()
            return
        try:
            work()
        except Exception as error:
            self.failure = self.failure or error

    def _fail(self, step: int) -> None:
        """Raise what failed, here or on another rank."""
        bad = isinstance(self.failure, _BadVectors)
        if not self.ranks.everywhere(not bad):
            self._write(step)  # what was learned until here is good
        errors = self.ranks.gathered(None if self.failure is None else describe(self.failure))
        if self.failure is not None:
            raise self.failure
        self.ranks.check(errors)

    def _report(self) -> None:
        new = [trainer.report() for trainer in self.trainers if trainer.unreported]
        self.reports.extend(new)
        for listener in self.listeners:
            for report in new:
                self._alone(partial(listener, report))

    def _write(self, step: int) -> None:
        if self.file is None:
            return
        positions = self.ranks.gathered(self.stream.tell())
        if not self.ranks.first:
            return
        checkpoint = Checkpoint(
            settings=self.settings,
            step=step,
            position=positions[0] if self.ranks.world == 1 else {POSITIONS: positions},
            counters=tuple(t.counters() for t in self.trainers),
            tensors=tuple(t.tensors() for t in self.trainers),
            statistics={"mean": self.statistics.mean, "bias": self.statistics.bias},
            scale=self.statistics.scale,
            samples=self.statistics.samples,
            reports=tuple(r.describe() for r in self.reports),
        )
        file = self.file
        self._alone(lambda: write_checkpoint(file, checkpoint))


class _BadVectors(TrainingError):
    """Vectors that cannot be learned from, in the middle of a stream."""


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """A function that says whether Ctrl-C was pressed; a second one stops at once.

    Signals belong to the main thread: in any other, it always says no.
    """
    pressed = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
