"""A picture made by optimization, with what the unit says to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from circuits.visualization.evidence import Evidence


@dataclass(frozen=True, eq=False)
class Visualization:
    """What `visualize` made of one unit.

    Attributes:
        unit: address of the unit, or a name for an objective of your own.
        variant: number of the picture among several of one unit.
        picture: `(C, H, W)` in [0, 1]; `(C + 1, H, W)` with an opacity.
        optimum: "positive" or "negative".
        channels: of the model's pictures; `picture` has one more where it has an opacity.
        response: what the unit says to the picture as it is: the mean over positions, for a channel. Before its
            rectifier, for a negative optimum.
        peak: the unit at its best position of the picture as it is (at its lowest, for a negative optimum).
        transformed: mean of what was optimized over the last 16 steps, with pictures transformed at random.
        history: what was optimized at each step.
        status: "ok"; "dead": no picture tried makes the unit answer; "not finite": the network gave no number.
        frames: step -> the picture after it.
        steps: steps taken.
        shown: pixels that the network was shown.
        seed: of this picture.
        digest: of the model's weights.
        evidence: what speaks for the picture and against it; see `circuits.visualization.evidence`.
    """

    unit: str
    variant: int
    picture: Tensor
    response: float
    peak: float
    transformed: float
    history: tuple[float, ...]
    status: str
    optimum: str = "positive"
    channels: int = 3
    frames: dict[int, Tensor] = field(default_factory=dict)
    steps: int = 0
    shown: tuple[int, int] = (0, 0)
    seed: int = 0
    digest: str = ""
    evidence: Evidence | None = None

    def describe(self) -> dict[str, Any]:
        """Everything but pixels, ready for JSON."""
        return {
            "unit": self.unit,
            "variant": self.variant,
            "status": self.status,
            "optimum": self.optimum,
            "channels": self.channels,
            "response": self.response,
            "peak": self.peak,
            "transformed": self.transformed,
            "history": [round(v, 6) for v in self.history],
            "steps": self.steps,
            "size": list(self.picture.shape[1:]),
            "shown": list(self.shown),
            "seed": self.seed,
            "weights": self.digest,
            "evidence": None if self.evidence is None else self.evidence.describe(),
        }
