"""Lucent's objectives. They are maximized, where Lucent's are losses; sums and differences read the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from circuits.errors import VisualizationError
from circuits.visualization import objectives as ours
from circuits.visualization.objectives import Activations, Objective, as_objective, blur_input_each_step

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
    "neuron",
    "neuron_weight",
    "wrap_objective",
]


@dataclass(frozen=True, eq=False)
class _OfImage(ours.OfObjective):
    """An objective of one image of the batch."""

    number: int

    def __call__(self, activations: Activations) -> Tensor:
        values = self.of(activations)
        if self.number >= len(values):
            raise VisualizationError(f"batch={self.number} of an objective, but there are {len(values)} images")
        return values * (torch.arange(len(values), device=values.device) == self.number)


@dataclass(frozen=True, eq=False)
class _Shared(Objective):
    """An objective of the batch as a whole, divided evenly among its images."""

    names: tuple[str, ...]
    of: Callable[..., Tensor]

    @property
    def layers(self) -> tuple[str, ...]:
        return self.names

    def __call__(self, activations: Activations) -> Tensor:
        value, n = self.of(*(ours.as_maps(activations(name)) for name in self.names)), len(activations("input"))
        return (value / n).expand(n)


def _of(objective: Objective, batch: int | None) -> Objective:
    return objective if batch is None else _OfImage(objective, batch)


def channel(layer: str, n_channel: int, batch: int | None = None) -> Objective:
    """The mean of a channel; of image `batch` alone where that is given."""
    return _of(ours.channel(layer, n_channel), batch)


def neuron(
    layer: str, n_channel: int, x: int | None = None, y: int | None = None, batch: int | None = None
) -> Objective:
    """A channel at one position, by default the center."""
    return _of(ours.neuron(layer, n_channel, x, y), batch)


def channel_weight(layer: str, weight: Tensor, batch: int | None = None) -> Objective:
    """The mean over channels and positions of activations times a weight per channel."""
    return _of(ours.direction(layer, weight / len(weight)), batch)


def neuron_weight(
    layer: str, weight: Tensor, x: int | None = None, y: int | None = None, batch: int | None = None
) -> Objective:
    """The mean over channels, at one position, of activations times a weight per channel."""
    return _of(ours.direction_neuron(layer, weight / len(weight), x, y), batch)


@dataclass(frozen=True, eq=False)
class _Cosine(ours.OfLayer):
    """The mean cosine similarity to a direction, over positions or at one."""

    vector: Tensor
    at: str | Tensor = "mean"

    def __call__(self, activations: Activations) -> Tensor:
        acts = ours.at_position(ours.as_maps(activations(self.layer)), self.at, self.layer)
        along = self.vector.to(acts).view(1, -1, 1, 1)
        return torch.nn.functional.cosine_similarity(along, acts, dim=1).flatten(1).mean(1)


def direction(layer: str, direction: Tensor, batch: int | None = None) -> Objective:
    """The mean cosine similarity of a layer's activations to a direction (as in Lucent; Lucid multiplies)."""
    return _of(_Cosine(layer, direction.reshape(-1)), batch)


def direction_neuron(
    layer: str, direction: Tensor, x: int | None = None, y: int | None = None, batch: int | None = None
) -> Objective:
    """The cosine similarity at one position, by default the center."""
    return _of(_Cosine(layer, direction.reshape(-1), ours.position(x, y)), batch)


def diversity(layer: str) -> Objective:
    """How similar the images of a batch are, to be subtracted; the mean over the batch, as in Lucent."""
    similarity = ours.diversity(layer)

    def of(acts: Tensor) -> Tensor:
        return similarity(lambda _: acts).mean()

    return _Shared((layer,), of)


def alignment(layer: str, decay_ratio: float = 2) -> Objective:
    """Minus the squared differences of neighboring images of a batch, divided by `decay_ratio` to their distance."""

    def of(acts: Tensor) -> Tensor:
        total = acts.new_zeros(())
        for d in range(1, 5):
            if d < len(acts):
                total = total + (acts[:-d] - acts[d:]).square().flatten(1).mean(1).sum() / decay_ratio**d
        return -total

    return _Shared((layer,), of)


def channel_interpolate(layer1: str, n_channel1: int, layer2: str, n_channel2: int) -> Objective:
    """From one channel at the first image of the batch to another at the last."""

    def of(first: Tensor, second: Tensor) -> Tensor:
        if len(first) < 2:
            raise VisualizationError("channel_interpolate needs a batch of at least 2 images")
        share = torch.linspace(0, 1, len(first), device=first.device)
        start, end = first[:, n_channel1].flatten(1).mean(1), second[:, n_channel2].flatten(1).mean(1)
        return ((1 - share) * start + share * end).sum()

    return _Shared((layer1, layer2), of)


def wrap_objective() -> Callable[[Callable[..., Any]], Callable[..., Objective]]:
    """Decorator for functions that return a function of `T` to a loss, as in Lucent."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Objective]:
        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Objective:
            return as_objective(function(*args, **kwargs))

        return wrapped

    return decorate


def handle_batch(batch: int | None = None) -> Callable[[Callable[[Activations], Any]], Callable[[Activations], Any]]:
    """Decorator for a function of `T`: it gets the activations of image `batch` alone where that is given."""

    def decorate(function: Callable[[Activations], Any]) -> Callable[[Activations], Any]:
        if batch is None:
            return function
        return lambda activations: function(lambda name: activations(name)[batch : batch + 1])

    return decorate
