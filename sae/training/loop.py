"""The loop of a training: steps, reports, checkpoints, and agreement among ranks."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

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
from sae.training.settings import ResolvedSettings

log = logging.getLogger(__name__)

POSITIONS = "positions of ranks"
"""Key of a checkpoint's position where each rank has a stream of its own."""


class Loop:
    """The loop of a training.

    Ranks exchange messages at the same points of every step. An error of one rank alone in between (its vectors, a
    callback, the disk) waits until the next such point, where all receive it and stop.
    """

    def __init__(
        self, stream: Stream, trainers: list[SAETrainer], statistics: InputStatistics, settings: ResolvedSettings,
        device: torch.device, file: Path | None, checkpoint_every: int, reports: list[Report], ranks: Ranks,
    ) -> None:  # fmt: skip
        self.stream, self.trainers, self.statistics, self.settings = stream, trainers, statistics, settings
        self.device, self.file, self.checkpoint_every = device, file, checkpoint_every
        self.reports, self.ranks = reports, ranks
        self.listeners: list[Callback] = []
        self.on_device = statistics.to(device)
        self.failure: Exception | None = None

    def run(self, step: int, progress: Callable[[int, int], object]) -> str:
        """Train from `step` to the end; returns "finished", or the reason why it ended earlier."""
        status, steps, size = "finished", self.settings.steps, self.settings.batch_size
        with deferred_interrupts() as interrupted:
            while step < steps:
                batch = self._read(step)
                rows = 0 if batch is None else len(batch[0])
                total = self.ranks.exchange(
                    Message(rows, int(batch is None), int(interrupted()), int(bool(self.failure)))
                )
                if total.failed:
                    self._fail(step)
                if batch is None or total.ended:
                    self._report()
                    self._write(step)
                    status = f"the stream ended after {step} of {steps} steps"
                    log.warning(status)
                    break
                for trainer in self.trainers:
                    if trainer.collapse is None:
                        trainer.learn(batch[0], total.rows, batch[1])
                step += 1
                self._alone(partial(progress, step * size, steps * size))
                if step % self.settings.report_every == 0 or step == steps:
                    self._report()
                collapsed = all(t.collapse for t in self.trainers)
                stop = bool(total.interrupted) if self.ranks.world > 1 else interrupted()
                if step % self.checkpoint_every == 0 or step == steps or stop or collapsed:
                    self._write(step)
                if collapsed:
                    status = "collapsed"
                if collapsed or stop:
                    break
            total = self.ranks.exchange(Message(interrupted=int(interrupted()), failed=int(bool(self.failure))))
            if total.failed:
                self._fail(step)
            if total.interrupted and status == "finished":
                raise KeyboardInterrupt
        return status

    def _read(self, step: int) -> tuple[Tensor, Tensor | None] | None:
        """The next vectors, normalized, and their targets where there are pairs; None where the stream has ended, or
        failed.
        """
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

    def _normalized(self, batch: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
        width = self.statistics.width
        if batch.ndim != 2 or batch.shape[1] != width or self.device.type == "cpu":
            try:
                check_activations(batch, width)
            except SAEError as error:
                raise _BadVectors(f"batch {step + 1} of the stream: {error}") from error
        # what the vectors were computed from is not trained
        x = batch.detach().to(self.device, non_blocking=True).float()
        return self.on_device.normalized(x)

    def _alone(self, work: Callable[[], object]) -> None:
        """Do the work of this rank alone; an error waits until the next exchange of messages."""
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
            self._write(step)  # the weights of this step are good
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
            settings=self.settings.stored([t.config for t in self.trainers]),
            step=step,
            position=positions[0] if self.ranks.world == 1 else {POSITIONS: positions},
            counters=tuple(t.counters() for t in self.trainers),
            tensors=tuple(t.tensors() for t in self.trainers),
            statistics=self.statistics,
            reports=tuple(r.describe() for r in self.reports),
        )
        file = self.file
        self._alone(lambda: write_checkpoint(file, checkpoint))


class _BadVectors(TrainingError):
    """Vectors in the middle of a stream that cannot be trained on."""


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], bool]]:
    """While open, Ctrl-C is deferred; yields a function that returns whether it was pressed. A second one interrupts.

    Signals are delivered to the main thread: in any other, the function always returns False.
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
