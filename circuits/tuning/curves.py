"""Tuning of a layer's units: responses along known axes, and statistics of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from circuits.errors import AddressError, did_you_mean, shorten
from circuits.network.address import is_address_of
from circuits.stimuli.base import Axis, axis_of
from circuits.tuning.circular_statistics import half_width, vector_mean
from zoo.common.checks import one_of
from zoo.common.results import HIDDEN, Result

Reduce = Literal["max", "mean"]


@dataclass(frozen=True)
class UnitTuning:
    """One unit's tuning in a few numbers.

    Attributes:
        unit: address.
        peak: its strongest response; at: the stimulus, axis name -> value (random samples averaged).
        baseline: its response to plain gray.
        modulation: 1 - lowest / highest response over all stimuli: 0 where all give the same response, 1 where one
            gives none (above 1 where one gives a negative one). NaN without a response above zero.
        orientation: degrees at the peak; None for stimuli without orientation.
        direction: circular mean of the responses over orientations, degrees, finer than `orientation`.
        concentration: length of the mean vector, 0 to 1; one minus it is the circular variance.
        width: half width at half maximum, degrees.
        echo: response at the opposite orientation over the peak; None where opposites are the same.

    The last four read the orientations at the preferred values of all other axes.
    """

    unit: str
    peak: float
    at: Mapping[str, Any]
    baseline: float
    modulation: float
    orientation: float | None = None
    direction: float | None = None
    concentration: float | None = None
    width: float | None = None
    echo: float | None = None

    def describe(self) -> dict[str, Any]:
        """Ready for JSON; an infinite radius is the string "straight"."""
        at = {k: "straight" if isinstance(v, float) and math.isinf(v) else v for k, v in self.at.items()}
        return {**vars(self), "at": at}


@dataclass(frozen=True)
class Curve:
    """Responses of one unit along one axis.

    Attributes:
        unit: address; axis: the axis; responses: `(A,)`, one for each of its values; at: the values of all others.
    """

    unit: str
    axis: Axis
    responses: Tensor
    at: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Tuning(Result):
    """Responses of units to stimuli along known axes, as `circuits.tune` gives them.

    Attributes:
        units: addresses, in order.
        axes: of the stimuli.
        responses: `(units, *values of each axis)`, on the CPU.
        baseline: `(units,)` responses to plain gray.
        layer: of the units; stimuli: name of the stimuli.
        pre: whether responses are pre-activations.
        reach: positions around the stimulus over which the strongest response was taken; None for the whole map.
        size: height and width of the stimuli in pixels.
        provenance: digests, settings, versions.
    """

    units: tuple[str, ...]
    axes: tuple[Axis, ...]
    responses: Tensor = field(metadata=HIDDEN)
    baseline: Tensor = field(metadata=HIDDEN)
    layer: str
    stimuli: str
    pre: bool
    reach: int | None
    size: tuple[int, int]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        axes = " x ".join(f"{len(a)} {a.name}" for a in self.axes)
        return f"Tuning({len(self.units)} units of {self.layer}, {self.stimuli}: {axes})"

    # -- looking up -------------------------------------------------------------------------------

    def axis(self, name: str) -> Axis:
        """The axis called `name`.

        Raises:
            StimuliError: there is none.
        """
        return axis_of(self.axes, name, self.stimuli)

    def row(self, unit: str) -> int:
        """Row of a unit, by its address with or without the model's name.

        Raises:
            AddressError: its tuning was not measured.
        """
        for i, address in enumerate(self.units):
            if is_address_of(unit, address):
                return i
        hint = did_you_mean(unit, self.units) if len(self.units) < 2000 else ""
        raise AddressError(f"the tuning of {shorten(unit)!r} was not measured.{hint}")

    @property
    def settled(self) -> Tensor:
        """Responses averaged over random samples of the same stimulus: those axes have length one."""
        out = self.responses
        for i, axis in enumerate(self.axes):
            if axis.average:
                out = out.mean(dim=i + 1, keepdim=True)
        return out

    def over(self, *names: str, reduce: Reduce = "max") -> Tensor:
        """Responses `(units, *axes)` along some axes: maximum or mean over all others; over random samples the mean.

        >>> tuning.over("orientation", "radius").shape  # doctest: +SKIP
        torch.Size([480, 24, 7])
        """
        one_of("reduce", reduce, ("max", "mean"))
        order = [self.axes.index(self.axis(name)) for name in names]
        rest = [i for i in range(len(self.axes)) if i not in order]
        means = [i + 1 for i in rest if self.axes[i].average or reduce == "mean"]
        out = self.responses
        for dim in means:  # before the maximum, which is over the means of random samples
            out = out.mean(dim=dim, keepdim=True)
        for dim in (i + 1 for i in rest if i + 1 not in means):
            out = out.amax(dim=dim, keepdim=True)
        out = out.squeeze(dim=tuple(i + 1 for i in rest)) if rest else out
        return out.permute(0, *(sorted(order).index(i) + 1 for i in order))

    @property
    def peaks(self) -> Tensor:
        """Strongest response of every unit, `(units,)`."""
        return self.settled.flatten(1).amax(dim=1)

    def preferred(self, name: str) -> list[Any]:
        """The value of an axis at every unit's strongest response."""
        axis = self.axis(name)
        return [axis.values[int(i)] for i in self._best()[:, self.axes.index(axis)]]

    def along(self, unit: str, axis: str = "orientation", **at: Any) -> Curve:
        """Responses of one unit along one axis, with all others fixed.

        Args:
            unit: its address.
            axis: the axis to go along.
            at: values of other axes; the rest are fixed where the unit responds most.

        Raises:
            AddressError: not measured. StimuliError: no such axis or value.
        """
        row, along = self.row(unit), self.axis(axis)
        best = [int(i) for i in self._best()[row]]
        for name, value in at.items():
            best[self.axes.index(self.axis(name))] = self.axis(name).index(value)
        index = tuple(slice(None) if a is along else i for a, i in zip(self.axes, best, strict=True))
        fixed = {a.name: a.values[i] for a, i in zip(self.axes, best, strict=True) if a is not along and not a.average}
        return Curve(self.units[row], along, self.settled[row][index], fixed)

    def radial(self, unit: str, **at: Any) -> Curve:
        """The radial tuning curve: responses around the circle of orientations, other axes at the unit's best."""
        return self.along(unit, "orientation", **at)

    # -- in numbers -------------------------------------------------------------------------------

    def around(self) -> Tensor:
        """Responses to the orientations at every unit's preferred values of all other axes, `(units, orientations)`."""
        turning = self.axes.index(self.axis("orientation"))
        rows = self.settled.movedim(turning + 1, -1)
        best = self._best()
        rest = [best[:, i] for i in range(len(self.axes)) if i != turning]
        return rows[(torch.arange(len(self.units)), *rest)]

    def rows(self) -> list[UnitTuning]:
        """Every unit's tuning in a few numbers, in order."""
        flat = self.settled.flatten(1)
        peak, low = flat.amax(dim=1), flat.amin(dim=1)
        best = self._best()
        angular = self._angular()
        rows = []
        for i, unit in enumerate(self.units):
            at = {a.name: a.values[int(k)] for a, k in zip(self.axes, best[i], strict=True) if not a.average}
            top = float(peak[i])
            modulation = 1 - float(low[i]) / top if top > 0 else math.nan
            numbers = {name: _number(values[i]) for name, values in angular.items()}
            if "orientation" in at:
                numbers["orientation"] = float(at["orientation"])
            rows.append(UnitTuning(unit, top, at, float(self.baseline[i]), modulation, **numbers))
        return rows

    def _angular(self) -> dict[str, Tensor]:
        axis = next((a for a in self.axes if a.name == "orientation" and a.is_full_circle), None)
        if axis is None or axis.period is None:
            return {}
        around = self.around()
        direction, length = vector_mean(around, axis.values, axis.period)
        ordered = [v % axis.period for v in axis.values]
        values = {
            "direction": direction,
            "concentration": length,
            "width": half_width(around, ordered, axis.period),
        }
        opposite = opposites(axis)
        if opposite is not None:
            values["echo"] = echo_of(around, opposite)
        return values

    def _best(self) -> Tensor:
        """Indices of every unit's strongest response along each axis, `(units, axes)`; 0 along random samples."""
        settled = self.settled
        flat = settled.flatten(1).argmax(dim=1)
        return torch.stack(torch.unravel_index(flat, settled.shape[1:]), dim=1)

    def describe(self) -> dict[str, Any]:
        """Ready for JSON: every unit's numbers; the responses themselves stay out."""
        return super().describe() | {"units": [row.describe() for row in self.rows()]}


def opposites(axis: Axis) -> Tensor | None:
    """For each orientation the index of the opposite one; None where it is none of the values, or the same."""
    count = len(axis)
    if axis.period != 360 or not axis.is_full_circle or count % 2:
        return None
    return (torch.arange(count) + count // 2) % count


def echo_of(around: Tensor, opposite: Tensor) -> Tensor:
    """Response at the opposite orientation over the peak, `(units,)`; NaN without a response above zero."""
    peak, at = around.max(dim=1)
    echo = around[torch.arange(len(around)), opposite[at]]
    return torch.where(peak > 0, echo / peak.clamp_min(1e-30), torch.full_like(peak, math.nan))


def _number(value: Tensor) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number
