"""How much each unit of a layer moves a target, by each method: see `ranking` for their formulas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.attribution.expanded_weights import ExpandedWeights, expanded_weights
from circuits.errors import CircuitsError
from circuits.network.hooks import frozen
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.ablation.channel_edits import ChannelEdits
from circuits.tracing.ablation.measured import Batch
from circuits.tracing.ablation.sources import Latents
from circuits.tracing.rankings.learned_mask import learn_mask
from zoo.common.checks import whole_number

RankMethod = Literal["weights", "gradient", "integrated", "patching", "mask", "random"]
METHODS: tuple[RankMethod, ...] = ("weights", "gradient", "integrated", "patching", "mask", "random")
STEPS = {"integrated": 8, "mask": 120}
"""Steps where none are given."""


@dataclass(frozen=True)
class UnitScores:
    """Of the units of a layer: signed shares of the measure, and how much each moves the response, `(C,)` float64."""

    signed: Tensor
    magnitude: Tensor


def unit_scores(
    ablation: Ablation, method: RankMethod, *, steps: int | None = None, seed: int = 0
) -> dict[str, UnitScores]:
    """Scores of the units of each layer of an ablation; all methods but "mask" take one layer."""
    count = whole_number("steps", steps if steps is not None else STEPS.get(method, 1))
    if method == "mask":
        numbers = learn_mask(ablation, steps=count, seed=seed)
        return {layer: UnitScores(values.double(), values.double()) for layer, values in numbers.items()}
    (layer,) = ablation.layers
    if ablation.target.of_predictions and method in ("weights", "gradient"):
        raise CircuitsError(
            f"method={method!r} sees nothing of the predictions: their divergence has no gradient where nothing is "
            "ablated; rank by 'integrated', 'patching' or 'mask'"
        )
    match method:
        case "weights":
            signed, squares = _by_weights(ablation, layer)
        case "gradient":
            signed, squares = by_gradients(ablation, [1.0], lambda _, part: ablation.weights(part))
        case "integrated":
            # midpoints: the error of the sum falls with the square of the step
            signed, squares = by_gradients(ablation, [(k + 0.5) / count for k in range(count)], ablation.slope)
        case "patching":
            signed, squares = _by_patching(ablation)
        case "random":
            # each layer of a model has its own numbers for one seed
            source = ablation.sources[layer]
            position = list(ablation.model.layers).index(source.layer)
            signed = torch.from_numpy(np.random.default_rng([seed, position]).random(source.width))
            return {layer: UnitScores(signed, signed)}
    magnitude = signed.abs() if ablation.measure == "mean" else (squares / ablation.spread).sqrt()
    return {layer: UnitScores(signed, magnitude)}


def by_gradients(
    ablation: Ablation,
    amounts: Sequence[float | Tensor],
    cotangent: Callable[[Tensor, slice], Tensor],
    second: Callable[[Tensor], Tensor] = lambda contributions: (
        (contributions * contributions).sum(dim=(2, 3)).sum(dim=0)
    ),
) -> tuple[Tensor, Tensor]:
    """Gradient x (activation - baseline) with units at some amounts between baseline and activation, as a mean.

    Args:
        ablation: of one layer.
        amounts: of all units, or for each `(units,)`.
        cotangent: of a response, and of which images it is: its weights.
        second: what is summed of the contributions `(n, units, h, w)` of each unit to the whole response.

    Returns:
        The sum for each unit of what `cotangent` takes back from the response, and `second` of what the whole response
        takes back: the squares of each unit.
    """
    signed, squares = _empty(ablation), _empty(ablation)
    with frozen(ablation.model.module), torch.enable_grad():
        for number in range(ablation.n_batches):
            batch, part = ablation.batch(number)
            whole: dict[str, Tensor] = {}
            for amount in amounts:
                response, ways = ablation.part_way(batch, amount)
                leaves = [leaf for leaf, _ in ways.values()]
                weights = cotangent(response.detach(), part)
                weighted = torch.autograd.grad((weights * response).sum(), leaves, retain_graph=True, allow_unused=True)
                # another target may go on from the same run
                plain = torch.autograd.grad(response.sum(), leaves, retain_graph=True, allow_unused=True)
                for (name, (_, moved)), g, h in zip(ways.items(), weighted, plain, strict=True):
                    if g is not None and h is not None:
                        products = ablation.products(name, g, moved)
                        signed += products.sum(dim=(2, 3)).sum(dim=0).double().cpu() / len(amounts)
                        step = ablation.products(name, h, moved)
                        step = step if len(amounts) == 1 else step / len(amounts)
                        whole[name] = whole[name] + step if name in whole else step
            for contributions in whole.values():
                squares = squares + second(contributions).double().cpu()
    return signed, squares


def _by_patching(ablation: Ablation) -> tuple[Tensor, Tensor]:
    signed, squares = [], []
    for responses in ChannelEdits(ablation).single():
        lost = ablation.clean - responses
        signed.append((ablation.weights() * lost).flatten(1).double().sum(dim=1).cpu())
        squares.append(lost.pow(2).flatten(1).double().sum(dim=1).cpu())
    return torch.cat(signed), torch.cat(squares)


def _empty(ablation: Ablation) -> Tensor:
    return torch.zeros(ablation.widths[ablation.layers[0]], dtype=torch.float64)


def _by_weights(ablation: Ablation, layer: str) -> tuple[Tensor, Tensor]:
    """Expanded weights x (activation - baseline), by the convolution with the kernels, and its squares."""
    model, units = ablation.model, ablation.target.units
    if not units:
        raise CircuitsError("method='weights' takes a unit as its target: a function of the output has no kernels")
    source = ablation.sources[layer]
    each = [expanded_weights(model, source=source.layer, target=unit) for unit in units]
    if isinstance(source, Latents) and each[0].start != source.layer:
        raise CircuitsError(
            f"method='weights': weights start at {each[0].start}, after a pool, but latents are of {source.layer}; "
            "rank them by 'gradient' or 'integrated'"
        )
    kernel = (each[0].kernels[0] if len(each) == 1 else each[0].kernels[0] - each[1].kernels[0]).detach()
    size, at = model.layers[units[0].layer].size or (1, 1), units[0].at
    signed, squares = _empty(ablation), _empty(ablation)
    with torch.enable_grad():
        for number in range(ablation.n_batches):
            batch, part = ablation.batch(number)
            moved = moved_by(ablation, batch, layer, each[0].start)
            weights = ablation.weights(part)
            # a ReLU that is off passes no contribution on, as in the gradient
            everywhere = (ablation.clean[part] != 0).to(weights)
            if at is not None:
                sides = (at[1], size[1] - at[1] - 1, at[0], size[0] - at[0] - 1)
                weights, everywhere = F.pad(weights, sides), F.pad(everywhere, sides)
            leaf = moved.new_zeros((len(moved), kernel.shape[0], *moved.shape[2:])).requires_grad_(True)
            out = convolved(leaf, kernel.to(moved), each[0], (weights.shape[1], weights.shape[2]))
            (weighted,) = torch.autograd.grad((weights * out).sum(), leaf, retain_graph=True)
            (plain,) = torch.autograd.grad((everywhere * out).sum(), leaf)
            signed += source.by_unit(weighted, moved).sum(dim=(0, 2, 3)).double().cpu()
            squares += source.by_unit(plain, moved).pow(2).sum(dim=(0, 2, 3)).double().cpu()
    return signed, squares


def moved_by(ablation: Ablation, batch: Batch, layer: str, start: str) -> Tensor:
    """Parts minus baseline `(n, K, h, w)` of the layer; activations, of what a pool or a normalization makes of it."""
    if start == ablation.sources[layer].layer:
        return batch.parts - batch.baselines[layer]
    node = ablation.model.node(start)
    natural, ablated = ablation.natural_and_ablated(batch, [node])
    axes = ablation.model.layers[start].axes
    return axes.maps(natural[node]) - axes.maps(ablated[node])


def convolved(acts: Tensor, kernel: Tensor, weights: ExpandedWeights, size: tuple[int, int]) -> Tensor:
    """What expanded weights `(S, kh, kw)` make of activations: maps `(n, h, w)` of `size`."""
    stride = tuple(max(1, s) for s in weights.stride)
    pads: list[int] = []
    for axis in (
        1,
        0,
    ):  # F.pad starts with the last; what lies outside the map is zero, and what is not read is cut off
        before = -weights.offset[axis]
        needed = (size[axis] - 1) * stride[axis] + kernel.shape[1 + axis]
        pads += [before, needed - before - acts.shape[2 + axis]]
    return F.conv2d(F.pad(acts, pads), kernel[None], stride=stride)[:, 0]
