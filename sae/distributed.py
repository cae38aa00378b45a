"""One training by several processes, each with vectors of its own and all with the same weights.

Under `torchrun`, or in any process group, the ranks sum gradients, counts and statistics of inputs, so that two of them
with batches of B train the SAE that one trains with batches of 2B::

    torchrun --nproc-per-node 8 my_training.py  # which calls sae.train(...)

The vectors are divided among the ranks; every rank holds whole dictionaries. Latents divided among ranks would need
other sums (of reconstructions, in the forward pass): they belong here, too, beside `Ranks.add`.
"""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, distributed

from sae.errors import CircuitsError, TrainingError

LARGE = 2**18
"""Number of elements from which a tensor is summed in place, in a message of its own, without being copied."""

T = TypeVar("T")


@dataclass(frozen=True)
class Message:
    """A message that ranks exchange before every step: each receives the sums over all of them.

    Attributes:
        rows: vectors of this step.
        ended, interrupted, failed: number of ranks that have no more vectors, received Ctrl-C, or have an error.
    """

    rows: int = 0
    ended: int = 0
    interrupted: int = 0
    failed: int = 0


class Ranks:
    """The processes that share a training: those of `torch.distributed`, or this one alone.

    A context: if `torchrun` started several processes and there is no process group yet, it is initialized on entry
    (gloo, and nccl for tensors on CUDA devices) and destroyed on exit.

    Args:
        shared: False is this process alone, whatever group there is.

    Attributes:
        rank, world: the number of this process, and the number of processes.

    >>> with Ranks() as ranks:
    ...     ranks.rank, ranks.world, ranks.gathered("mine")
    (0, 1, ['mine'])
    """

    def __init__(self, shared: bool = True) -> None:
        self.shared = shared
        self.rank, self.world = 0, 1
        self._initialized = False
        self._control: Any = None

    def __enter__(self) -> Self:
        if not self.shared or not distributed.is_available():
            return self
        launched = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ
        if not distributed.is_initialized() and launched:
            several = torch.cuda.is_available() and distributed.is_nccl_available()
            distributed.init_process_group("cpu:gloo,cuda:nccl" if several else "gloo")
            self._initialized = True
        _CURRENT.set(self)
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            self.rank, self.world = distributed.get_rank(), distributed.get_world_size()
            # messages between ranks must not wait for an accelerator, whatever the group's own backend
            self._control = distributed.new_group(backend="gloo", timeout=datetime.timedelta(minutes=30))
        return self

    def __exit__(self, *_: object) -> None:
        _CURRENT.set(ALONE)
        if self._initialized:
            distributed.destroy_process_group()
        elif self._control is not None:
            distributed.destroy_process_group(self._control)
        self._initialized, self._control, self.rank, self.world = False, None, 0, 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and reports."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """The device itself, or for a bare "cuda" the device of this rank."""
        if self.world == 1 or device.type != "cuda" or device.index is not None:
            return device
        own = int(os.environ.get("LOCAL_RANK", self.rank % max(1, torch.cuda.device_count())))
        torch.cuda.set_device(own)  # nccl uses the current device
        return torch.device("cuda", own)

    # -- sums ---------------------------------------------------------------------------------------------

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the ranks; all ranks get the same bits.

        Large tensors are sent as they are, all small ones in one message, in the type of the first. Integers survive
        as long as their sums are below 2^24.
        """
        if self.world == 1 or not tensors:
            return
        large = [t for t in tensors if t.numel() >= LARGE and t.is_contiguous()]
        small = [t for t in tensors if not (t.numel() >= LARGE and t.is_contiguous())]
        messages = list(large)
        if small:
            messages.append(torch.cat([t.reshape(-1).to(small[0].dtype) for t in small]))
        self._all_reduce(messages)
        if small:
            parts = torch.split(messages[-1], [t.numel() for t in small])
            for tensor, part in zip(small, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def _all_reduce(self, messages: Sequence[Tensor]) -> None:
        def send() -> None:
            works = [
                distributed.all_reduce(t, group=self._control if t.device.type == "cpu" else None, async_op=True)
                for t in messages
            ]
            for work in works:
                work.wait()

        self._connected(send)

    # -- messages --------------------------------------------------------------------------------------------

    def exchange(self, message: Message) -> Message:
        """The sum of the messages of all ranks."""
        if self.world == 1:
            return message
        numbers = torch.tensor([message.rows, message.ended, message.interrupted, message.failed])
        self._all_reduce([numbers])
        return Message(*numbers.tolist())

    def everywhere(self, condition: bool) -> bool:
        """Whether a condition holds on all ranks."""
        return self.exchange(Message(failed=int(not condition))).failed == 0

    def gathered(self, value: T) -> list[T]:
        """The value of every rank, in their order; something small that can be pickled."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        self._connected(lambda: distributed.all_gather_object(values, value, group=self._control))
        return values

    def rows(self, x: Tensor) -> Tensor:
        """The rows `(n, ...)` of all ranks, those of rank 0 first."""
        if self.world == 1:
            return x
        counts = self.gathered(len(x))
        everyone = x.new_zeros(sum(counts), *x.shape[1:])
        start = sum(counts[: self.rank])
        everyone[start : start + len(x)] = x
        self._all_reduce([everyone])
        return everyone

    def agreed(self, work: Callable[[], T]) -> T:
        """The result of `work` here, after it has succeeded on every rank.

        Raises:
            Exception: what `work` raised here.
            TrainingError: it failed on another rank.
        """
        if self.world == 1:
            return work()
        try:
            result, error = work(), None
        except Exception as caught:
            result, error = None, caught
        errors = self.gathered(None if error is None else describe(error))
        if error is not None:
            raise error
        self.check(errors)
        return result  # type: ignore[return-value]

    def check(self, errors: Sequence[str | None]) -> None:
        """Raise the error of another rank, if there is one.

        Raises:
            TrainingError: with the number of the rank and its message.
        """
        for rank, error in enumerate(errors):
            if error is not None:
                raise TrainingError(f"rank {rank} of {self.world} stopped: {error}")

    def _connected(self, work: Callable[[], object]) -> None:
        try:
            work()
        except RuntimeError as error:
            if "memory" in str(error):
                raise
            raise TrainingError(
                f"rank {self.rank} of {self.world} lost the others: another process ended, or hangs. The last "
                f"checkpoint is good: start all again ({str(error).splitlines()[0][:160]})"
            ) from error


def describe(error: BaseException) -> str:
    """The text of an error for other ranks: its message if it is one for users, else with its type."""
    return str(error) if isinstance(error, CircuitsError) else f"{type(error).__name__}: {error}"


def fingerprint(x: Tensor) -> str:
    """SHA-256 of vectors, by which two ranks compare what they read."""
    return hashlib.sha256(x.detach().cpu().float().contiguous().numpy().tobytes()).hexdigest()


def check_agreement(ranks: Ranks, stream: Any, first: str, settings: Mapping[str, Any], step: int | None) -> None:
    """Raise if processes that train together have different settings or checkpoints, or read the same vectors.

    Args:
        ranks: the processes; stream: of this one. first: fingerprint of its first batch.
        settings: of the training; step: of the checkpoint that it resumes, or None.

    Raises:
        TrainingError: it names the difference and the remedy.
    """
    if ranks.world == 1:
        return
    shared = stream_attribute(stream, "fixed_share") is False
    everyone = ranks.gathered((dict(settings), step, stream_attribute(stream, "digest") if shared else None, first))
    first_rank = everyone[0][0].items()
    differing = {name for own, *_ in everyone for name, _ in own.items() ^ first_rank}
    if differing:
        names = ", ".join(sorted(differing))
        raise TrainingError(f"the {ranks.world} ranks were called with different settings: {names}")
    steps = [step for _, step, *_ in everyone]
    if len(set(steps)) > 1:
        raise TrainingError(
            f"not all ranks see the same checkpoint (steps {steps}): it must lie where all of them can read it"
        )
    if len({digest for *_, digest, _ in everyone}) > 1:
        raise TrainingError(
            "the ranks divide one tensor among them, but hold different ones; if each has vectors of its own, give "
            "TensorStream(x, batch_size, rank=0, world=1)"
        )
    if len({first for *_, first in everyone}) < ranks.world:
        raise TrainingError(
            "two ranks read the same vectors, which gains nothing. A tensor is divided by itself; a stream needs a "
            "method share(rank, world), or sae.data.streams.RankShare around it"
        )


ALONE = Ranks(shared=False)
"""This process and no other."""

_CURRENT: ContextVar[Ranks] = ContextVar("ranks", default=ALONE)


def variance(x: Tensor) -> Tensor:
    """Mean squared distance of rows `(n, d)` from their mean, per dimension: of the rows of all ranks that train now.

    For losses relative to a variance, so that all ranks divide by the same. The rows of other ranks get no gradient.

    >>> variance(torch.tensor([[0.0], [2.0]]))
    tensor(1.)
    """
    mean = x.mean(dim=0)
    own = (x - mean).square().sum()
    ranks = _CURRENT.get()
    if ranks.world == 1:
        return own / x.numel()
    n = own.new_full((), len(x))
    total, about_zero, count = mean * n, own + n * mean.square().sum(), n.clone()
    ranks.add([total, about_zero, count])
    return (about_zero - total.square().sum() / count) / (count * x.shape[1])


def total(x: Tensor) -> Tensor:
    """Sum of a tensor over all ranks that train now, without a gradient.

    >>> total(torch.tensor(2.0))
    tensor(2.)
    """
    ranks = _CURRENT.get()
    if ranks.world > 1:
        x = x.detach().clone()
        ranks.add([x])
    return x.detach()


def stream_attribute(stream: Any, name: str) -> Any:
    """An attribute of a stream, or of the one inside it; None where neither has it."""
    while stream is not None:
        if (value := getattr(stream, name, None)) is not None:
            return value
        stream = getattr(stream, "inner", None)
    return None
