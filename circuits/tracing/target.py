"""What is explained: a unit, a neuron, the difference of two units, or a function of the network's output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from circuits.errors import AddressError, CircuitsError, shorten
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.network.subnetwork import OutputSegment, Segment

TargetLike: TypeAlias = "str | Unit | tuple[str | Unit, str | Unit] | Callable[[Any], Tensor]"


@dataclass(frozen=True)
class Target:
    """A response to explain, as a function of what a `Segment` gives.

    Attributes:
        name: address, the difference of two, or the name of the function.
        layer: the layer of the units; None for a function of the output.
        units: one unit, or two of which the difference is taken; none for a function of the output.
        function: of the network's output, to one number an image.
    """

    name: str
    layer: str | None
    units: tuple[Unit, ...] = ()
    function: Callable[[Any], Tensor] | None = None

    def segment(self, model: Model, start: str) -> Segment:
        """The network from layer `start` to the target."""
        return OutputSegment(model, start) if self.function is not None else Segment(model, start, list(self.units))

    def values(self, out: Any) -> Tensor:
        """Response maps `(N, h, w)` from what the segment gives; `(N, 1, 1)` for a neuron and for a function.

        Raises:
            CircuitsError: the function does not give one number for each image.
        """
        if self.function is not None:
            values = self.function(out)
            if not isinstance(values, Tensor) or values.ndim != 1 or not values.is_floating_point():
                form = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
                raise CircuitsError(
                    f"a target function gives one number for each image, a float tensor (N,); got {form}"
                )
            return values[:, None, None]
        maps = [self._at(out[:, i], unit) for i, unit in enumerate(self.units)]
        if len(maps) == 1:
            return maps[0]
        return maps[0] - maps[1]

    @staticmethod
    def _at(maps: Tensor, unit: Unit) -> Tensor:
        if unit.at is None:
            return maps
        y, x = unit.at
        return maps[:, y : y + 1, x : x + 1]


def target_of(model: Model, target: TargetLike) -> Target:
    """The target that an address, a pair of addresses or a function names.

    Args:
        model: the model.
        target: "mixed4a:0", "mixed4a:0@3,5", "logits:3", "logits:0-logits:3" or ("logits:0", "logits:3") for a
            difference, or a function of the network's output that gives one number for each image.

    Raises:
        AddressError: an unknown unit. CircuitsError: the two units of a difference are of different layers.
    """
    if callable(target) and not isinstance(target, Unit):
        return Target(getattr(target, "__name__", type(target).__name__), None, function=target)
    if isinstance(target, tuple):
        if len(target) != 2:
            raise CircuitsError(f"a difference is of two units; got {len(target)}")
        return _difference(model.unit(target[0]), model.unit(target[1]))
    try:
        unit = model.unit(target)
    except AddressError:
        pair = _pair(model, target) if isinstance(target, str) else None
        if pair is None:
            raise
        return _difference(*pair)
    return Target(str(unit), unit.layer, (unit,))


def _pair(model: Model, text: str) -> tuple[Unit, Unit] | None:
    """The two units of "logits:0-logits:3"; names of models and bases may hold hyphens of their own."""
    for i in (i for i, letter in enumerate(text) if letter == "-"):
        try:
            return model.unit(text[:i].strip()), model.unit(text[i + 1 :].strip())
        except AddressError:
            continue
    return None


def _difference(first: Unit, second: Unit) -> Target:
    if (first.layer, first.basis) != (second.layer, second.basis):
        raise CircuitsError(
            f"a difference is of two units of one layer; {shorten(first.short)} and {shorten(second.short)} are not: "
            "give a function of the output instead"
        )
    if first == second:
        raise CircuitsError(f"{first.short} minus itself is zero: name two units")
    return Target(f"{first}-{second.short}", first.layer, (first, second))
