"""The result of a study of steering: effect and capability by factor, the sweet spot, and side effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sae.errors import SAEError
from sae.steering.side_effects import Numbers, SideEffects
from zoo.common.results import HIDDEN, Result


@dataclass(frozen=True, eq=False)
class Curve(Result):
    """A number by factor.

    Attributes:
        what: name of the number; clean: its value in the unsteered network.
        values: `(factors,)`; random: `(latents, factors)` the same for random latents.
        directions: `(directions, factors)` the same for random directions and principal components.
    """

    what: str
    clean: float
    values: Numbers
    random: Numbers
    directions: Numbers = field(default_factory=lambda: np.zeros((0, 0)))


@dataclass(frozen=True, eq=False)
class Study(Result):
    """Result of `study` for one latent.

    Attributes:
        unit, latent: address and number; kind: "set", "add" or "scale"; everywhere: whether at all positions.
        factors: multiples of `maximum`; length: of a step of one factor in activation space.
        targets: names of the target classes or tokens, or of the number of generated texts; chosen: whether they are
            the most increased outcome, which is then another one for each random latent.
        effect: on target; first_order: `(factors,)` the same estimated by the derivative, for measure "score".
        capability: on the held-out inputs, or of generated texts; tolerance: share of the clean value that may be
            lost.
        beside: further curves, of generated texts, and of the loss where it is not the capability.
        sweet_spot: range of factors around the one that changes least at which capability holds, or None.
        at: factor at which side effects are measured; side_effects: by the kind of unit that changes.
        control: addresses of the random latents; control_lengths: length of a step of one factor of each.
        step: whether the control takes steps of "equal" length, or of its "own" maxima; directions: names of the random
            directions and principal components in the control.
        inputs, held_out: name, number and digest; measured_on: the same of the inputs of the maxima.
    """

    unit: str
    latent: int = field(metadata=HIDDEN)
    kind: str
    everywhere: bool
    factors: tuple[float, ...]
    maximum: float
    length: float
    targets: tuple[str, ...]
    chosen: bool
    effect: Curve
    first_order: Numbers | None
    capability: Curve
    tolerance: float
    sweet_spot: tuple[float, float] | None
    at: float
    side_effects: Mapping[str, SideEffects]
    control: tuple[str, ...]
    control_lengths: tuple[float, ...] = field(metadata=HIDDEN)
    inputs: Mapping[str, Any]
    held_out: Mapping[str, Any]
    measured_on: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    beside: tuple[Curve, ...] = ()
    step: str = "own"
    directions: tuple[str, ...] = ()

    def beaten(self, factor: float | None = None) -> float:
        """Share of the random latents, directions and components whose effect on target at a factor is smaller.

        Args:
            factor: default `at`.

        Raises:
            SAEError: no such factor was studied.
        """
        factor = self.at if factor is None else factor
        if factor not in self.factors:
            raise SAEError(f"factor {factor} was not studied; there are {', '.join(f'{f:g}' for f in self.factors)}")
        column = self.factors.index(factor)
        control = [*self.effect.random[:, column], *(row[column] for row in self.effect.directions)]
        return float((np.array(control) < self.effect.values[column]).mean())

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        control = [
            {"unit": unit, "length": length} for unit, length in zip(self.control, self.control_lengths, strict=True)
        ]
        return super().describe() | {"control": control, "beaten": self.beaten()}


def sweet_spot(
    factors: Sequence[float],
    values: Sequence[float],
    clean: float,
    tolerance: float,
    *,
    lower: bool = False,
    around: float = 0.0,
) -> tuple[float, float] | None:
    """The range of factors, around the one that changes least, at which capability holds; None if it does not there.

    Args:
        factors: ascending; values: capability at each; clean: without steering.
        tolerance: share of the clean value that may be lost.
        lower: whether lower is better, as of a loss; around: the factor that changes least.

    >>> sweet_spot([-2, -1, 0, 1, 2], [0.2, 0.88, 0.9, 0.9, 0.5], 0.9, 0.05)
    (-1, 1)
    """
    worse = np.asarray(values) - clean if lower else clean - np.asarray(values)
    holds = worse <= tolerance * abs(clean) + 1e-12
    start = int(np.argmin(np.abs(np.asarray(factors) - around)))
    if not holds[start]:
        return None
    low = high = start
    while low > 0 and holds[low - 1]:
        low -= 1
    while high + 1 < len(factors) and holds[high + 1]:
        high += 1
    return factors[low], factors[high]
