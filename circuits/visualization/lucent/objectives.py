"""Lucent's objectives: losses of a batch of images, to be minimized, with its names, values and algebra.

A loss is that of Lucent, number for number: what belongs to single images (`channel`, `neuron`, `direction`) is a mean
over the batch, what belongs to the batch (`alignment`, `channel_interpolate`, `blur_input_each_step`) a sum. So weights
in `channel - 10 * diversity` mean what they mean there, whatever the size of the batch. The objectives of
`circuits.visualization.objectives` are values per image instead, and are weighted image by image.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from circuits.errors import VisualizationError
from circuits.network.layers.axes import as_maps
from circuits.visualization import objectives as ours
from circuits.visualization.objectives import Activations
from zoo.common.checks import whole_number

__all__ = [
    "Objective",
    "alignment",
    "as_objective",
    "blur_input_each_step",
    "channel",
    "channel_interpolate",
    "channel_weight",
    "direction",
    "direction_neuron",
    "diversity",
    "handle_batch",
    "localgroup_weight",
    "neuron",
    "neuron_weight",
    "wrap_objective",
]

Loss = Callable[[Activations], Tensor]


@dataclass(frozen=True, eq=False)
class Objective:
    """A loss of the whole batch. Add, subtract, multiply with numbers, negate, `sum`.

    Attributes:
        objective_func: from `T`, which gives activations by layer name, to one number to be minimized.
        name: of the function that made it.
        description: that name with its arguments, or the sum of several.
        layers: the layers that it reads; None where only a call can tell.
    """

    objective_func: Loss
    name: str = ""
    description: str = ""
    layers: tuple[str, ...] | None = None

    def __call__(self, T: Activations) -> Tensor:
        return self.objective_func(T)

    def __add__(self, other: Objective | float) -> Objective:
        if isinstance(other, (int, float)):
            number = float(other)
            return self._changed(lambda T: self(T) + number)
        if not isinstance(other, Objective):
            other = as_objective(other)
        return Objective.sum([self, other])

    def __mul__(self, factor: float) -> Objective:
        _number("multiply", factor)
        return self._changed(lambda T: factor * self(T))

    def __truediv__(self, divisor: float) -> Objective:
        _number("divide", divisor)
        if divisor == 0:
            raise VisualizationError("an objective cannot be divided by zero")
        return self * (1 / divisor)

    def __neg__(self) -> Objective:
        return self * -1.0

    def __sub__(self, other: Objective | float) -> Objective:
        return self + (-1.0 * other)

    def __rsub__(self, other: float) -> Objective:
        return -self + other

    __radd__ = __add__
    __rmul__ = __mul__

    def _changed(self, loss: Loss) -> Objective:
        return Objective(loss, self.name, self.description, self.layers)

    @staticmethod
    def sum(objectives: Sequence[Objective]) -> Objective:
        """The sum of several losses."""
        terms = list(objectives)
        if not terms:
            raise VisualizationError("a sum needs at least one objective")
        read = [term.layers for term in terms]
        layers = None if None in read else tuple(dict.fromkeys(name for names in read for name in names or ()))
        return Objective(
            lambda T: torch.stack([torch.as_tensor(term(T)) for term in terms]).sum(),
            ", ".join(term.name for term in terms),
            "Sum(" + " +\n".join(term.description for term in terms) + ")",
            layers,
        )


def _number(verb: str, value: Any) -> None:
    if not isinstance(value, (int, float)):
        raise VisualizationError(f"Can only {verb} by int or float. Received type {type(value)}")


def as_objective(objective: Objective | ours.Objective | str | Callable[[Activations], Any]) -> Any:
    """An objective or a function as it is; "layer:n" as a channel; one of `circuits.visualization` as its mean.

    Raises:
        VisualizationError: anything else.
    """
    if isinstance(objective, Objective):
        return objective
    if isinstance(objective, str):
        channel_of = ours.as_objective(objective)
        assert isinstance(channel_of, ours.Reading) and channel_of.index is not None
        return channel(channel_of.layer, int(channel_of.index))
    if isinstance(objective, ours.Objective):
        return Objective(_mean(objective), layers=objective.layers)
    if callable(objective):
        return objective
    raise VisualizationError(
        f"an objective is an Objective, layer:channel, or a function; got {type(objective).__name__}"
    )


def wrap_objective() -> Callable[[Callable[..., Any]], Callable[..., Objective]]:
    """Decorator for functions that return a function of `T` to a loss, as in Lucent."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Objective]:
        signature = inspect.signature(function)

        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Objective:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            loss = function(*args, **kwargs)
            texts = [str(arg) for arg in bound.arguments.values()]
            texts = ["..." if len(text) > 15 or "\n" in text else text for text in texts]
            name = function.__name__
            return Objective(loss, name, f"{name.title()} [{', '.join(texts)}]", getattr(loss, "layers", None))

        return wrapped

    return decorate


def handle_batch(batch: int | None = None) -> Callable[[Loss], Loss]:
    """Decorator for a function of `T`: it gets the activations of image `batch` alone where that is given."""
    if batch is not None:
        whole_number("batch", batch, least=0, error=VisualizationError)

    def decorate(function: Loss) -> Loss:
        if batch is None:
            return function

        def activations_of(T: Activations) -> Activations:
            def activations(name: str) -> Tensor:
                acts = T(name)
                if batch >= len(acts):
                    raise VisualizationError(f"batch={batch} of an objective, but there are {len(acts)} images")
                return acts[batch : batch + 1]

            return activations

        return lambda T: function(activations_of(T))

    return decorate


def _reading(*layers: str) -> Callable[[Loss], Loss]:
    """Decorator that notes which layers a loss reads, so that no gray image has to tell."""

    def decorate(loss: Loss) -> Loss:
        loss.layers = layers  # type: ignore[attr-defined]
        return loss

    return decorate


def _mean(objective: ours.Objective, batch: int | None = None) -> Loss:
    """Minus the mean of a value per image, or minus the value of image `batch`."""
    return _reading(*objective.layers)(handle_batch(batch)(lambda T: -objective(T).mean()))


@wrap_objective()
def neuron(layer: str, n_channel: int, x: int | None = None, y: int | None = None, batch: int | None = None) -> Loss:
    """A channel at one position, by default the center; of image `batch` alone where that is given."""
    return _mean(ours.neuron(layer, n_channel, x, y), batch)


@wrap_objective()
def channel(layer: str, n_channel: int, batch: int | None = None) -> Loss:
    """The mean of a channel."""
    return _mean(ours.channel(layer, n_channel), batch)


@wrap_objective()
def neuron_weight(
    layer: str, weight: Tensor | None, x: int | None = None, y: int | None = None, batch: int | None = None
) -> Loss:
    """The mean over channels, at one position, of activations times a weight per channel (None: 1)."""
    at = ours.position(x, y)
    return _weighted(layer, weight, lambda acts: ours.at_position(acts, at, layer), batch)


@wrap_objective()
def channel_weight(layer: str, weight: Tensor, batch: int | None = None) -> Loss:
    """The mean over channels and positions of activations times a weight per channel."""
    return _weighted(layer, weight, lambda acts: acts, batch)


@wrap_objective()
def localgroup_weight(
    layer: str, weight: Tensor | None = None, x: int | None = None, y: int | None = None, wx: int = 1, wy: int = 1,
    batch: int | None = None,
) -> Loss:  # fmt: skip
    """As `neuron_weight`, over a window of `wx` columns from `x` and `wy` rows from `y` (None: from the center)."""
    for name, value in (("wx", wx), ("wy", wy)):
        whole_number(name, value, error=VisualizationError)

    def window(acts: Tensor) -> Tensor:
        height, width = acts.shape[2:]
        top, left = height // 2 if y is None else y, width // 2 if x is None else x
        if not (0 <= top <= height - wy and 0 <= left <= width - wx):
            raise VisualizationError(
                f"a window of {wy} rows from {top} and {wx} columns from {left} lies outside {layer}, which is "
                f"{height}x{width} for images of this size"
            )
        return acts[:, :, top : top + wy, left : left + wx]

    return _weighted(layer, weight, window, batch)


def _weighted(layer: str, weight: Tensor | None, part: Callable[[Tensor], Tensor], batch: int | None) -> Loss:
    def loss(T: Activations) -> Tensor:
        acts = part(as_maps(T(layer)))
        if weight is None:
            return -acts.mean()
        if weight.numel() != acts.shape[1]:
            raise VisualizationError(f"{layer} has {acts.shape[1]} channels, but there are {weight.numel()} weights")
        return -(acts * weight.to(acts).view(1, -1, 1, 1)).mean()

    return _reading(layer)(handle_batch(batch)(loss))


@wrap_objective()
def direction(layer: str, direction: Tensor, batch: int | None = None) -> Loss:
    """The mean cosine similarity of a layer's activations to a direction (as in Lucent; Lucid multiplies)."""
    return _cosine(layer, direction, "mean", batch)


@wrap_objective()
def direction_neuron(
    layer: str, direction: Tensor, x: int | None = None, y: int | None = None, batch: int | None = None
) -> Loss:
    """The cosine similarity at one position, by default the center."""
    return _cosine(layer, direction, ours.position(x, y), batch)


def _cosine(layer: str, direction: Tensor, at: str | Tensor, batch: int | None) -> Loss:
    def loss(T: Activations) -> Tensor:
        acts = ours.at_position(as_maps(T(layer)), at, layer)
        along = direction.to(acts).view(1, -1, 1, 1)
        return -torch.nn.functional.cosine_similarity(along, acts, dim=1).mean()

    return _reading(layer)(handle_batch(batch)(loss))


@wrap_objective()
def blur_input_each_step() -> Loss:
    """Half the squared difference of all images from their blurred selves; subtract it to blur them."""
    blurred = ours.blur_input_each_step()
    return _reading("input")(lambda T: -blurred(T).sum())


@wrap_objective()
def channel_interpolate(layer1: str, n_channel1: int, layer2: str, n_channel2: int) -> Loss:
    """From one channel at the first image of the batch to another at the last; the sum over the batch."""

    def loss(T: Activations) -> Tensor:
        first, second = as_maps(T(layer1)), as_maps(T(layer2))
        if len(first) < 2:
            raise VisualizationError("channel_interpolate needs a batch of at least 2 images")
        share = torch.linspace(0, 1, len(first), device=first.device, dtype=first.dtype)
        start, end = first[:, n_channel1].flatten(1).mean(1), second[:, n_channel2].flatten(1).mean(1)
        return -((1 - share) * start + share * end).sum()

    return _reading(layer1, layer2)(loss)


@wrap_objective()
def alignment(layer: str, decay_ratio: float = 2) -> Loss:
    """The squared differences of neighboring images of a batch, divided by `decay_ratio` to their distance; a sum."""

    def loss(T: Activations) -> Tensor:
        acts = T(layer)
        total = acts.new_zeros(())
        for d in range(1, 5):
            if d < len(acts):
                total = total + (acts[:-d] - acts[d:]).square().flatten(1).mean(1).sum() / decay_ratio**d
        return total

    return _reading(layer)(loss)


@wrap_objective()
def diversity(layer: str) -> Loss:
    """How similar the images of a batch are, to be subtracted; the mean over the batch, as in Lucent."""
    return _mean(ours.diversity(layer))
