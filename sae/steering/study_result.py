"""What a study of steering found: numbers by factor, the sweet spot, and what else changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sae.errors import SAEError
from sae.steering.side_effects import Numbers, SideEffects


@dataclass(frozen=True)
class Writing:
    """An effect on what a language model writes.

    Attributes:
        function: a number for a text (a prompt and what was written after it), `zoo.tales.mentions` for example.
        prompts: what the texts begin with; each is continued with random numbers of its own.
        name: of the number.
        max_new_tokens, temperature: as of `LanguageSite.generate`.
        beside: further numbers of the same texts, name -> function; higher is better. `capability=` may name one.
    """

    function: Callable[[str], float]
    prompts: tuple[str, ...]
    name: str = "effect on texts"
    max_new_tokens: int = 40
    temperature: float = 1.0
    beside: Mapping[str, Callable[[str], float]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Curve:
    """A number by factor.

    Attributes:
        what: it is; clean: its value when nothing is steered.
        values: `(factors,)`; random: `(latents, factors)` the same for random latents.
    """

    what: str
    clean: float
    values: Numbers
    random: Numbers

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "what": self.what, "clean": self.clean, "values": self.values.tolist(), "random": self.random.tolist()
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Study:
    """What `study` found of one latent.

    Attributes:
        unit, latent: which; kind: "set", "add" or "scale"; everywhere: or at some places only.
        factors: multiples of its maximum; maximum: that; length: of a step of one factor in activation space.
        targets: classes or tokens meant, or the name of what is measured of texts; chosen: whether they were chosen
            as what increased most (each random latent has then its own).
        effect: on target; first_order: `(factors,)` the same estimated by the derivative, for measure "score".
        capability: on the held-out inputs, or of what is written; tolerance: share of the clean value that may be lost.
        beside: what else was measured by factor: of texts written, and the loss where it is not the capability.
        sweet_spot: the factors around the one that changes least at which capability holds, or None.
        at: the factor that side effects are told for; side_effects: by what they are on.
        control: addresses of the random latents, control_lengths: of a step of one factor of each.
        inputs, held_out: name, number and digest; measured_on: what the maxima were measured on.
    """

    unit: str
    latent: int
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
    control_lengths: tuple[float, ...]
    inputs: Mapping[str, Any]
    held_out: Mapping[str, Any]
    measured_on: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    beside: tuple[Curve, ...] = ()

    def beaten(self, factor: float | None = None) -> float:
        """Share of the random latents whose effect on target at a factor (default: `at`) is smaller.

        Raises:
            SAEError: no such factor was studied.
        """
        wanted = self.at if factor is None else factor
        if wanted not in self.factors:
            raise SAEError(f"factor {wanted} was not studied; there are {', '.join(f'{f:g}' for f in self.factors)}")
        column = self.factors.index(wanted)
        return float((self.effect.random[:, column] < self.effect.values[column]).mean())

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "unit": self.unit,
            "kind": self.kind,
            "everywhere": self.everywhere,
            "factors": list(self.factors),
            "maximum": self.maximum,
            "length": self.length,
            "targets": list(self.targets),
            "chosen": self.chosen,
            "effect": self.effect.describe(),
            "first_order": None if self.first_order is None else self.first_order.tolist(),
            "capability": self.capability.describe(),
            "beside": [one.describe() for one in self.beside],
            "tolerance": self.tolerance,
            "sweet_spot": None if self.sweet_spot is None else list(self.sweet_spot),
            "at": self.at,
            "beaten": self.beaten(),
            "side_effects": {name: one.describe() for name, one in self.side_effects.items()},
            "control": [
                {"unit": unit, "length": length}
                for unit, length in zip(self.control, self.control_lengths, strict=True)
            ],
            "inputs": dict(self.inputs),
            "held_out": dict(self.held_out),
            "measured_on": dict(self.measured_on),
            "provenance": dict(self.provenance),
        }


def sweet_spot(
    factors: Sequence[float],
    values: Sequence[float],
    clean: float,
    tolerance: float,
    *,
    lower: bool = False,
    around: float = 0.0,
) -> tuple[float, float] | None:
    """The range of factors around the one that changes least at which capability holds; None if it does not there.

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
