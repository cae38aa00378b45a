"""What a study of steering varies and measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from sae.checks import whole
from sae.errors import SAEError, shorten
from sae.steering.edits import When
from zoo.common.checks import one_of, whole_number

FACTORS = (-20.0, -15.0, -10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0)
Measure: TypeAlias = Literal["probability", "log_probability", "score"]
Capability: TypeAlias = str
"""`"top1"`, `"loss"`, `"agreement"`, or the name of a number in `Writing.beside`."""


@dataclass(frozen=True)
class Writing:
    """An effect on the texts that a language model generates.

    Attributes:
        function: from a text (the prompt and its continuation) to a number, `zoo.tales.mentions` for example.
        prompts: beginnings of the texts; each is continued with random numbers of its own.
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


@dataclass(frozen=True)
class StudySettings:
    """Settings of `study`.

    Attributes:
        targets: classes or tokens (names or numbers) whose probability together is the effect; `Writing` for a
            number of generated texts. By default the class whose score increases most at `at`, chosen separately
            for each random latent.
        factors: multiples of the latent's maximum; kept in ascending order, without duplicates.
        kind: "set" the latent to them (0 then ablates it), "add" them, or "scale". For "scale" the factors are no
            multiples of the maximum: they multiply the latent where it is active (1 then changes nothing).
        positions: as `LatentEdit.at`. The default, "all", is more than most CNNs stand. In texts they are tokens,
            counted from the beginning of each text, generated tokens included.
        when: conditions on other latents, as `LatentEdit.when`: nothing is steered where one does not hold.
        measure: of the targets: mean "probability" of any of them, mean "log_probability" of that, or mean "score".
        capability: "top1" (default for images), "loss" (default for texts), "agreement" with the first choice of
            the unsteered network, which needs no labels, or the name of a number in `Writing.beside`.
        tolerance: share of the unsteered capability, in [0, 1), that may be lost within the sweet spot.
        at: factor at which side effects are measured (default: the largest in the sweet spot that changes
            anything; without a sweet spot the smallest above the factor of no change).
        random: number of random active latents in the control.
        step: of the control: "equal", the very step of the studied latent at every position, along the write direction
            of the random one; or "own", the same factors of the random latent's own maximum. Where maxima differ, and
            lengths of write directions, "own" compares a long step with short ones.
        directions, components: numbers of random directions, and of the first principal components of the activations
            (in the sense in which activations reach farther), along which the equal step is taken as well.
        name: name of the basis in addresses.
        batch_size: inputs per forward pass.
        seed: of the random latents, and of generated texts.

    Raises:
        SAEError: a value out of its range.
    """

    targets: Sequence[str | int] | Writing | None = None
    factors: Sequence[float] = FACTORS
    kind: Literal["set", "add", "scale"] = "set"
    positions: Any = "all"
    when: When | Sequence[When] = ()
    measure: Measure = "probability"
    capability: Capability | None = None
    tolerance: float = 0.05
    at: float | None = None
    random: int = 8
    step: Literal["equal", "own"] = "equal"
    directions: int = 4
    components: int = 2
    name: str = "sae"
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        factors = self.factors
        if isinstance(factors, str) or not len(factors) or not all(np.isfinite(f) for f in factors):
            raise SAEError(f"factors are finite numbers, at least one; got {shorten(factors)}")
        object.__setattr__(self, "factors", tuple(sorted({float(f) for f in factors})))
        one_of("kind", self.kind, ("set", "add", "scale"), error=SAEError)
        one_of("measure", self.measure, ("probability", "log_probability", "score"), error=SAEError)
        if not 0 <= self.tolerance < 1:
            raise SAEError(f"tolerance={self.tolerance} is a share from 0 to below 1")
        if self.at is not None and float(self.at) not in self.factors:
            raise SAEError(f"at={self.at} is none of the factors {', '.join(f'{f:g}' for f in self.factors)}")
        whole("random", self.random)
        one_of("step", self.step, ("equal", "own"), error=SAEError)
        for name in ("directions", "components"):
            whole_number(name, getattr(self, name), least=0, error=SAEError)

    @property
    def neutral(self) -> float:
        """The factor that changes least: 1 for "scale", else 0."""
        return 1.0 if self.kind == "scale" else 0.0
