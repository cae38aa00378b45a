"""Training: several SAEs on one stream of activations, in one pass."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae.architectures.base import ARCHITECTURES, SAE, SAEConfig
from sae.checks import whole
from sae.data.streams import Replayed, Stream, open_stream, share
from sae.distributed import Message, Ranks, check_agreement, fingerprint, stream_attribute
from sae.errors import FileError, SAEError, TrainingError, shorten
from sae.training.checkpoint import Checkpoint, read_checkpoint
from sae.training.input_normalization import input_statistics
from sae.training.loop import POSITIONS, Loop
from sae.training.reporting import Callback, Report, ReportFile
from sae.training.sae_trainer import SAETrainer
from sae.training.settings import TrainingSettings, flattened
from zoo.common.autograd import outside_inference_mode
from zoo.common.results import HIDDEN, Result, Results
from zoo.progress import Progress, reporter

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Run(Result):
    """A trained SAE and the record of its training.

    Attributes:
        name: of the run; config: of the SAE.
        sae: the SAE, in evaluation mode, its parameters frozen.
        steps, samples: length of the training.
        status: "finished", or the reason why it ended earlier.
        reports: of the training, in order.
        provenance: settings, data, versions.
    """

    name: str
    config: SAEConfig = field(metadata=HIDDEN)
    sae: SAE = field(metadata=HIDDEN)
    steps: int
    samples: int
    status: str
    reports: tuple[Report, ...] = field(metadata=HIDDEN)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """The run as JSON, without its weights."""
        last = self.reports[-1].describe() if self.reports else None
        return super().describe() | {"config": self.config.to_dict(), "last": last}

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: one for each report of the training."""
        return [report.scalars() for report in self.reports]

    def save(self, path: str | Path) -> Path:
        """Refused: `sae.save(folder, run)` writes a run, in a format of your choice."""
        raise TrainingError("a run is saved by sae.save(folder, run), and its SAE read again by sae.load(folder)")


class Runs(Results[Run]):
    """Runs, as `train` returns them: a list that shows itself as the course of the training."""

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: the last report of each run."""
        return [run.reports[-1].scalars() if run.reports else run.scalars() for run in self]


@outside_inference_mode
@torch.enable_grad()
def train(
    stream: Stream | Tensor | Iterable[Tensor],
    configs: SAEConfig | Sequence[SAEConfig],
    settings: TrainingSettings | None = None,
    *,
    device: str | torch.device | None = None,
    log_file: str | Path | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    resume: bool = True,
    callbacks: Sequence[Callback] = (),
    metadata: Mapping[str, Any] | None = None,
    progress: Progress = None,
    distributed: bool = True,
    **changes: Any,
) -> Runs:
    """Train one or several SAEs on the same vectors, or transcoders on the same pairs; each as if trained alone.

    Called by every process of a group, or under `torchrun`, the processes train together: each on vectors of its
    own, all with the same weights. Two of them with batches of B do what one does with batches of 2B, except that
    BatchTopK and Matryoshka select within each process' batch. Only the first one writes files and calls `callbacks`.

    Args:
        stream: a tensor `(n, d)`, a `Stream`, or any iterable over such tensors; for transcoders a stream with
            `widths`, such as `TensorStream(x, target=y)` or that of a pair of sites.
        configs: one configuration, or several.
        settings: settings of the training (default: those of `TrainingSettings`).
        device: where to train (default: the device of the stream's tensors); "cuda" is each process' own.
        log_file: a JSONL file of the reports.
        checkpoint: a file to write checkpoints to, every `checkpoint_every` steps, at the end and on Ctrl-C.
        resume: resume from that file if it exists (on the CPU bit for bit as if never interrupted); False starts again.
        callbacks: functions of every report.
        metadata: origin of the vectors, saved with the SAEs (default: the stream's own `metadata`).
        progress: True for a bar, or a function of (done, total) samples.
        distributed: False trains in this process alone, whatever others there are.
        changes: any field of `TrainingSettings` as a keyword, in place of that of `settings`: `steps=1000`, `lr=1e-3`.

    Returns:
        One run per configuration, the same in every process. If a training collapsed, its `status` has the reason.

    Raises:
        SAEError: activations or settings that cannot be used.
        TrainingError: nothing to learn from, all SAEs collapsed, a checkpoint of another training, a file that cannot
            be written, or another process that failed (the SAEs trained until then are in its `runs`).
        KeyboardInterrupt: on Ctrl-C, after the checkpoint was written; in all processes, whichever received it.

    >>> runs = train(torch.randn(500, 8), TopK(latents=16, k=2), steps=10, batch_size=50)  # doctest: +SKIP
    """
    from circuits.common.provenance import provenance  # before the training: packages may be replaced during it

    versions = provenance()
    wanted = [configs] if isinstance(configs, SAEConfig) else list(configs)
    names = run_names(wanted)
    options = (settings or TrainingSettings()).changed(changes)
    whole("checkpoint_every", checkpoint_every)
    file = None if checkpoint is None else Path(checkpoint).expanduser()
    with Ranks(distributed) as ranks:
        opened = ranks.agreed(lambda: _open(stream, options, file, resume, ranks))
        source, saved = opened.stream, opened.saved
        widths = ranks.agreed(lambda: _widths(source, wanted))
        written = ranks.agreed(lambda: _written(source, wanted))
        wanted = [replace(config, written=written) for config in wanted] if written else wanted
        size = ranks.exchange(Message(rows=opened.size)).rows
        resolved = ranks.agreed(lambda: options.resolved(size))
        stored = resolved.stored(wanted)
        agreed = {**stored, "checkpoint_every": checkpoint_every, "checkpoint": file is not None}
        check_agreement(ranks, source, opened.fingerprint, flattened(agreed), None if saved is None else saved.step)
        if saved is None:
            statistics = input_statistics(
                source, samples=resolved.statistics_samples, normalize=resolved.normalize, bias=resolved.bias,
                widths=widths, written=written, linear=any(c.kind == "skip-transcoder" for c in wanted),
                examples=max(ARCHITECTURES[c.architecture].examples for c in wanted), ranks=ranks,
            )  # fmt: skip
            statistics = replace(statistics, center=stream_attribute(source, "center"))
        else:
            statistics = saved.statistics
        if isinstance(source, Replayed):
            source.keeping = False
        target = ranks.device(torch.device(device) if device is not None else opened.device)
        trainers = [
            SAETrainer(config, name, statistics, resolved, target, ranks)
            for config, name in zip(wanted, names, strict=True)
        ]
        reports: list[Report] = []
        step = 0
        if saved is not None and file is not None:
            step = ranks.agreed(partial(_resume, file, saved, stored, trainers, source, ranks))
            reports = [Report(**r) for r in saved.reports]
        loop = Loop(source, trainers, statistics, resolved, target, file, checkpoint_every, reports, ranks)
        if ranks.first:
            loop.listeners = [*callbacks]
        if log_file is not None:
            loop.listeners[:0] = ranks.agreed(lambda: [ReportFile(log_file, step)] if ranks.first else [])
        about = dict(metadata if metadata is not None else stream_attribute(source, "metadata") or {})
        if metadata is None and (card := stream_attribute(source, "card")) is not None:
            about["card"] = dict(card)
        data = {"data": stream_attribute(source, "digest")}
        versions = {**versions, **({"ranks": ranks.world} if ranks.world > 1 else {})}
        shared = {name: value for name, value in stored.items() if name != "configs"}

        def runs(status: str) -> Runs:
            origin = {**data, "settings": shared, **versions}
            return Runs(_run(t, status, reports, about, origin) for t in trainers)

        try:
            with reporter(progress if ranks.first else None, "vec") as advance:
                status = loop.run(step, advance)
        except FileError as error:
            raise TrainingError(
                f"{error}; the SAEs as they were are in this error's `runs`", runs(f"stopped: {error}")
            ) from error
        except TrainingError as error:
            error.runs = error.runs or runs(f"stopped: {error}")
            raise
        finished = runs(status)
    if all(t.collapse for t in trainers):
        raise TrainingError("; ".join(f"{t.name}: {t.collapse}" for t in trainers), finished)
    return finished


def _widths(stream: Stream, configs: Sequence[SAEConfig]) -> tuple[int, int] | None:
    """Widths of input and target of a stream of pairs; None of one of plain vectors.

    Raises:
        SAEError: SAEs on pairs, or transcoders on plain vectors.
    """
    widths: tuple[int, int] | None = stream_attribute(stream, "widths")
    for config in configs:
        if config.kind in ("sae", "crosscoder") and widths is not None:
            kind = "an SAE" if config.kind == "sae" else "a crosscoder"
            raise SAEError(
                f"the stream has pairs of {widths[0]} and {widths[1]} channels, and {config.title} is {kind}: "
                "say kind='transcoder'"
            )
        if config.kind not in ("sae", "crosscoder") and widths is None:
            raise SAEError(
                f"{config.title} is a transcoder, and the stream has no targets: give sae.TensorStream(x, target=y), "
                "or the stream of a pair of layers"
            )
    return widths


def _written(stream: Stream, configs: Sequence[SAEConfig]) -> tuple[int, ...]:
    """Widths of the vectors side by side in what is reconstructed, of a stream with several; else none.

    Raises:
        SAEError: SAEs on several vectors, crosscoders on one, or a configuration that says other widths.
    """
    written: tuple[int, ...] = tuple(stream_attribute(stream, "written") or ())
    for config in configs:
        if config.kind == "sae" and written:
            raise SAEError(
                f"the stream has {len(written)} vectors side by side, {written} wide, and {config.title} is an SAE: "
                "say kind='crosscoder'"
            )
        if not written and (config.kind == "crosscoder" or config.written):
            raise SAEError(
                f"{config.title} reconstructs several vectors at once, and the stream has one: give "
                "sae.TensorStream([a, b]), or the stream of several layers"
            )
        if config.written not in ((), written):
            raise SAEError(f"{config.title} says written={config.written}; the stream's vectors are {written} wide")
    return written


def run_names(configs: Sequence[SAEConfig]) -> list[str]:
    """Names of the runs that `train` makes of some configurations, in their order.

    Raises:
        SAEError: no configurations, or two of one name.
    """
    if not configs:
        raise SAEError("name at least one configuration to train, say sae.TopK(latents=4096, k=32)")
    for config in configs:
        if not isinstance(config, SAEConfig):
            raise SAEError(f"train takes configurations such as sae.TopK(...); got {type(config).__name__}")
    names: list[str] = []
    for config in configs:
        name = config.name or config.title
        if config.name is not None and name in names:
            raise SAEError(f"two runs have the name {shorten(name)!r}")
        earlier = sum(n == name or n.startswith(f"{name}-run") for n in names)
        names.append(f"{name}-run{earlier + 1}" if earlier else name)
    return names


@dataclass(frozen=True, eq=False)
class _Opened:
    """A stream before training, the size and fingerprint of its first batch, and the checkpoint to resume."""

    stream: Stream
    saved: Checkpoint | None
    size: int
    device: torch.device
    fingerprint: str


def _open(data: Any, settings: TrainingSettings, file: Path | None, resume: bool, ranks: Ranks) -> _Opened:
    stream = open_stream(data, settings.batch_size, settings.seed)
    if ranks.world > 1:
        share(stream, ranks.rank, ranks.world)
    if file is not None and isinstance(stream, Replayed):
        raise SAEError("checkpoints need a stream that can restore its position: a tensor, or tell() and seek()")
    saved = read_checkpoint(file) if file is not None and resume and file.exists() else None
    start = stream.tell()
    batch = next(stream, None)
    if batch is None:
        raise TrainingError("the stream gave no activations")
    stream.seek(start)
    return _Opened(stream, saved, len(batch), batch.device, fingerprint(batch) if ranks.world > 1 else "")


def _resume(
    file: Path, saved: Checkpoint, settings: Mapping[str, Any], trainers: list[SAETrainer], stream: Stream, ranks: Ranks
) -> int:
    differing = [name for name, value in flattened(settings).items() if flattened(saved.settings).get(name) != value]
    if differing or len(saved.counters) != len(trainers):
        listed = ", ".join(differing[:6]) or "the number of SAEs"
        raise TrainingError(
            f"{file} belongs to a training with other settings ({listed}); give another file, or resume=False"
        )
    for trainer, tensors, counters in zip(trainers, saved.tensors, saved.counters, strict=True):
        trainer.restore(tensors, counters)
    positions = saved.position.get(POSITIONS, [saved.position])
    if len(positions) != ranks.world:
        # the position in a stream that all ranks share is the same for any number of ranks
        if any(position != positions[0] for position in positions):
            raise TrainingError(
                f"{file} is of {len(positions)} ranks, each with a stream of its own, not {ranks.world}"
            )
        positions = positions[:1] * ranks.world
    stream.seek(positions[ranks.rank])
    log.info("resuming from step %d in %s", saved.step, file)
    return saved.step


def _run(
    trainer: SAETrainer, status: str, reports: Sequence[Report], metadata: dict[str, Any], provenance: Mapping[str, Any]
) -> Run:
    sae = trainer.sae.eval().requires_grad_(False)
    sae.metadata = metadata
    return Run(
        name=trainer.name,
        config=trainer.config,
        sae=sae,
        steps=trainer.step,
        samples=trainer.samples,
        status=f"collapsed: {trainer.collapse}" if trainer.collapse else status,
        reports=tuple(r for r in reports if r.name == trainer.name),
        provenance=provenance,
    )
