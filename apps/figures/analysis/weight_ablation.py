"""Ablation of weights in a running network: of some channels to some units, through any layers in between.

The inputs of a curve detector pass a bottleneck that mixes them, so no single weight can be set to zero. Instead the
contribution by the expanded weights is subtracted: exact where the network is linear between the two layers, and
otherwise an approximation as good as the expanded weights. After Cammarata et al., *Curve Circuits*, Distill 2021,
who remove the negative weights between curve detectors and find that echoes return.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from circuits.attribution.expanded_weights import ExpandedWeights
from circuits.errors import CircuitsError
from circuits.network.hooks import editing
from circuits.network.model import Model


def negative_part(weights: ExpandedWeights, sources: Sequence[int]) -> Tensor:
    """The negative weights from some sources, zero elsewhere: `(targets, sources, kh, kw)`.

    Raises:
        CircuitsError: no such source.
    """
    count = weights.kernels.shape[1]
    if any(not 0 <= s < count for s in sources):
        raise CircuitsError(f"{weights.source} has {count} channels; got the source {max(sources)}")
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[list(sources)] = True
    return torch.where(chosen[None, :, None, None], weights.kernels.detach().cpu().clamp(max=0), 0.0)


@contextmanager
def ablate_weights(model: Model, weights: ExpandedWeights, removed: Tensor) -> Iterator[Model]:
    """While open, the pre-activations of the targets lack the contribution of the weights `removed`.

    Args:
        model: the model.
        weights: from `expanded_weights`, of channels; its targets are units of one layer after a ReLU.
        removed: `(targets, sources, kh, kw)`, aligned with `weights.kernels`: all of these to ablate the sources
            for the targets, or `negative_part` of them.

    Raises:
        CircuitsError: weights of another shape, latents, weights of a whole map, or a layer whose
            pre-activations cannot be accessed.

    >>> weights = expanded_weights(load("scenes"), source="mixed3a", target="mixed3b:4")
    >>> with ablate_weights(model, weights, negative_part(weights, [1, 2])):  # doctest: +SKIP
    ...     tune(model, "mixed3b:4", stimuli=curves())
    """
    if removed.shape != weights.kernels.shape:
        raise CircuitsError(f"`removed` has the shape of the weights, {tuple(weights.kernels.shape)}; "
                            f"not {tuple(removed.shape)}")  # fmt: skip
    if "~" in weights.source or any("~" in t for t in weights.targets) or weights.stride == (0, 0):
        raise CircuitsError("weights are ablated between channels of spatial layers")
    layer = weights.targets[0].rpartition(":")[0]
    before = _before(model, layer)
    rows = [int(t.rpartition(":")[2]) for t in weights.targets]
    part = model.layers[layer].part
    rows = [row + (part[1] if part is not None else 0) for row in rows]
    start = model.layers[weights.start]
    if start.part is not None:
        raise CircuitsError(f"weights are ablated from a whole layer, not from the branch {weights.source}")
    inputs: list[Tensor] = []

    def record(acts: Tensor) -> Tensor:
        inputs[:] = [acts]
        return acts

    def subtract(acts: Tensor) -> Tensor:
        edited = acts.clone()
        edited[:, rows] -= _contribution(inputs[0], removed.to(inputs[0]), weights, (acts.shape[2], acts.shape[3]))
        return edited

    with editing(model, [(start.name, record), (before, subtract)]):
        yield model


def _before(model: Model, layer: str) -> str:
    part = model.layers[layer].part
    base = layer if part is None else part[0]
    if model.graph is None:
        raise CircuitsError(f"{model.name} could not be traced, so that its pre-activations cannot be accessed")
    node = model.graph.before_relu(model.node(base))
    if node is model.node(base):
        raise CircuitsError(f"{base} has no ReLU of its own, before which weights could be ablated")
    return model.name_of(node)


def _contribution(acts: Tensor, kernels: Tensor, weights: ExpandedWeights, size: tuple[int, int]) -> Tensor:
    """The contribution of activations `(N, S, h, w)` by kernels `(T, S, kh, kw)` to a target map of `size`."""
    pads = []
    for axis in (1, 0):
        first = -weights.offset[axis]
        needed = (size[axis] - 1) * weights.stride[axis] + kernels.shape[2 + axis]
        pads += [first, needed - first - acts.shape[2 + axis]]
    return F.conv2d(F.pad(acts, pads), kernels, stride=weights.stride)
