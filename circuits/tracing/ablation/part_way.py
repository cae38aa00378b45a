"""A target's response with units part of the way from their baseline, to be differentiated.

Up to the convolution of which a target is one channel, the network as it is runs the same for all units of a branch,
and so does what their gradients are multiplied by. A trace asks for one target after the other: both are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, fx

from circuits.network.hooks import frozen
from circuits.network.model import Model
from circuits.network.subnetwork import Segment
from circuits.tracing.ablation.measured import Batch, Measured, Span, spans_of
from circuits.tracing.ablation.sources import Channels, with_channels

T = TypeVar("T")
_Ways = dict[str, tuple[Tensor, Tensor]]
_Run = tuple[dict[fx.Node, Tensor], dict[str, Tensor]]

MOST = 1 << 28
"""Bytes that are held; what does not fit is computed for each target."""


class SharedRuns:
    """What was computed for one target, for those after it; keys name tensors by their `id`, so these must be held."""

    def __init__(self) -> None:
        self._values: dict[Hashable, object] = {}
        self._bytes = 0

    def clear(self) -> None:
        """Hold nothing any more: the targets of another layer are next."""
        self._values.clear()
        self._bytes = 0

    def of(self, key: Hashable, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """The value of a key, or what `make` gives, which is held where its bytes fit."""
        if key in self._values:
            held: T = self._values[key]  # type: ignore[assignment]
            return held
        value = make()
        if self._bytes + size(value) <= MOST:
            self._values[key], self._bytes = value, self._bytes + size(value)
        return value

    def run(self, segment: Segment, acts: Tensor, run: Callable[[], _Run]) -> _Run:
        """What the last convolutions of a segment read when its start holds `acts`, and the leaves of its gradients."""

        def size(values: _Run) -> int:
            return sum(3 * nbytes(value) for value in values[0].values())  # a pool also holds where its maxima are

        return self.of((id(acts), segment.start, *segment.fetch), run, size)


def nbytes(tensor: Tensor) -> int:
    """Bytes of a tensor's values."""
    return tensor.element_size() * tensor.nelement()


class PartWay(Measured):
    """What an `Ablation` of one layer gives with its units part of the way from the baseline.

    Attributes:
        model, segment: what runs; sources, pools: see `Ablation`.
        shared: what is computed once for the targets of a layer.
    """

    model: Model
    segment: Segment
    sources: dict[str, Channels]
    pools: dict[str, dict[str, slice]]
    shared: SharedRuns

    @property
    def stored(self) -> bool:
        """Whether the activations of all images are held."""
        raise NotImplementedError

    def pool_of(self, layer: str, pool: str, acts: Tensor) -> Tensor:
        """What a pool makes of the layer's channels; asked for with the same activations for every target and step."""
        raise NotImplementedError

    def part_way(self, batch: Batch, amount: float | Tensor) -> tuple[Tensor, _Ways]:
        """Response on a batch with all units of the one layer part of the way from the baseline, to be differentiated.

        Args:
            batch: one of `batches`.
            amount: 0 for the baseline, 1 for the activations; of all units, or for each `(units,)`.

        Returns:
            The response `(n, h, w)`; and for the layer, and each of its pools, a leaf that holds its values
            `(n, C, h', w')`, and activations minus baseline there: of the parts, see `products`.
        """
        out, ways = self.along(batch, amount, self.segment)
        return self.target.values(out), ways

    def _spans(self, batch: Batch) -> dict[str, Span]:
        """Those of the one layer and its pools."""
        (layer,) = self.layers
        of_pool = partial(self.pool_of, layer, acts=batch.acts)
        return spans_of(batch, layer, self.sources[layer], self.pools[layer], of_pool)

    def along(
        self, batch: Batch, amount: float | Tensor, segment: Segment, spans: Mapping[str, Span] | None = None
    ) -> tuple[Any, _Ways]:
        """What another segment from the layer gives, and leaves as in `part_way`; `spans` are those of the batch."""
        (layer,) = self.layers
        natural = (
            self.natural_run(batch, segment) if spans is None and isinstance(amount, float) and amount == 1 else None
        )
        if natural is not None:
            values, leaves = natural
            return segment.collect(values), {n: (leaf, self._moved(batch, n)) for n, leaf in leaves.items()}
        ways: _Ways = {}
        for name, span in (spans or self._spans(batch)).items():
            ways[name] = (span.part_way(self.sources[layer], amount).detach().requires_grad_(True), span.moved)
        context, edits = self.with_pools(batch, {name: leaf for name, (leaf, _) in ways.items()})
        return segment.respond(ways[layer][0], context, edits), ways

    def with_pools(self, batch: Batch, values: Mapping[str, Tensor]) -> tuple[Any, dict[str, Callable[..., Tensor]]]:
        """A context and edits that put values in place of the one layer's pools."""
        (pools,) = self.pools.values()
        # a pool of these channels alone need not run before its values are replaced
        own = {n: self.model.layers[n] for n in pools if self.model.graph is not None}
        whole = [n for n, at in own.items() if at.axes.plain and pools[n] == slice(0, at.channels)]
        fed = {self.model.node(n): values[n] for n in whole}
        edits: dict[str, Callable[..., Tensor]] = {
            n: partial(with_channels, values[n], at) for n, at in pools.items() if n not in whole
        }
        return {**batch.context, **fed} if fed else batch.context, edits

    def reads_layer(self, segment: Segment, context: Any) -> bool:
        """Whether a segment reads the one layer itself, and not only pools that a context puts values in place of."""
        return (
            not isinstance(context, dict)
            or not self.pools[self.layers[0]]
            or segment.crosses(self.layers[0], without=[*context])
        )

    def natural_run(self, batch: Batch, segment: Segment) -> _Run | None:
        """What the last convolutions read on a batch as it is, and the leaves of layer and pools that they depend on.

        None where targets do not share it.
        """
        if self.model.graph is None or not self.stored or segment.bypassed or len(self.layers) > 1:
            return None
        (layer,) = self.layers

        def run() -> _Run:
            starts = {layer: batch.acts, **{n: self.pool_of(layer, n, batch.acts) for n in self.pools[layer]}}
            leaves = {n: start.detach().requires_grad_(True) for n, start in starts.items()}
            with frozen(self.model.module), torch.enable_grad():
                context, edits = self.with_pools(batch, leaves)
                values = segment.run(leaves[layer], context, edits)
            if not self.reads_layer(segment, context):
                del leaves[layer]
            return values, leaves

        return self.shared.run(segment, batch.acts, run)

    def _moved(self, batch: Batch, name: str) -> Tensor:
        """Activations minus baseline of the one layer, or of one of its pools."""
        (layer,) = self.layers

        def moved() -> Tensor:
            if name == layer:
                return batch.parts - batch.baselines[layer]
            return self.pool_of(layer, name, batch.acts) - batch.baselines[name][:, self.pools[layer][name]]

        return self.shared.of((id(batch.acts), name), moved, nbytes)

    def products(self, name: str, gradient: Tensor, moved: Tensor) -> Tensor:
        """What a gradient makes of a change at a layer or pool, for each of its units `(n, units, h, w)`."""
        source = self.sources.get(name)
        return gradient * moved if source is None else source.by_unit(gradient, moved)
