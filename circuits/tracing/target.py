"""What is explained: a unit, a neuron, the difference of two units, the predictions, or a function of the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from circuits.errors import AddressError, CircuitsError, shorten
from circuits.network.address import Unit
from circuits.network.hooks import read
from circuits.network.model import Model
from circuits.network.subnetwork import LayerEdits, OutputSegment, Segment
from zoo.networks.trial import outputs_of

TargetLike: TypeAlias = "str | Unit | tuple[str | Unit, str | Unit] | Callable[[Any], Tensor]"


PREDICTIONS = "predictions"
"""Name of the target that is the network's predictions as a whole."""
_REFERENCE = "reference"


def _without_reference(context: dict[Any, Any]) -> dict[Any, Any]:
    return {node: value for node, value in context.items() if node != _REFERENCE}


class PredictionSegment(Segment):
    """From layer `start` to the class scores, with those of the same images where nothing is ablated behind them."""

    def __init__(self, model: Model, start: str) -> None:
        layer = model.logits
        super().__init__(model, start, [Unit(layer, c, model.name) for c in range(model.layers[layer].channels)])

    @property
    def bypassed(self) -> bool:
        return True  # by the reference: each image has its own

    def begin(self, images: Tensor) -> tuple[Tensor, Any]:
        """Activations of `start`, and a context that holds the reference."""
        acts, context = super().begin(images)
        if self.model.graph is None:
            return acts, context
        return acts, {**context, _REFERENCE: super().respond(acts, context).detach()}

    def respond(self, acts: Tensor, context: Any, edits: LayerEdits | None = None) -> Tensor:
        """Class scores `(N, classes, h, w)` when `start` holds `acts`, then those of the reference."""
        if self.model.graph is None:
            with torch.no_grad():
                layer = self.model.layers[self.layer]
                reference = read(self.model, context, [layer])[layer.name].detach()
            return torch.cat([super().respond(acts, context, edits), reference], dim=1)
        return torch.cat([super().respond(acts, _without_reference(context), edits), context[_REFERENCE]], dim=1)

    def picked(self, context: Any, rows: Sequence[int], n: int) -> Any:
        """The context of the images `rows` of a batch of `n`."""
        if self.model.graph is None:
            return super().picked(context, rows, n)
        others = super().picked(_without_reference(context), rows, n)
        return {**others, _REFERENCE: context[_REFERENCE][list(rows)]}

    def readers(self) -> None:
        """None: the reference does not go through the convolutions that read the start."""
        return


@dataclass(frozen=True)
class Target:
    """A response to explain, as a function of what a `Segment` gives.

    Attributes:
        name: address, the difference of two, or the name of the function.
        layer: the layer of the units, or of the class scores; None for a function of the output.
        units: one unit, or two of which the difference is taken; none for a function of the output.
        function: of the network's output, to one number an image.
    """

    name: str
    layer: str | None
    units: tuple[Unit, ...] = ()
    function: Callable[[Any], Tensor] | None = None

    def segment(self, model: Model, start: str) -> Segment:
        """The network from layer `start` to the target."""
        if self.of_predictions:
            return PredictionSegment(model, start)
        return OutputSegment(model, start) if self.function is not None else Segment(model, start, list(self.units))

    @property
    def of_predictions(self) -> bool:
        """Whether it is the predictions: minus their divergence from those of the network as it is, 0 at most."""
        return self.function is None and not self.units

    def values(self, out: Any) -> Tensor:
        """Response maps `(N, h, w)` from what the segment gives; `(N, 1, 1)` for a neuron and for a function.

        Raises:
            CircuitsError: the function fails, or does not give one number for each image that depends on the output.
        """
        if self.of_predictions:
            scores, reference = out.chunk(2, dim=1)
            now, before = scores.log_softmax(dim=1), reference.log_softmax(dim=1)
            divergence: Tensor = (before.exp() * (before - now)).sum(dim=1)
            return -divergence
        if self.function is not None:
            values = self._called(out)
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

    def sensitive(self, out: Any) -> Tensor:
        """`values`; of predictions, which have no gradient where nothing is ablated, the log of the largest."""
        if self.of_predictions:
            return out.chunk(2, dim=1)[0].log_softmax(dim=1).amax(dim=1)  # type: ignore[no-any-return]
        return self.values(out)

    def _called(self, out: Any) -> Any:
        assert self.function is not None
        tensors = [tensor for _, tensor in outputs_of(out)]
        try:
            values = self.function(out)
        except Exception as error:  # whatever the user's own function raises
            forms = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
            reason = shorten(f"{type(error).__name__}: {error}", 200)
            raise CircuitsError(f"the target function {self.name} fails on an output of {forms}: {reason}") from error
        needs = any(tensor.requires_grad for tensor in tensors) and torch.is_grad_enabled()
        if needs and isinstance(values, Tensor) and not values.requires_grad:
            raise CircuitsError(
                f"the target function {self.name} passes no gradient back: it detaches the output, goes through numpy, "
                "or is constant; compute it from the tensors that it is given, or rank by 'patching'"
            )
        return values

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
            difference, "predictions" for minus the KL divergence KL(predictions as they are || ablated) of the class
            probabilities, or a function of the network's output that gives one number for each image.

    Raises:
        AddressError: an unknown unit. CircuitsError: the two units of a difference are of different layers.
    """
    if callable(target) and not isinstance(target, Unit):
        return Target(getattr(target, "__name__", type(target).__name__), None, function=target)
    if target == PREDICTIONS:
        return Target(PREDICTIONS, model.logits)
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
