"""What a unit reads from the layer before, and who in the layer after reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.attribution.expanded_weights import expanded_weights
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.units.similarity import after

FAINT = 1e-3
"""Kernels that are shorter than this share of the longest are none to look at."""


@dataclass(frozen=True)
class Wire:
    """A kernel from one unit to another.

    Attributes:
        unit: address of the unit at the other end.
        kernel: `(kh, kw)` expanded weights.
        weight: its length (L2), with the sign of its sum.
        sum: of its weights.
        share: of the squared weights of all kernels that the target reads, `weight` among the sources' ones.
    """

    unit: str
    kernel: NDArray[np.float32]
    weight: float
    sum: float
    share: float


@dataclass(frozen=True)
class Wires:
    """The strongest kernels into a unit, or out of it.

    Attributes:
        unit: address; direction: "in" or "out".
        layer: the layer at the other end; start: where its activations are read (behind a pool, say).
        rows: strongest first.
        count: all units of that layer.
        rest: sum of the kernels not shown, `(kh, kw)`, for "in": shown and rest are all.
        offset, stride: see `circuits.ExpandedWeights`.
    """

    unit: str
    direction: Literal["in", "out"]
    layer: str
    start: str
    rows: tuple[Wire, ...]
    count: int
    rest: NDArray[np.float32] | None
    offset: tuple[int, int]
    stride: tuple[int, int]

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "layer": self.layer,
            "start": self.start,
            "direction": self.direction,
            "count": self.count,
            "rows": [
                {"unit": w.unit, "weight": w.weight, "sum": w.sum, "share": w.share, "kernel": w.kernel.tolist()}
                for w in self.rows
            ],
            "rest": None if self.rest is None else self.rest.tolist(),
            "offset": list(self.offset),
            "stride": list(self.stride),
        }


def wires(model: Model, unit: str | Unit, direction: Literal["in", "out"] = "in", n: int = 12) -> Wires:
    """The `n` strongest kernels into a unit from the trunk layer before, or out of it into the one after.

    Args:
        model: the model.
        unit: a channel, or a latent of an attached basis.
        direction: "in" or "out".
        n: how many; those below a thousandth of the strongest are left out.

    Raises:
        AddressError: no such unit. CircuitsError: there is no layer before or after, or `n` below 1.
        GraphError: the model's graph does not say what lies between.

    >>> wires(load("scenes"), "mixed4a:11").layer
    'mixed3b'
    """
    if direction not in ("in", "out") or n < 1:
        raise CircuitsError(f"wires go 'in' or 'out', at least one of them; got {direction!r}, {n}")
    at = model.unit(unit).channel
    assert at.index is not None
    other = model.before(at.layer) if direction == "in" else after(model, at.layer)
    if other is None:
        where = "reads the picture itself" if direction == "in" else "is read by no further layer of the trunk"
        raise CircuitsError(f"{at.short} {where}")
    if direction == "in":
        found = expanded_weights(model, source=other, target=at)
        kernels = found.kernels[0]
    else:
        found = expanded_weights(model, source=at.space, target=other)
        kernels = found.kernels[:, at.index]
    kernels = kernels.detach().cpu().float()
    lengths = torch.linalg.vector_norm(kernels, dim=(1, 2))
    # a target's weights are shares of what that target reads in all
    whole = found.kernels.square().sum(dim=(1, 2, 3)).cpu() if direction == "out" else lengths.square().sum()
    order = [
        i for i in lengths.argsort(descending=True, stable=True)[:n].tolist() if lengths[i] > FAINT * lengths.max()
    ]
    rest = torch.ones(len(kernels), dtype=torch.bool)
    rest[order] = False
    return Wires(
        unit=str(at),
        direction=direction,
        layer=other,
        start=found.start,
        rows=tuple(_wire(model, other, i, kernels[i], whole.expand(len(kernels))[i]) for i in order),
        count=len(kernels),
        rest=kernels[rest].sum(dim=0).numpy() if direction == "in" else None,
        offset=found.offset,
        stride=found.stride,
    )


def _wire(model: Model, layer: str, index: int, kernel: Tensor, whole: Tensor) -> Wire:
    length, total = float(kernel.norm()), float(kernel.sum())
    return Wire(
        unit=str(model.resolve(Unit(layer, index))),
        kernel=kernel.numpy(),
        weight=length if total >= 0 else -length,
        sum=total,
        share=length**2 / max(float(whole), 1e-30),
    )
