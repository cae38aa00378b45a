"""Incoming weights of a unit from the layer before, and outgoing weights into the layer after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from circuits.attribution.expanded_weights import ExpandedWeights, expanded_weights
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.units.similarity import after, unit_names
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
    other = _other_end(model, at, direction)
    if direction == "in":
        weights = expanded_weights(model, source=other, target=at)
        return _incoming(model, str(at), other, weights, 0, n)
    weights = expanded_weights(model, source=at.space, target=other)
    kernels = weights.kernels[:, at.index].detach().cpu().float()
    order = _strongest(torch.linalg.vector_norm(kernels, dim=(1, 2)), n)
    whole = weights.kernels.square().sum(dim=(1, 2, 3)).cpu()  # shares are of all that the target reads
    rows = tuple(_row(model, other, i, kernels[i], whole[i]) for i in order)
    return NeighborWeights(
        str(at), other, weights.start, "out", len(kernels), rows, None, weights.offset, weights.stride
    )


def layer_neighbor_weights(
    model: Model, layer: str, direction: Literal["in", "out"] = "in", n: int = 12, *, max_memory: int = 2**27
) -> Iterator[NeighborWeights]:
    """What `neighbor_weights` gives for each unit of a layer in turn, from one pass over all kernels.

    Args:
        model: the model.
        layer: a layer, or an attached basis (`layer~name`).
        direction: "in" or "out".
        n: kernels of a unit.
        max_memory: bytes of the kernels that are held at a time.

    Raises:
        AddressError, CircuitsError, GraphError: as `neighbor_weights`, at the first unit.
    """
    one_of("direction", direction, ("in", "out"))
    whole_number("n", n)
    units = [model.unit(name) for name in unit_names(model, layer)]
    at = units[0]
    other = _other_end(model, at, direction)
    if direction == "in":
        # a branch at a time: the kernels of a 1 x 1 convolution are 1 x 1 only where no wider branch is beside it
        branches = groupby(units, lambda unit: None if unit.basis is not None else model.branch_of(unit))
        for _, group in branches:
            for weights in _in_chunks(model, other, list(group), max_memory):
                for i, target in enumerate(weights.targets):
                    yield _incoming(model, str(replace(Unit.parse(target), model=model.name)), other, weights, i, n)
        return
    targets = [model.unit(name) for name in unit_names(model, other)]
    lengths, indices = torch.zeros(len(units), 0), torch.zeros(len(units), 0, dtype=torch.long)
    wholes, best = torch.zeros(0), torch.zeros(0)
    begin, offset = 0, (0, 0)
    for weights in _in_chunks(model, at.space, targets, max_memory):
        kernels = weights.kernels.detach().cpu().float().transpose(0, 1)  # (sources, targets, kh, kw)
        wholes = torch.cat([wholes, weights.kernels.square().sum(dim=(1, 2, 3)).cpu()])
        numbers = torch.arange(begin, begin + kernels.shape[1]).expand(len(units), -1)
        lengths = torch.cat([lengths, torch.linalg.vector_norm(kernels, dim=(2, 3))], dim=1)
        indices = torch.cat([indices, numbers], dim=1)
        if begin == 0:
            best, offset = kernels, weights.offset
        else:  # targets of a wide branch have larger kernels than those of a narrow one
            best, kernels, offset = _aligned(best, offset, kernels, weights.offset)
            best = torch.cat([best, kernels], dim=1)
        order = lengths.argsort(dim=1, descending=True, stable=True)[:, :n]
        lengths, indices = lengths.gather(1, order), indices.gather(1, order)
        best = best[torch.arange(len(units))[:, None], order]
        begin += len(weights.targets)
    for i, unit in enumerate(units):
        rows = tuple(
            _row(model, other, int(indices[i, k]), best[i, k], wholes[indices[i, k]]) for k in _strongest(lengths[i], n)
        )
        yield NeighborWeights(str(unit), other, weights.start, "out", len(targets), rows, None, offset, weights.stride)


def _in_chunks(model: Model, source: str, targets: Sequence[Unit], max_memory: int) -> Iterator[ExpandedWeights]:
    size = expanded_weights(model, source=source, target=targets[0]).kernels.nbytes
    step = max(1, max_memory // size)
    for begin in range(0, len(targets), step):
        yield expanded_weights(model, source=source, target=targets[begin : begin + step])


def _aligned(
    first: Tensor, first_offset: tuple[int, int], second: Tensor, second_offset: tuple[int, int]
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Two sets of kernels `(..., kh, kw)` in one frame that holds both, and the offset of the frame."""
    top, left = (min(a, b) for a, b in zip(first_offset, second_offset, strict=True))
    both = ((first, first_offset), (second, second_offset))
    bottom, right = (max(offset[k] + kernels.shape[2 + k] for kernels, offset in both) for k in (0, 1))
    padded = [F.pad(k, (x - left, right - x - k.shape[3], y - top, bottom - y - k.shape[2])) for k, (y, x) in both]
    return padded[0], padded[1], (top, left)


def _other_end(model: Model, at: Unit, direction: Literal["in", "out"]) -> str:
    other = model.before(at.layer) if direction == "in" else after(model, at.layer)
    if other is None:
        end = "reads the image itself" if direction == "in" else "is read by no further layer of the trunk"
        raise CircuitsError(f"{at.short} {end}")
    return other


def _incoming(model: Model, unit: str, other: str, weights: ExpandedWeights, target: int, n: int) -> NeighborWeights:
    kernels = weights.kernels[target].detach().cpu().float()
    lengths = torch.linalg.vector_norm(kernels, dim=(1, 2))
    order, whole = _strongest(lengths, n), lengths.square().sum()
    rest = torch.ones(len(kernels), dtype=torch.bool)
    rest[order] = False
    rows = tuple(_row(model, other, i, kernels[i], whole) for i in order)
    total = kernels[rest].sum(dim=0).numpy()
    return NeighborWeights(unit, other, weights.start, "in", len(kernels), rows, total, weights.offset, weights.stride)


def _strongest(lengths: Tensor, n: int) -> list[int]:
    """Indices of the `n` longest kernels, longest first, without those that are faint beside it."""
    order = lengths.argsort(descending=True, stable=True)[:n].tolist()
    return [i for i in order if lengths[i] > FAINT * lengths.max()]


def _row(model: Model, layer: str, index: int, kernel: Tensor, whole: Tensor) -> NeighborWeight:
    length, total = float(kernel.norm()), float(kernel.sum())
    return NeighborWeight(
        unit=str(model.resolve(Unit(layer, index))),
        weight=length if total >= 0 else -length,
        sum=total,
        share=length**2 / max(float(whole), 1e-30),
        kernel=kernel.numpy().copy(),  # a view would hold on to all kernels of the layer
    )
