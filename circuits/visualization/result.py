"""The result of feature visualization: an optimized image and the unit's response to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circuits.common.examples import Example
from circuits.errors import CircuitsError
from zoo.common.results import Result, Results, called

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

PNG_CHANNELS = ((1, 1), (1, 2), (3, 3), (3, 4))
"""Channels of a model and of its images that a PNG can hold: gray or colors, with an opacity or without."""


@dataclass(frozen=True, eq=False)
class Visualization(Result):
    """The optimized image of one unit, as `visualize` returns it.

    Attributes:
        unit: address of the unit, or a name for an objective of your own.
        variant: number of the image among several of one unit.
        image: `(C, H, W)` in [0, 1]; `(C + 1, H, W)` with an opacity.
        optimum: "positive" or "negative".
        channels: C, of the model's input.
        response: activation on the untransformed image, for a channel the mean over positions. Of the pre-activation
            where the optimum is negative.
        peak: maximum activation over positions on the untransformed image (minimum where the optimum is negative).
        transformed: mean of the objective over the last 16 steps, on randomly transformed images.
        history: the objective at each step.
        status: "ok"; "dead": no image activated the unit; "not finite": the network gave NaN or infinity.
        frames: step -> the image after it.
        steps: steps taken.
        input_size: height and width at which the network was given the image.
        seed: of this image.
        digest: of the model's weights.
        evidence: comparison with natural images; see `circuits.visualization.evidence`.
    """

    unit: str
    variant: int
    image: Tensor
    response: float
    peak: float
    transformed: float
    history: tuple[float, ...]
    status: str
    optimum: str = "positive"
    channels: int = 3
    frames: dict[int, Tensor] = field(default_factory=dict)
    steps: int = 0
    input_size: tuple[int, int] = (0, 0)
    seed: int = 0
    digest: str = ""
    evidence: Evidence | None = None

    def weaker_than(self, strongest: float) -> str | None:
        """One line where a natural image activates the unit more than this one does; None otherwise.

        Such a visualization lacks something that drives the unit: it shows less than the natural images do.

        Args:
            strongest: the unit's maximum activation on natural images.
        """
        if self.status != "ok" or self.optimum != "positive" or not self.peak < strongest:
            return None
        return (
            f"weaker than its top activating image (peak {self.peak:.3g} against {strongest:.3g}): it lacks something "
            "that drives the unit; try more steps, or transforms=[Jitter(2)]"
        )

    def pil(self) -> PILImage:
        """The optimized image as a PIL image, 8 bits a channel: `visualization.pil().save("unit.png")`.

        Raises:
            CircuitsError: the network's images are not gray, RGB or, with an opacity, RGBA.
        """
        from PIL import Image

        if (self.channels, len(self.image)) not in PNG_CHANNELS:
            raise CircuitsError(f"images of {self.channels} channels have no colors; .image holds the numbers")
        pixels = (self.image.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)

    def _facts(self) -> dict[str, Any]:
        names = ("unit", "variant", "status", "response", "peak", "optimum", "steps", "seed", "image")
        return {name: getattr(self, name) for name in names}

    @property
    def warning(self) -> str | None:
        """`weaker_than` the natural images of the evidence, where there is evidence."""
        return None if self.evidence is None else self.weaker_than(self.evidence.strongest)

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
            "size": list(self.image.shape[1:]),
            "shown": list(self.input_size),
            "seed": self.seed,
            "weights": self.digest,
            "evidence": None if self.evidence is None else self.evidence.describe(),
            "warning": self.warning,
        }


class Visualizations(Results[Visualization]):
    """Visualizations, as `visualize` returns them: a list that shows itself as a contact sheet."""


@dataclass(frozen=True)
class Path(Result):
    """How similar a visualization is to the unit's top activating images in one layer.

    Correlations of the channels' maximum activations, each in standard deviations over the images.

    Attributes:
        layer: name of the layer.
        visualization: mean correlation of the visualization with the top activating images.
        natural: of the top activating images with each other.
        others: of all other images with the top activating ones: the control.
    """

    layer: str
    visualization: float = field(metadata=called("picture"))
    natural: float
    others: float

    @property
    def similarity(self) -> float | None:
        """0: no more similar to the top activating images than any image is; 1: as similar as they are to each other.

        None where the top activating images are no more similar than any are: there is nothing to compare with.
        """
        room = self.natural - self.others
        return (self.visualization - self.others) / room if room > 0.05 else None


@dataclass(frozen=True)
class Evidence(Result):
    """How a visualization compares with natural images.

    Attributes:
        images: name of the set of images.
        count: how many.
        percentile: percent of them whose maximum activation lies below the visualization's.
        strongest: the unit's maximum activation on any image.
        examples: the top activating images.
        path: similarity layer by layer, up to the unit's own layer.
    """

    images: str
    count: int
    percentile: float
    strongest: float
    examples: tuple[Example, ...]
    path: tuple[Path, ...]
