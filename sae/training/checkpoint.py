"""Checkpoints: one safetensors file with all that the next step depends on, whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sae.errors import FormatError, shorten
from zoo.common.files import write_atomically

SCHEMA = 1
KIND = "vision-circuits SAE training"


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
    about = {"about": json.dumps(head)}
    write_atomically(path, lambda temporary: save_file(ready, temporary, about))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what `write_checkpoint` wrote.

    Raises:
        FormatError: damaged, or something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            head = json.loads((file.metadata() or {}).get("about", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(f"{path} is not a checkpoint, or damaged: {shorten(error, 120)}") from error
    if not isinstance(head, dict) or head.get("kind") != KIND:
        raise FormatError(f"{path} is a safetensors file, but not the checkpoint of a training")
    if head.get("schema") != SCHEMA:
        raise FormatError(f"{path} has schema {shorten(head.get('schema'), 20)}; this version reads {SCHEMA}")
    try:
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
    except (KeyError, TypeError) as error:
        raise FormatError(f"{path} is incomplete: {shorten(error)}") from error


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
