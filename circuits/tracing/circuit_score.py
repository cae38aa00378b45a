"""How much of a target a circuit carries, as data: see `circuits.score`, which measures it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.common.reading import Count
from zoo.common.results import Result

LEAST_SHARE = 0.1
"""Of a response, kept by a mask, for another share to be put in relation to it."""


@dataclass(frozen=True)
class AblatedResponse:
    """The target's response with every unit of the source layers ablated: what a circuit without units has.

    Attributes:
        mean, low, high: over positions and images.
        clean_mean, clean_low, clean_high: the same with nothing ablated.
        explained_variance: of the clean response; near 0 where the ablated response is a usual one, far
            below 0 where it is not.
    """

    mean: float
    low: float
    high: float
    clean_mean: float
    clean_low: float
    clean_high: float
    explained_variance: float

    @property
    def in_range(self) -> bool:
        """Whether the ablated network's response stays between the lowest and the highest clean one."""
        return self.clean_low <= self.low and self.high <= self.clean_high


@dataclass(frozen=True)
class SizeComparison:
    """A circuit beside others of its size, on images that had no part in choosing those.

    Shares are as in `size_curve`: 0 with every unit of the source layers ablated, 1 with none.

    Attributes:
        size, n_units: units of the circuit; units of its source layers.
        share, low, high: what the circuit keeps, with its 95 % interval over images.
        ranked: what the first `size` units by gradient x (activation - baseline) keep.
        ranked_size: how many of these keep as much as the circuit; None where the curve stays below it.
        mask, mask_low, mask_high: what a mask learned for just that size keeps.
        n_images: tried on; n_learned: others, on which mask and ranking were made.
    """

    size: int
    n_units: int
    share: float
    low: float
    high: float
    ranked: float
    ranked_size: int | None
    mask: float
    mask_low: float
    mask_high: float
    n_images: int
    n_learned: int

    @property
    def of_mask(self) -> float | None:
        """The circuit's share over the mask's; None where the mask keeps too little to be a measure.

        That is less than `LEAST_SHARE`, or a share whose interval covers zero: a ratio to it has no scale.
        """
        return self.share / self.mask if self.mask >= LEAST_SHARE and self.mask_low > 0 else None


@dataclass(frozen=True)
class Score(Result):
    """How much of the target's response the circuit carries, against random circuits of the same size.

    Attributes:
        faithfulness: explained variance of the target's response, over positions and images, when every
            unit of the source layers outside the circuit is set to its baseline.
        completeness: the part of that variance which is lost when only the circuit's units are set to the baseline.
        random_faithfulness, random_completeness: the same for random circuits with as many units per layer.
        faithfulness_percentile, completeness_percentile: percent of the circuits in `control_faithfulness` and
            `control_completeness` that score lower.
        minimality: address -> faithfulness lost when that node alone leaves the circuit.
        n_images, seed: on what.
        strong_faithfulness, strong_completeness: for random circuits among the units that act most on the target;
            empty in files of earlier versions.
        matched_faithfulness: for random circuits of units that are as active as the circuit's own.
        baseline: what ablated units were set to.
        ablated: the target's response with everything ablated; None in files of earlier versions.
        comparison: beside a learned mask and a ranking of its size; None where that was not asked for.
        errors_kept: where sources are latents, whether the errors of their dictionaries were left as they are.
    """

    faithfulness: float
    completeness: float
    faithfulness_percentile: float
    completeness_percentile: float
    random_faithfulness: tuple[float, ...]
    random_completeness: tuple[float, ...]
    minimality: Mapping[str, float]
    n_images: Count
    seed: Count
    strong_faithfulness: tuple[float, ...] = ()
    strong_completeness: tuple[float, ...] = ()
    matched_faithfulness: tuple[float, ...] = ()
    baseline: str = "mean"
    ablated: AblatedResponse | None = None
    comparison: SizeComparison | None = None
    errors_kept: bool | None = None

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: each unit, and the faithfulness lost without it."""
        return [{"unit": unit, "faithfulness_lost": lost} for unit, lost in self.minimality.items()]

    def __repr__(self) -> str:
        return f"Score({self.in_words}, on {self.n_images} images)"

    @property
    def in_words(self) -> str:
        """Faithfulness and completeness beside those of random circuits, in one line."""
        return (
            f"faithfulness {self.faithfulness:.2f} (above {self.faithfulness_percentile:.0f} % of {self.n_random} "
            f"{self.control}), completeness {self.completeness:.2f} (above {self.completeness_percentile:.0f} %)"
        )

    @property
    def control_faithfulness(self) -> tuple[float, ...]:
        """Of the random circuits that the percentile counts: those among the strongest units, where there are some."""
        return self.strong_faithfulness or self.random_faithfulness

    @property
    def control_completeness(self) -> tuple[float, ...]:
        """See `control_faithfulness`."""
        return self.strong_completeness or self.random_completeness

    @property
    def control(self) -> str:
        """What these random circuits are, in words."""
        return f"random circuits {'among the strongest' if self.strong_faithfulness else 'of any'} units"

    @property
    def n_random(self) -> int:
        """Number of random circuits compared with."""
        return len(self.random_faithfulness)


def plain_values(value: Any) -> Any:
    """Values as JSON has them; what it does not know, as text."""
    if isinstance(value, Mapping):
        return {str(k): plain_values(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def score_json(score: Score) -> dict[str, Any]:
    """A score as JSON holds it: what an earlier version wrote stays as it was written."""
    values = {name: value for name, value in score.__getstate__().items() if name not in ("comparison", "errors_kept")}
    if score.comparison is not None:
        values["comparison"] = vars(score.comparison)
    if score.errors_kept is not None:
        values["errors_kept"] = score.errors_kept
    if score.ablated is None:  # of an earlier version: as it was written
        later = ("strong_faithfulness", "strong_completeness", "matched_faithfulness", "baseline", "ablated")
        return {name: plain_values(value) for name, value in values.items() if name not in later}
    return dict(plain_values({**values, "ablated": vars(score.ablated)}))
