"""Checkpoints: one safetensors file with all that the next step depends on, whole or not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae.errors import FormatError
from zoo.common.stored import Stored

SCHEMA = 1
KIND = "vision-circuits SAE training"
_CHECKPOINTS = Stored(
    "the checkpoint of a training", "Delete it and train again", FormatError, SCHEMA, mark={"kind": KIND}
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a training was when it was written.

    Attributes:
        settings: of the training; a resumed one must have the same.
        step: steps done; position: of the stream, after them.
        counters: per SAE, JSON; tensors: per SAE; statistics: mean and bias of the inputs; scale, samples: theirs.
        reports: all so far, as JSON.
    """

    settings: Mapping[str, Any]
    step: int
    position: Mapping[str, Any]
    counters: tuple[Mapping[str, Any], ...]
    tensors: tuple[Mapping[str, Tensor], ...]
    statistics: Mapping[str, Tensor]
    scale: float
    samples: int
    reports: tuple[Mapping[str, Any], ...]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; a killed process leaves the old file or the new one.

    Raises:
        FileError: the disk does not take it; an older checkpoint stays.
    """
    tensors = {f"statistics.{name}": value for name, value in checkpoint.statistics.items()}
    for index, state in enumerate(checkpoint.tensors):
        tensors |= {f"{index}.{name}": value for name, value in state.items()}
    # clones: tensors that share memory are refused
    ready = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    head = {
        "schema": SCHEMA, "kind": KIND, "settings": dict(checkpoint.settings), "step": checkpoint.step,
        "position": dict(checkpoint.position), "counters": [dict(c) for c in checkpoint.counters],
        "scale": checkpoint.scale, "samples": checkpoint.samples, "reports": [dict(r) for r in checkpoint.reports],
        "torch": str(torch.__version__),
    }  # fmt: skip
    _CHECKPOINTS.write_tensors(path, ready, head)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what `write_checkpoint` wrote.

    Raises:
        FormatError: damaged, or something else.
    """
    head = _CHECKPOINTS.check(path, _CHECKPOINTS.read_about(path))
    tensors = _CHECKPOINTS.read_tensors(path)
    with _CHECKPOINTS.parsing(path):
        count = len(head["counters"])
        return Checkpoint(
            settings=head["settings"],
            step=head["step"],
            position=head["position"],
            counters=tuple(head["counters"]),
            tensors=tuple(_under(tensors, f"{index}.") for index in range(count)),
            statistics=_under(tensors, "statistics."),
            scale=head["scale"],
            samples=head["samples"],
            reports=tuple(head["reports"]),
        )


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
