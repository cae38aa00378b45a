"""Training: several SAEs on one stream of activations, in one pass."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sae.architectures.base import SAE, SAEConfig
from sae.checks import whole
from sae.data.streams import Replayed, Stream, open_stream, share
from sae.distributed import Message, Ranks, check_alike, fingerprint, told_by
from sae.errors import FileError, SAEError, TrainingError, shorten
from sae.training.checkpoint import Checkpoint, read_checkpoint
from sae.training.input_normalization import Bias, InputStatistics, input_statistics
from sae.training.loop import POSITIONS, Loop
from sae.training.reporting import Callback, Report, ReportFile
from sae.training.sae_trainer import SAETrainer, TrainingConfig
from sae.training.schedule import Schedule
from zoo.progress import Progress, reporter

log = logging.getLogger(__name__)

DEAD_AFTER = 10_000_000
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, eq=False)
class Run:
    """A trained SAE and how it came about.

    Attributes:
        name: of the run; config: what was asked for.
        sae: the SAE, in evaluation mode, its parameters frozen.
        steps, samples: how long it was trained.
        status: "finished", or why it ended before.
        reports: over the training.
        provenance: settings, data, versions.
    """

    name: str
    config: SAEConfig
    sae: SAE
    steps: int
    samples: int
    status: str
    reports: tuple[Report, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """The run as JSON, without its weights."""
        return {
            "name": self.name,
            "config": self.config.to_dict(),
            "steps": self.steps,
            "samples": self.samples,
            "status": self.status,
            "last": self.reports[-1].describe() if self.reports else None,
            "provenance": dict(self.provenance),
        }


def train(
    stream: Stream | Tensor | Iterable[Tensor],
    configs: SAEConfig | Sequence[SAEConfig],
    *,
    steps: int | None = None,
    samples: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    warmup: int | None = None,
    decay: float = 0.2,
    sparsity_warmup: int | None = None,
    clip: float = 1.0,
    normalize: bool = True,
    bias: Bias = "geometric_median",
    statistics_samples: int = 65_536,
    dead_after: int | None = None,
    resample_every: int | None = None,
    precision: Precision = "float32",
    device: str | torch.device | None = None,
    seed: int = 0,
    report_every: int = 50,
    log_file: str | Path | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    resume: bool = True,
    callbacks: Sequence[Callback] = (),
    metadata: Mapping[str, Any] | None = None,
    progress: Progress = None,
    distributed: bool = True,
) -> list[Run]:
    """Train one or several SAEs on the same vectors; each comes out as if trained alone.

    Called by every process of a group, or under `torchrun`, the processes train together: each on vectors of its
    own, all with the same weights. Two of them with batches of B do what one does with batches of 2B, except that
    BatchTopK and Matryoshka select within each process' batch. Only the first one writes files and calls `callbacks`.

    Args:
        stream: a tensor `(n, d)`, a `Stream`, or any iterable over such tensors.
        configs: one configuration, or several.
        steps: how many steps; or samples: how many vectors, of all processes (rounded up to whole batches).
        batch_size: vectors per step, of each process (default: 4,096 of a tensor, else what the stream gives).
        lr: peak learning rate (default: `2e-4 * sqrt(2^14 / latents)`); a configuration's own goes before.
        warmup: steps of rising learning rate (default: a twentieth of all, at most 1,000).
        decay: share of the steps, at the end, over which it falls to zero.
        sparsity_warmup: steps over which a sparsity penalty rises (default: as `warmup`).
        clip: largest norm of an SAE's gradient, of the loss summed over dimensions.
        normalize: center inputs and scale them to unit variance; kept in the SAE as `mean` and `scale`.
        bias: where the decoder's bias starts: "geometric_median", "mean" or "zeros".
        statistics_samples: from how many vectors mean and scale are found.
        dead_after: a latent silent for this many samples counts as dead (default: a fifth of all samples, at
            most ten million).
        resample_every: samples between restarts of dead latents where `revive="resample"` (default: `dead_after`).
        precision: "bfloat16" runs products in bfloat16; weights, thresholds and Adam stay float32.
        device: where to train (default: where the stream's tensors are); "cuda" is each process' own.
        seed: of the order of a tensor's vectors; directions are drawn by each configuration's own seed.
        report_every: steps between reports; also how often dead latents are looked for.
        log_file: a JSONL file of the reports.
        checkpoint: a file to write checkpoints to, every `checkpoint_every` steps, at the end and on Ctrl-C.
        resume: go on from that file if it is there (on the CPU bit for bit as if never broken); False starts anew.
        callbacks: functions of every report.
        metadata: where the vectors come from, saved with the SAEs (default: the stream's own `metadata`).
        progress: True for a bar, or a function of (done, total) samples.
        distributed: False trains in this process alone, whatever others there are.

    Returns:
        One run per configuration, the same in every process. One whose training collapsed says so in its `status`.

    Raises:
        SAEError: activations or settings that cannot be used.
        TrainingError: nothing to learn from, all SAEs collapsed, a checkpoint of another training, a disk that takes
            no more, or another process that failed (what was trained is in its `runs`).
        KeyboardInterrupt: on Ctrl-C, after the checkpoint was written; in all processes, whichever got it.

    >>> runs = train(torch.randn(500, 8), TopK(latents=16, k=2), steps=10, batch_size=50)  # doctest: +SKIP
    """
    from circuits.common.provenance import provenance  # now: what is imported after hours may no longer be there

    versions = provenance()
    wanted = [configs] if isinstance(configs, SAEConfig) else list(configs)
    names = _names(wanted)
    _check_numbers(report_every=report_every, checkpoint_every=checkpoint_every, statistics_samples=statistics_samples)
    _check_numbers(dead_after=dead_after, resample_every=resample_every)
    for name, value in (("lr", lr), ("clip", clip)):
        if value is not None and not 0 < value < math.inf:
            raise SAEError(f"{name}={value} must be a finite number above zero")
    if precision not in ("float32", "bfloat16"):
        raise SAEError(f"precision={shorten(precision)!r}: use 'float32' or 'bfloat16'")
    file = None if checkpoint is None else Path(checkpoint).expanduser()
    with Ranks(distributed) as ranks:
        opened = ranks.agreed(lambda: _open(stream, batch_size, seed, file, resume, ranks))
        source, saved = opened.stream, opened.saved
        size = ranks.exchange(Message(rows=opened.size)).rows

        def plan() -> TrainingConfig:
            count = _steps(steps, samples, size)
            up = min(1000, count // 20) if warmup is None else warmup
            schedule = Schedule(count, up, decay, up if sparsity_warmup is None else sparsity_warmup)
            dead = max(1, min(DEAD_AFTER, count * size // 5)) if dead_after is None else dead_after
            return TrainingConfig(schedule, lr, clip, dead, resample_every or dead, precision)

        training = ranks.agreed(plan)
        settings = {
            **dataclasses.asdict(training), "normalise": normalize, "bias": bias, "batch_size": size,
            "statistics_samples": statistics_samples, "report_every": report_every,
            "configs": [c.to_dict() for c in wanted],
        }  # fmt: skip
        agreed = {**settings, "checkpoint_every": checkpoint_every, "checkpoint": file is not None}
        check_alike(ranks, source, opened.print, _flat(agreed), None if saved is None else saved.step)
        if saved is None:
            statistics = input_statistics(
                source, samples=statistics_samples, normalize=normalize, bias=bias, ranks=ranks
            )
        else:
            statistics = InputStatistics(saved.statistics["mean"], saved.scale, saved.statistics["bias"], saved.samples)
        if isinstance(source, Replayed):
            source.keeping = False
        place = ranks.device(torch.device(device) if device is not None else opened.device)
        trainers = [SAETrainer(c, n, statistics, training, place, ranks) for c, n in zip(wanted, names, strict=True)]
        reports: list[Report] = []
        step = 0
        if saved is not None and file is not None:
            step = ranks.agreed(partial(_resume, file, saved, settings, trainers, source, ranks))
            reports = [Report(**r) for r in saved.reports]
        count = training.schedule.steps
        loop = Loop(source, trainers, statistics, settings, place, count, size, file, checkpoint_every, reports, ranks)
        if ranks.first:
            loop.listeners = [*callbacks]
        if log_file is not None:
            loop.listeners[:0] = ranks.agreed(lambda: [ReportFile(log_file, step)] if ranks.first else [])
        about = dict(metadata if metadata is not None else told_by(source, "metadata") or {})
        versions = {**versions, **({"ranks": ranks.world} if ranks.world > 1 else {})}

        def made(status: str) -> list[Run]:
            return [_run(t, status, reports, settings, source, about, versions) for t in trainers]

        try:
            with reporter(progress if ranks.first else None, "vec") as told:
                ended = loop.run(step, report_every, told)
        except FileError as error:
            raise TrainingError(
                f"{error}; the SAEs as they were are in this error's `runs`", made(f"stopped: {error}")
            ) from error
        except TrainingError as error:
            error.runs = error.runs or made(f"stopped: {error}")
            raise
        runs = made(ended)
    if all(t.collapse for t in trainers):
        raise TrainingError("; ".join(f"{t.name}: {t.collapse}" for t in trainers), runs)
    return runs


def _check_numbers(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None:
            whole(name, number)


def _names(configs: Sequence[SAEConfig]) -> list[str]:
    if not configs:
        raise SAEError("name at least one configuration to train, say sae.TopK(latents=4096, k=32)")
    for config in configs:
        if not isinstance(config, SAEConfig):
            raise SAEError(f"train takes configurations such as sae.TopK(...); got {type(config).__name__}")
    names: list[str] = []
    for config in configs:
        name = config.name or config.title
        if config.name is not None and name in names:
            raise SAEError(f"two runs are called {shorten(name)!r}")
        again = sum(n == name or n.startswith(f"{name}-run") for n in names)
        names.append(f"{name}-run{again + 1}" if again else name)
    return names


@dataclass(frozen=True, eq=False)
class _Opened:
    """A stream, as it is before training: its first batch, and the checkpoint to go on from."""

    stream: Stream
    saved: Checkpoint | None
    size: int
    device: torch.device
    print: str


def _open(data: Any, batch_size: int | None, seed: int, file: Path | None, resume: bool, ranks: Ranks) -> _Opened:
    stream = open_stream(data, batch_size, seed)
    if ranks.world > 1:
        share(stream, ranks.rank, ranks.world)
    if file is not None and isinstance(stream, Replayed):
        raise SAEError("checkpoints need a stream that can find its place again: a tensor, or tell() and seek()")
    saved = read_checkpoint(file) if file is not None and resume and file.exists() else None
    start = stream.tell()
    batch = next(stream, None)
    if batch is None:
        raise TrainingError("the stream gave no activations")
    stream.seek(start)
    return _Opened(stream, saved, len(batch), batch.device, fingerprint(batch) if ranks.world > 1 else "")


def _steps(steps: int | None, samples: int | None, size: int) -> int:
    if steps is not None and samples is None:
        whole("steps", steps)
        return steps
    if samples is not None and steps is None:
        whole("samples", samples)
        return math.ceil(samples / size)
    raise SAEError("say how long to train: steps= or samples=")


def _resume(
    file: Path, saved: Checkpoint, settings: Mapping[str, Any], trainers: list[SAETrainer], stream: Stream, ranks: Ranks
) -> int:
    other = [name for name, value in _flat(settings).items() if _flat(saved.settings).get(name) != value]
    if other or len(saved.counters) != len(trainers):
        what = ", ".join(other[:6]) or "the number of SAEs"
        raise TrainingError(
            f"{file} belongs to a training with other settings ({what}); give another file, or resume=False"
        )
    for trainer, tensors, counters in zip(trainers, saved.tensors, saved.counters, strict=True):
        trainer.restore(tensors, counters)
    positions = saved.position.get(POSITIONS, [saved.position])
    if len(positions) != ranks.world:
        # of one stream that all share, the position is the same for any number of ranks
        if any(position != positions[0] for position in positions):
            raise TrainingError(
                f"{file} is of {len(positions)} ranks, each with a stream of its own, not {ranks.world}"
            )
        positions = positions[:1] * ranks.world
    stream.seek(positions[ranks.rank])
    log.info("going on from step %d in %s", saved.step, file)
    return saved.step


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Settings as JSON has them, so that tuples and lists are the same; nested names joined by dots."""
    if isinstance(settings, Mapping):
        pairs = [(f"{prefix}{k}", v) for k, v in settings.items()]
    elif isinstance(settings, (list, tuple)):
        pairs = [(f"{prefix}{i}", v) for i, v in enumerate(settings)]
    else:
        return {prefix: settings}
    out: dict[str, Any] = {}
    for name, value in pairs:
        nested = isinstance(value, (Mapping, list, tuple))
        out |= _flat(value, f"{name}.") if nested else {name: value}
    return out


def _run(
    trainer: SAETrainer, ended: str, reports: Sequence[Report], settings: Mapping[str, Any], stream: Stream,
    metadata: dict[str, Any], versions: Mapping[str, Any],
) -> Run:  # fmt: skip
    sae = trainer.sae.eval().requires_grad_(False)
    sae.metadata = metadata
    shared = {name: value for name, value in settings.items() if name != "configs"}
    return Run(
        name=trainer.name,
        config=trainer.config,
        sae=sae,
        steps=trainer.step,
        samples=trainer.samples,
        status=f"collapsed: {trainer.collapse}" if trainer.collapse else ended,
        reports=tuple(r for r in reports if r.name == trainer.name),
        provenance={"data": told_by(stream, "digest"), "settings": shared, **versions},
    )
