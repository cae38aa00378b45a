"""What each unit of a source layer contributes to a target at single positions, by integrated gradients.

A position reads a window of the source, so that only windows run: of whole maps the steps took eight times as long.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from circuits.attribution.kernel_composition import source_window, stride_between
from circuits.network.hooks import frozen, read
from circuits.network.operations import Pair
from circuits.network.subnetwork import Segment
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.ablation.measured import Batch, spans_of
from circuits.tracing.ablation.sources import at_positions

TOGETHER = 1 << 23
"""Numbers in the windows of one run, at most, where several steps run together."""


def contributions_at(
    ablation: Ablation,
    segment: Segment,
    images: Tensor,
    others: Tensor | None,
    positions: Sequence[Pair],
    steps: int,
    begun: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Integrated gradients of a segment's first target at a position of each image, from the baseline.

    Args:
        ablation: of one source layer.
        segment: from the layer to the target, which need not be the ablation's.
        images: `(N, channels, H, W)`; others: the images that stand in for them, where the baseline has such.
        positions: `(y, x)` on each image; steps: midpoints between baseline and activations.
        begun: activations of the layer on the images, where they are known.

    Returns:
        Contribution of each unit `(N, units)`; the part of it from positions where the unit is below the baseline;
        and the target with all of them at the baseline `(N,)`: with the contributions in sum the target as it is,
        up to the number of steps.
    """
    (layer,) = ablation.layers
    model, source, pools = ablation.model, ablation.sources[layer], ablation.pools[layer]
    with torch.no_grad():
        at = model.layers[source.layer]
        acts, context = segment.begin(images) if begun is None or segment.bypassed else (begun, {})
        other = None if others is None else read(model, others, [at])[at.name]
        pooled = {pool: ablation.pool_of(layer, pool, acts) for pool in pools}
        held = {name: base for name, base in ablation.held_values().items() if name == layer or name in pools}
        window = source_window(segment)
        if window is not None:  # what lies outside has no gradient
            strides = {layer: (1, 1), **{pool: stride_between(model, source.layer, pool) for pool in pools}}
            held = {name: window.crops(base, positions, strides[name]) for name, base in held.items()}
            pooled = {pool: window.crops(maps, positions, strides[pool]) for pool, maps in pooled.items()}
            acts = window.crops(acts, positions)
            other = None if other is None else window.crops(other, positions)
            positions = [window.within(position) for position in positions]
        if other is not None:
            held[layer] = source.parts(other)
    with frozen(model.module), torch.enable_grad():
        batch = Batch(acts, source.parts(acts), context, held)
        total = torch.zeros((len(acts), source.width), device=acts.device, dtype=acts.dtype)
        below = torch.zeros_like(total)
        spans = spans_of(batch, layer, source, pools, pooled.__getitem__)  # the same at every step
        nothing, _ = ablation.along(batch, 0.0, segment, spans)
        values, _ = ablation.with_pools(batch, {name: span.base for name, span in spans.items()})
        if not ablation.reads_layer(segment, values):
            del spans[layer]
        slopes: dict[str, Tensor] = {}  # mean gradients
        amounts = [(k + 0.5) / steps for k in range(steps)]
        # windows are small: several steps run as one batch, whose images have no context of their own
        together = 1 if window is None else max(1, TOGETHER // acts.numel())
        for group in (amounts[first : first + together] for first in range(0, steps, together)):
            leaves = {
                name: torch.cat([span.part_way(source, amount) for amount in group]).detach().requires_grad_(True)
                for name, span in spans.items()
            }
            fed, edits = ablation.with_pools(batch, leaves)
            value = at_positions(segment.respond(leaves.get(layer, acts), fed, edits), [*positions] * len(group)).sum()
            gradients = torch.autograd.grad(value, [*leaves.values()], allow_unused=True)
            for name, gradient in zip(leaves, gradients, strict=True):
                if gradient is not None:
                    mean = gradient.view(len(group), len(acts), *gradient.shape[1:]).sum(dim=0) / steps
                    slopes[name] = slopes[name] + mean if name in slopes else mean
        for name, slope in slopes.items():
            moved = spans[name].moved
            total += ablation.products(name, slope, moved).sum(dim=(2, 3))
            below += ablation.products(name, slope, moved.clamp(max=0)).sum(dim=(2, 3))
    return total, below, at_positions(nothing, positions).detach()
