"""A picture made by optimization, with what the unit says to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from circuits.common.examples import Example


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


@dataclass(frozen=True)
class Path:
    """How alike a picture and the unit's top photographs are in one layer.

    Correlations of what the channels say at their best position, each in standard deviations over the photographs.

    Attributes:
        layer: the layer.
        picture: mean correlation of the picture with the top photographs.
        natural: of the top photographs among each other.
        others: of other photographs with the top ones: the control.
    """

    layer: str
    picture: float
    natural: float
    others: float

    @property
    def likeness(self) -> float | None:
        """0: no more like the top photographs than any photograph is; 1: as they are among each other.

        None where the top photographs are no more alike than any are, so that there is nothing to compare with.
        """
        room = self.natural - self.others
        return (self.picture - self.others) / room if room > 0.05 else None


@dataclass(frozen=True)
class Evidence:
    """How a picture stands among photographs.

    Attributes:
        images: name of the set of photographs.
        count: how many.
        percentile: percent of them whose strongest response lies below the picture's.
        strongest: the unit's strongest response to a photograph.
        examples: the photographs it answers to most.
        path: layer by layer up to the unit's own, the unit's own included.
    """

    images: str
    count: int
    percentile: float
    strongest: float
    examples: tuple[Example, ...]
    path: tuple[Path, ...]

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "images": self.images,
            "count": self.count,
            "percentile": self.percentile,
            "strongest": self.strongest,
            "examples": [
                {"image": e.image, "id": e.id, "value": e.value, "position": list(e.position), "box": list(e.box)}
                for e in self.examples
            ],
            "path": [
                {"layer": p.layer, "picture": p.picture, "natural": p.natural, "others": p.others} for p in self.path
            ],
        }
