"""Checkpoints: one safetensors file with all that the next step depends on, whole or not there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import torch
from msgspec import Meta
from torch import Tensor

from sae.errors import FormatError
from sae.training.input_normalization import InputStatistics
from zoo.common.reading import Count, Expected, Positive, check_arrays
from zoo.common.stored import Stored

SCHEMA = 1
KIND = "vision-circuits SAE training"


_Infinite = Literal["nan", "inf", "-inf"]
_MEASURED = ("loss", "fvu", "l0", "dead", "alive", "lr")


class _Head(TypedDict):
    settings: dict[str, Any]
    step: Count
    position: dict[str, Any]
    counters: list[_Counters]
    scale: Annotated[float, Meta(gt=0)]
    samples: Positive
    reports: list[_Report]


class _Report(TypedDict):
    name: str
    step: Count
    samples: Count
    loss: float | _Infinite
    fvu: float | _Infinite
    l0: float | _Infinite
    dead: float | _Infinite
    alive: float | _Infinite
    lr: float | _Infinite
    parts: dict[str, float]


class _Counters(TypedDict):
    name: str
    config: dict[str, Any]
    step: Count
    samples: Count
    resampled_at: int
    strikes: Count
    collapse: str | None


_CHECKPOINTS = Stored(
    "the checkpoint of a training", "Delete it and train again", FormatError, SCHEMA, mark={"kind": KIND}, shape=_Head
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a training was when it was written.

    Attributes:
        settings: of the training; a resumed one must have the same.
        step: steps done; position: of the stream, after them.
        counters: per SAE, JSON; tensors: per SAE; statistics: of the inputs.
        reports: all so far, as JSON.
    """

    settings: Mapping[str, Any]
    step: int
    position: Mapping[str, Any]
    counters: tuple[Mapping[str, Any], ...]
    tensors: tuple[Mapping[str, Tensor], ...]
    statistics: InputStatistics
    reports: tuple[Mapping[str, Any], ...]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; a killed process leaves the old file or the new one.

    Raises:
        FileError: the disk does not take it; an older checkpoint stays.
    """
    tensors = {f"statistics.{name}": value for name, value in _tensors_of(checkpoint.statistics).items()}
    for index, state in enumerate(checkpoint.tensors):
        tensors |= {f"{index}.{name}": value for name, value in state.items()}
    # clones: tensors that share memory are refused
    ready = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    head = {
        "schema": SCHEMA, "kind": KIND, "settings": dict(checkpoint.settings), "step": checkpoint.step,
        "position": dict(checkpoint.position), "counters": [dict(c) for c in checkpoint.counters],
        "scale": 1.0 if isinstance(scale := checkpoint.statistics.scale, Tensor) else scale,
        "samples": checkpoint.statistics.samples,
        "reports": [_written(r) for r in checkpoint.reports],
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
            statistics=_statistics(_under(tensors, "statistics."), head["scale"], head["samples"]),
            reports=tuple({**r, **{name: float(r[name]) for name in _MEASURED}} for r in head["reports"]),
        )


def _tensors_of(statistics: InputStatistics) -> dict[str, Tensor]:
    """Statistics as tensors; a scale that is one number, and the number of the inputs, stand in the head."""
    tensors = {"mean": statistics.mean, "bias": statistics.bias}
    if isinstance(statistics.scale, Tensor):
        tensors["scale"] = statistics.scale
    if (target := statistics.target) is not None:
        scale = torch.as_tensor(target.scale)
        tensors |= {"target_mean": target.mean, "target_bias": target.bias, "target_scale": scale}
    return tensors


def _statistics(tensors: Mapping[str, Tensor], scale: float, samples: int) -> InputStatistics:
    """What `_tensors_of` took apart."""
    expected = {name: Expected("torch.float32", ("d",)) for name in ("mean", "bias")}
    if "scale" in tensors:
        expected["scale"] = Expected("torch.float32", ("d",), 0)
    if "target_mean" in tensors:
        expected |= {f"target_{name}": Expected("torch.float32", ("d_out",)) for name in ("mean", "bias")}
        several = "target_scale" in tensors and tensors["target_scale"].ndim > 0
        expected["target_scale"] = Expected("torch.float32", ("d_out",) if several else (), 0)
    check_arrays(tensors, expected)
    target = None
    if "target_mean" in tensors:
        of_target = tensors["target_scale"]
        target_scale = of_target if of_target.ndim else float(of_target)
        target = InputStatistics(tensors["target_mean"], target_scale, tensors["target_bias"], samples)
    return InputStatistics(tensors["mean"], tensors.get("scale", scale), tensors["bias"], samples, target)


def _written(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report as JSON, which has no NaN and no infinity: they become text."""
    values = {name: report[name] for name in _MEASURED}
    return {**report, **{name: v if math.isfinite(v) else str(v) for name, v in values.items()}}


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
