"""How images are optimized: the options of `visualize`, carried as one object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from circuits.errors import VisualizationError
from circuits.visualization.parametrizations import Factory, Size
from zoo.common.checks import one_of, whole_number


@dataclass(frozen=True)
class RenderSettings:
    """The options of `visualize`.

    Attributes:
        steps: steps of the optimization, at least 1.
        size: pixels of the images; default what the receptive field needs, at most 128 and the model's own.
        show: pixels at which the network is given the images; default `size`.
        params: a parametrization of `circuits.visualization.parametrizations`; default `Fourier()`.
        transforms: of `circuits.visualization.transforms`, or functions of a tensor; default `standard`; `[]`: none.
        optimum: "positive", or "negative" to minimize a unit's pre-activation.
        variants: images per unit; more than one are optimized for diversity (`objectives.diversity`).
        rate: step size of Adam; default what suits the parametrization.
        redirect: first steps in which gradients that ReLUs block are redirected.
        retries: further attempts for a unit that stays inactive, with other seeds, more contrast at the start, and on
            its pre-activation; after them it is reported as dead.
        frames: steps after which the images are also stored.
        plateau: stop a batch when no image of it has improved over so many steps.
        precision: "bf16" or "fp16" for autocast; default the model's own.
        batch_size: images at once; default what memory allows.
        seed: of everything random; the same seed gives the same bits on the CPU.

    Raises:
        VisualizationError: a value that is out of range.
    """

    steps: int = 256
    size: int | Size | None = None
    show: int | Size | None = None
    params: Factory | None = None
    transforms: Sequence[Any] | None = None
    optimum: str = "positive"
    variants: int = 1
    rate: float | None = None
    redirect: int = 16
    retries: int = 2
    frames: Iterable[int] = ()
    plateau: int | None = None
    precision: str | None = None
    batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "frames", tuple(sorted(set(self.frames))))
        one_of("optimum", self.optimum, ("positive", "negative"), error=VisualizationError)
        one_of("precision", self.precision, (None, "bf16", "fp16"), error=VisualizationError)
        for name in ("steps", "variants"):
            whole_number(name, getattr(self, name), error=VisualizationError)
        for name in ("batch_size", "plateau"):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), error=VisualizationError)
        for name in ("size", "show"):
            pixels_of(getattr(self, name), name)

    @property
    def negative(self) -> bool:
        """Whether activations are minimized."""
        return self.optimum == "negative"


def pixels_of(size: int | Size | None, name: str) -> Size | None:
    """Height and width; None where none is given.

    Raises:
        VisualizationError: no number of pixels from 1 to 8192, and no pair of them.
    """
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or any(isinstance(s, bool) or not isinstance(s, int) or not 1 <= s <= 8192 for s in pair):
        raise VisualizationError(f"{name} is a number of pixels from 1 to 8192, or height and width; got {size!r}")
    return pair
