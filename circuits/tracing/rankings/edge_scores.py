"""How much each edge between two layers moves a target: `rank(..., of="edges")`.

An edge from unit u to unit v of the next layer carries u's activation into v alone. With g the derivative of the
measure by v's activation, and a and b the activation and the baseline of u:

- "weights": `sum g * (expanded weights from u to v x (a - b))`, where v is active.
- "gradient": `sum g * (derivative of v by u x (a - b))`: edge attribution patching, EAP (Syed et al. 2023, 2310.10348).
- "integrated": the same, with derivatives all the way from b to a of all units of u's layer at once: EAP-IG (Hanna et
  al. 2024, 2403.17806), over activations. The edges of a unit sum to its score as a unit, and those of a step to all.
- "patching": the loss when the edge alone carries the baseline and all else is as it is: exact.
- "random": the null.

Edges into the target are its units. A learned mask over edges is not offered.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from circuits.attribution.expanded_weights import ExpandedWeights, expanded_weights
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.hooks import frozen
from circuits.network.subnetwork import Segment
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.ablation.channel_edits import VALUES, ChannelEdits
from circuits.tracing.ablation.edge_ablation import Step, chain
from circuits.tracing.ablation.measured import Batch
from circuits.tracing.rankings.unit_scores import STEPS, RankMethod, UnitScores, convolved, moved_by, unit_scores
from circuits.tracing.target import target_of
from zoo.common.checks import whole_number

ROUNDING = 1e-6
"""Changes of a child below this share of its largest activation are none."""


def edge_scores(
    ablation: Ablation, step: Step, method: RankMethod, *, steps: int | None = None, seed: int = 0
) -> UnitScores:
    """Scores of the edges of a step, `(children * sources,)`.

    Args:
        ablation: of the step's layer alone.
        step: from that layer to the next of the chain.
        method: see the module.
        steps: of "integrated".
        seed: of "random".

    Raises:
        CircuitsError: method "mask".
    """
    if method == "mask":
        raise CircuitsError("a mask is learned over units: rank edges by 'integrated', or of='units'")
    if method == "random":
        position = list(ablation.model.layers).index(step.layer)
        numbers = torch.from_numpy(np.random.default_rng([seed, position]).random(step.size))
        return UnitScores(numbers, numbers)
    if step.after is None:
        return unit_scores(ablation, method, steps=steps, seed=seed)[step.layer]
    count = whole_number("steps", steps if steps is not None else STEPS.get(method, 1))
    amounts = [(k + 0.5) / count for k in range(count)] if method == "integrated" else [1.0]
    with frozen(ablation.model.module):
        if method == "patching":
            signed, squares = _by_patching(ablation, step)
        else:
            signed, squares = _by_derivatives(ablation, step, amounts, method)
    magnitude = signed.abs() if ablation.measure == "mean" else (squares / ablation.spread).sqrt()
    return UnitScores(signed.flatten(), magnitude.flatten())


def edge_strengths(ablation: Ablation) -> dict[str, Tensor]:
    """Layer -> |gradient x (activation - baseline)| of each edge of the step that starts there: for random circuits.

    Args:
        ablation: of all layers of the chain.
    """
    strengths = {}
    for step in chain(ablation.model, ablation.target, ablation.layers):
        own = Ablation(
            ablation.model, ablation.target, [step.layer], ablation.images, ablation.baseline, measure=ablation.measure
        )
        strengths[step.layer] = edge_scores(own, step, "gradient").magnitude
    return strengths


def _by_derivatives(
    ablation: Ablation, step: Step, amounts: Sequence[float], method: RankMethod
) -> tuple[Tensor, Tensor]:
    """Sums of what the edges carry to the measure, and of the squares of what they carry to the whole response."""
    signed = torch.zeros(len(step.names), step.width, dtype=torch.float64)
    squares = torch.zeros_like(signed)
    whole, rest = _whole(ablation, step), ablation.target.segment(ablation.model, str(step.after))
    weights = None
    if method == "weights":
        weights = expanded_weights(ablation.model, source=step.layer, target=list(whole.units))
    children = [step.child(ablation.model, c, ablation.target) for c in range(len(step.names))]
    with torch.enable_grad():
        for number in range(ablation.n_batches):
            batch, part = ablation.batch(number)
            along = [_cotangents(ablation, batch, part, whole, rest, amount, method) for amount in amounts]
            for c, child in enumerate(children):
                carried = _carried(ablation, step, batch, child, c, amounts, along, weights)
                signed[c] += sum(weighted.sum(dim=(0, 2, 3)).double().cpu() for weighted, _ in carried)
                # the layer's own map, and each of its pools, add up over the amounts before they are squared
                squares[c] += sum(plain.pow(2).sum(dim=(0, 2, 3)).double().cpu() for _, plain in carried)
    return signed, squares


def _whole(ablation: Ablation, step: Step) -> Segment:
    units = [Unit(str(step.after), c, ablation.model.name) for c in range(len(step.names))]
    return Segment(ablation.model, step.layer, units)


def _cotangents(
    ablation: Ablation, batch: Batch, part: slice, whole: Segment, rest: Segment, amount: float, method: RankMethod
) -> tuple[Tensor, Tensor]:
    """Derivatives of the measure and of the whole response by the children's activations, `(2, n, children, h, w)`.

    Under "weights" only where the child is active.
    """
    with torch.no_grad():
        acts, _ = ablation.along(batch, amount, whole)
    leaf = acts.detach().requires_grad_(True)
    response = ablation.target.values(rest.respond(leaf, {}))
    # "gradient" takes the first order of what full ablation takes away, as for units
    cotangent = (
        ablation.slope(response.detach(), part) if method == "integrated" else ablation.weights(part).to(response)
    )
    (weighted,) = torch.autograd.grad((cotangent * response).sum(), leaf, retain_graph=True)
    (plain,) = torch.autograd.grad(response.sum(), leaf)
    if method == "weights":
        active = (leaf != 0).to(weighted)
        return weighted * active, plain * active
    return weighted, plain


def _carried(
    ablation: Ablation,
    step: Step,
    batch: Batch,
    child: Segment,
    index: int,
    amounts: Sequence[float],
    along: Sequence[tuple[Tensor, Tensor]],
    weights: ExpandedWeights | None,
) -> list[tuple[Tensor, Tensor]]:
    """What each source's change gives through one child, at each position: to the measure, to the whole response.

    One pair of `(n, sources, h, w)` for the layer, and one for each of its pools.
    """
    totals: dict[str, tuple[Tensor, Tensor]] = {}
    for amount, (weighted, plain) in zip(amounts, along, strict=True):
        if weights is None:
            out, ways = ablation.along(batch, amount, child)
        else:
            moved = moved_by(ablation, batch, step.layer, weights.start)
            leaf = torch.zeros_like(moved, requires_grad=True)
            out = convolved(
                leaf, weights.kernels[index].detach().to(moved), weights, (weighted.shape[2], weighted.shape[3])
            )[:, None]
            ways = {weights.start: (leaf, moved)}
        if not out.requires_grad:
            continue
        leaves = [leaf for leaf, _ in ways.values()]
        products = [(weighted[:, index] * out[:, 0]).sum()]
        if ablation.measure != "mean":  # magnitudes of means are the sizes of the scores
            products.append((plain[:, index] * out[:, 0]).sum())
        gradients = [torch.autograd.grad(p, leaves, retain_graph=True, allow_unused=True) for p in products]
        for (name, (_, moved)), g, h in zip(ways.items(), gradients[0], gradients[-1], strict=True):
            if g is not None and h is not None:
                before = totals.get(name, (0.0, 0.0))
                totals[name] = (before[0] + g * moved / len(amounts), before[1] + h * moved / len(amounts))
    return list(totals.values())


def _by_patching(ablation: Ablation, step: Step) -> tuple[Tensor, Tensor]:
    """The child's response with each edge into it at the baseline, then the target's with that child."""
    signed = torch.zeros(len(step.names), step.width, dtype=torch.float64)
    squares = torch.zeros_like(signed)
    rest, whole = ablation.target.segment(ablation.model, str(step.after)), _whole(ablation, step)
    with torch.no_grad():
        natural = torch.cat([whole.respond(batch.acts, batch.context) for batch in ablation.batches()])
        weights = ablation.weights()
        for c, unit in enumerate(whole.units):
            edits = ChannelEdits(ablation.with_target(target_of(ablation.model, unit), constant=True))
            source = 0
            for responses in edits.single():
                # an edge of weight zero changes its child by rounding at most
                change = (responses - natural[:, c]).abs().flatten(1).amax(dim=1)
                rows = (change > ROUNDING * natural[:, c].abs().max()).nonzero().flatten()
                for some in torch.split(rows, max(1, VALUES // natural.numel())):
                    lost = ablation.clean - _replaced(ablation, rest, natural, c, responses[some])
                    signed[c, source + some.cpu()] = (weights * lost).flatten(1).double().sum(dim=1).cpu()
                    squares[c, source + some.cpu()] = lost.pow(2).flatten(1).double().sum(dim=1).cpu()
                source += len(responses)
    return signed, squares


def _replaced(ablation: Ablation, rest: Segment, natural: Tensor, channel: int, values: Tensor) -> Tensor:
    """Responses `(K, N, h, w)` when a channel of `natural` `(N, C, h, w)` has other values `(K, N, h, w)`."""
    acts = natural.repeat(len(values), 1, 1, 1)
    acts[:, channel] = values.flatten(0, 1)
    response = ablation.target.values(rest.respond(acts, {}))
    return response.view(len(values), len(natural), *response.shape[1:])
