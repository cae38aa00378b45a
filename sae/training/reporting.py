"""Reports of a training, a JSONL file of them, and callbacks for TensorBoard and Weights & Biases."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae.errors import FileError, TrainingError, shorten
from zoo.common.files import write_text_atomically
from zoo.common.reading import fits, parse_json, read_text
from zoo.common.results import Result


@dataclass(frozen=True)
class Report(Result):
    """One SAE over the steps since its last report.

    Attributes:
        name: of the run; step, samples: steps and vectors until now.
        loss: mean of the total loss.
        fvu: fraction of the variance unexplained, on the training batches.
        l0: active latents per input.
        dead: share of the latents that were inactive for more than `dead_after` samples.
        alive: share that was active since the last report.
        lr: learning rate.
        parts: named terms of the loss.
    """

    name: str
    step: int
    samples: int
    loss: float
    fvu: float
    l0: float
    dead: float
    alive: float
    lr: float
    parts: Mapping[str, float]

    def describe(self) -> dict[str, Any]:
        """The report as JSON."""
        return {**vars(self), "parts": dict(self.parts)}


Callback = Callable[[Report], None]


class ReportFile:
    """Reports as JSON lines, one per run and report.

    Lines beyond `from_step` are dropped, so that the file of a resumed training is that of an uninterrupted one.

    Raises:
        TrainingError: the file holds other lines than reports, or cannot be written.
    """

    def __init__(self, path: str | Path, from_step: int) -> None:
        self.path = Path(path).expanduser()
        lines = []
        try:
            if self.path.exists():
                for line in read_text(self.path).splitlines():
                    if (step := _step_of(line)) is None:
                        # the last line may be half written; any other belongs to another program
                        if not line.startswith('{"name"'):
                            raise TrainingError(f"{self.path} holds something else than reports: {shorten(line, 40)!r}")
                    elif step <= from_step:
                        lines.append(line + "\n")
            write_text_atomically(self.path, "".join(lines))
        except (OSError, UnicodeDecodeError) as error:
            raise TrainingError(f"cannot keep reports in {self.path}: {shorten(error)}") from error

    def __call__(self, report: Report) -> None:
        """Add a line.

        Raises:
            FileError: the disk does not take it.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(report.describe()) + "\n")
        except OSError as error:
            raise FileError(f"cannot write {self.path}: {error.strerror}") from error


def read_reports(path: Path) -> list[Report]:
    """The reports in a file of `ReportFile`; lines that are none are left out, such as one that a kill cut short."""
    reports = []
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in read_text(path).splitlines():
            with contextlib.suppress(ValueError, TypeError):
                row = parse_json(line)
                fits(row, Report)
                reports.append(Report(**row))
    return reports


def _step_of(line: str) -> int | None:
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) else None


def tensorboard(folder: str | Path) -> Callback:
    """A callback that writes TensorBoard scalars, one run per SAE.

    >>> train(x, TopK(latents=64, k=4), steps=100, callbacks=[tensorboard("runs")])  # doctest: +SKIP
    """
    from torch.utils.tensorboard import SummaryWriter  # an extra: pip install tensorboard

    writers: dict[str, Any] = {}

    def write(report: Report) -> None:
        if report.name not in writers:
            writers[report.name] = SummaryWriter(str(Path(folder) / report.name))
        for name, value in _scalars(report).items():
            writers[report.name].add_scalar(name, value, report.samples)

    return write


def wandb(run: Any) -> Callback:
    """A callback that logs to a Weights & Biases run, `wandb.init(...)`; keys are `RUN/metric`."""

    def write(report: Report) -> None:
        run.log(
            {f"{report.name}/{name}": value for name, value in _scalars(report).items()} | {"samples": report.samples}
        )

    return write


def _scalars(report: Report) -> dict[str, float]:
    values = {name: float(getattr(report, name)) for name in ("loss", "fvu", "l0", "dead", "alive", "lr")}
    return values | {f"parts/{name}": value for name, value in report.parts.items()}
