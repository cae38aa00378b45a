"""What is measured of a target's response: how much of its variance, or its mean, and which share a circuit keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.tracing.ablation.sources import Channels
from circuits.tracing.target import Target

Measure = Literal["explained variance", "mean"]
"""What of a response map is measured: how much of its variance over positions and images is there, or its mean."""


@dataclass(frozen=True)
class Batch:
    """Some images.

    Attributes:
        acts: activations of the first layer; parts: of its units (see `sources`), the same where these are channels.
        context: the segment's.
        baselines: the baseline's parts of each layer, and its values of each pool.
    """

    acts: Tensor
    parts: Tensor
    context: Any
    baselines: Mapping[str, Tensor]


class Span(NamedTuple):
    """From where to where some activations go.

    Attributes:
        acts: activations; base: the baseline; start: the activations there.
        whole: from start to acts; moved: from the baseline to the activations, of parts.
    """

    acts: Tensor
    base: Tensor
    start: Tensor
    whole: Tensor
    moved: Tensor

    def part_way(self, source: Channels, amount: float | Tensor) -> Tensor:
        """Activations part of the way: of all units, or for each `(units,)`."""
        if isinstance(amount, Tensor):
            return source.mixed(self.acts, self.base, amount)
        if amount == 1:
            return self.acts
        return (amount * self.whole).add_(self.start)


def spans_of(
    batch: Batch, layer: str, source: Channels, pools: Mapping[str, slice], of_pool: Callable[[str], Tensor]
) -> dict[str, Span]:
    """Those of a layer and of its pools; `of_pool` gives a pool's activations.

    Activations themselves are mixed: zeros of latents and error would be so to rounding only, and a max pool passes its
    gradient to one of its zeros.
    """
    base = batch.baselines[layer]
    start = source.acts(base)
    whole = batch.acts - start
    moved = whole if batch.parts is batch.acts and start is base else batch.parts - base
    spans = {layer: Span(batch.acts, base, start, whole, moved)}
    for pool, at in pools.items():
        acts, base = of_pool(pool), batch.baselines[pool][:, at]
        moved = acts - base
        spans[pool] = Span(acts, base, base, moved, moved)
    return spans


class Measured:
    """A target's response with nothing and with everything ablated, and what is measured of others.

    Attributes:
        target: what responds; layers: what is ablated.
        clean, nothing: the response with nothing and with everything ablated, `(N, h, w)`.
        measure: what is measured of a response.
        spread: squared deviations of `clean` from its mean, summed.
    """

    target: Target
    layers: Sequence[str]
    clean: Tensor
    nothing: Tensor
    measure: Measure
    spread: float
    _ends: tuple[float, float]

    def value(self, response: Tensor) -> float:
        """The measure of a response `(N, h, w)`."""
        return float(response.mean()) if self.measure == "mean" else self.explained(response)

    def share(self, response: Tensor) -> float:
        """How much of the measure a response keeps: 0 with everything ablated, 1 with nothing.

        Raises:
            CircuitsError: ablating everything does not change the measure.
        """
        self.check_reached()
        nothing, clean = self._ends
        return (self.value(response) - nothing) / (clean - nothing)

    def check_reached(self) -> None:
        """Raises CircuitsError where ablating all units of the layers does not change the measure."""
        nothing, clean = self._ends
        if not abs(clean - nothing) > 1e-6 * max(abs(clean), abs(nothing)):
            moved = float((self.clean - self.nothing).abs().max()) > 1e-6 * float(self.clean.abs().max())
            hint = "; its map does: take measure='explained variance'" if moved else ""
            raise CircuitsError(
                f"the {self.measure} of {self.target.name} is {clean:.4g} with and without all units of "
                f"{', '.join(self.layers)}: it does not depend on them on these images{hint}"
            )

    def weights(self, part: slice = slice(None)) -> Tensor:
        """What a change of the response counts at each position; `sum weights * (clean - nothing)` is the whole.

        For the explained variance that is the covariance of a change with what full ablation takes away: a unit's share
        to first order, and exactly where responses are linear.
        """
        clean = self.clean[part]
        if self.measure == "mean":
            return torch.full_like(clean, 1 / self.clean.numel())
        return (clean - self.nothing[part]) / self.spread

    def slope(self, response: Tensor, part: slice) -> Tensor:
        """Derivative of the measure by the response on some of the images."""
        return self.weights(part) if self.measure == "mean" else 2 * (self.clean[part] - response) / self.spread

    def loss(self, response: Tensor, part: slice) -> Tensor:
        """Squared error of a response on some of the images, in units of full ablation; carries gradients.

        Of whole maps for the explained variance, of each image's mean for the mean: a circuit is to hit it, not to
        exceed it.
        """
        clean, nothing = self.clean, self.nothing
        error = self.clean[part] - response
        if self.measure == "mean":
            clean, nothing, error = (t.mean(dim=(1, 2)) for t in (clean, nothing, error))
        scale = (clean - nothing).pow(2).sum() * (len(error) / len(clean))
        return error.pow(2).sum() / scale.clamp_min(1e-20)

    def explained(self, response: Tensor) -> float:
        """Explained variance of the clean response by another, over positions and images; below 0 without bound."""
        return 1 - float((self.clean - response).pow(2).sum()) / self.spread
