"""Incoming weights of a unit from the layer before, and outgoing weights into the layer after."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.attribution.expanded_weights import expanded_weights
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.units.similarity import after
from zoo.common.checks import one_of, whole_number
from zoo.common.results import HIDDEN, Result

FAINT = 1e-3
"""Kernels shorter than this share of the longest are left out."""


@dataclass(frozen=True)
class NeighborWeight(Result):
    """A kernel from one unit to another.

    Attributes:
        unit: address of the unit at the other end.
        weight: length (L2) of the kernel, with the sign of its sum.
        sum: of the kernel.
        share: of the squared weights of all kernels into the target.
        kernel: `(kh, kw)` expanded weights.
    """

    unit: str
    weight: float
    sum: float
    share: float
    kernel: NDArray[np.float32]


@dataclass(frozen=True)
class NeighborWeights(Result):
    """The strongest kernels into a unit, or out of it.

    Attributes:
        unit: address; direction: "in" or "out".
        layer: the layer at the other end; start: the layer whose activations the kernels multiply (a pool, say).
        rows: strongest first.
        count: all units of that layer.
        rest: sum of the kernels not among the rows, `(kh, kw)`, for "in".
        offset, stride: see `circuits.ExpandedWeights`.
    """

    unit: str = field(metadata=HIDDEN)
    layer: str
    start: str
    direction: Literal["in", "out"]
    count: int
    rows: tuple[NeighborWeight, ...]
    rest: NDArray[np.float32] | None
    offset: tuple[int, int]
    stride: tuple[int, int]

    @property
    def related_units(self) -> list[str]:
        """Addresses of the units at the other end."""
        return [row.unit for row in self.rows]


def neighbor_weights(
    model: Model, unit: str | Unit, direction: Literal["in", "out"] = "in", n: int = 12
) -> NeighborWeights:
    """The `n` strongest kernels into a unit from the trunk layer before, or out of it into the one after.

    Args:
        model: the model.
        unit: a channel, or a latent of an attached basis.
        direction: "in" or "out".
        n: how many; those below a thousandth of the strongest are left out.

    Raises:
        AddressError: no such unit. CircuitsError: there is no layer before or after, or `n` below 1.
        GraphError: the model's graph does not show what lies between.

    >>> neighbor_weights(load("scenes"), "mixed4a:11").layer
    'mixed3b'
    """
    one_of("direction", direction, ("in", "out"))
    whole_number("n", n)
    at = model.unit(unit).channel
    assert at.index is not None
    other = model.before(at.layer) if direction == "in" else after(model, at.layer)
    if other is None:
        end = "reads the image itself" if direction == "in" else "is read by no further layer of the trunk"
        raise CircuitsError(f"{at.short} {end}")
    if direction == "in":
        weights = expanded_weights(model, source=other, target=at)
        kernels = weights.kernels[0]
    else:
        weights = expanded_weights(model, source=at.space, target=other)
        kernels = weights.kernels[:, at.index]
    kernels = kernels.detach().cpu().float()
    lengths = torch.linalg.vector_norm(kernels, dim=(1, 2))
    # a target's weights are shares of all that this target reads
    whole = weights.kernels.square().sum(dim=(1, 2, 3)).cpu() if direction == "out" else lengths.square().sum()
    order = [
        i for i in lengths.argsort(descending=True, stable=True)[:n].tolist() if lengths[i] > FAINT * lengths.max()
    ]
    rest = torch.ones(len(kernels), dtype=torch.bool)
    rest[order] = False
    return NeighborWeights(
        unit=str(at),
        layer=other,
        start=weights.start,
        direction=direction,
        count=len(kernels),
        rows=tuple(_row(model, other, i, kernels[i], whole.expand(len(kernels))[i]) for i in order),
        rest=kernels[rest].sum(dim=0).numpy() if direction == "in" else None,
        offset=weights.offset,
        stride=weights.stride,
    )


def _row(model: Model, layer: str, index: int, kernel: Tensor, whole: Tensor) -> NeighborWeight:
    length, total = float(kernel.norm()), float(kernel.sum())
    return NeighborWeight(
        unit=str(model.resolve(Unit(layer, index))),
        weight=length if total >= 0 else -length,
        sum=total,
        share=length**2 / max(float(whole), 1e-30),
        kernel=kernel.numpy().copy(),  # a view would hold on to all kernels of the layer
    )
