"""The order in which each next unit is expected to add most to those before it: as `trace` takes the parents of a node.

Units overlap: two that do the same are not worth twice as much. A ranking scores each alone, in the network as it is.
For few units the overlap is estimated from these scores; a larger circuit is run, and the units that it leaves out are
scored anew by what it still lacks. So inhibitors come in where a circuit overshoots: in the network as it is, a target
that is silent at a position has no gradient there, and what keeps it silent is not seen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.rankings.unit_scores import UnitScores, by_gradients

ALONE = 16
"""Units that are taken by their scores alone; from here on they are scored anew whenever the circuit has doubled."""


def gain_order(ablation: Ablation, scores: UnitScores, count: int) -> list[int]:
    """The first `count` units of an ablation's one layer, by `by_gain` up to `ALONE`, then scored anew.

    With F what a circuit lacks of the response and d_c what unit c brings to it, (activation - baseline) times the mean
    of its gradients at the circuit and in the network as it is, the next units are those with the largest

        2 <F, d_c> - <d_c, d_c> - 2 sum over those taken since of <d_i, d_c>,

    which is what each takes away of the squared error where responses are sums of what units bring.

    Args:
        ablation: whose measure is the explained variance.
        scores: of the units that may be taken, the first of the layer; count: at most their number.
    """
    order = by_gain(scores, min(count, ALONE))
    while len(order) < min(count, len(scores.signed)):
        brings, overlaps = _lacking(ablation, order)
        until = min(count, 2 * len(order), len(scores.signed))
        left = torch.ones(len(scores.signed), dtype=torch.bool)
        left[order] = False
        gain = (2 * brings - overlaps.diagonal())[: len(left)]
        while len(order) < until:
            order.append(int(gain.masked_fill(~left, -torch.inf).argmax()))
            left[order[-1]] = False
            gain = gain - 2 * overlaps[order[-1], : len(left)]
    return order


def _lacking(ablation: Ablation, units: list[int]) -> tuple[Tensor, Tensor]:
    """<F, d_c> `(units,)` and <d_i, d_c> `(units, units)` of a circuit, see `gain_order`, in units of the variance."""
    (layer,) = ablation.layers
    at_circuit = torch.zeros(ablation.widths[layer], dtype=ablation.clean.dtype, device=ablation.clean.device)
    at_circuit[units] = 1.0
    lacks = (ablation.clean - ablation.respond({layer: set(units)})) / ablation.spread

    def overlaps(contributions: Tensor) -> Tensor:
        rows = contributions.transpose(0, 1).flatten(1)
        return rows @ rows.T

    # the trapezoidal rule of integrated gradients: of the circuit alone units are silent that others would wake
    brings, products = by_gradients(
        ablation, [at_circuit, torch.ones_like(at_circuit)], lambda _, part: lacks[part], overlaps
    )
    return brings, products / ablation.spread


def by_gain(scores: UnitScores, count: int) -> list[int]:
    """The first `count` units, each the one that is expected to take away most of what those before it leave.

    With F what full ablation takes away from the response and d_c what ablating unit c does, the signed share is
    <F, d_c> and the squared magnitude <d_c, d_c>, in units of the variance. The units chosen so far carry a share p of
    F. Taken to carry that share of all but c, they leave (1 - p) F + p d_c, of which c takes away

        2 (1 - p) <F, d_c> + (2 p - 1) <d_c, d_c>.

    So the first parent is the one that keeps most alone, the last the one without which the rest loses most: the order
    lies between that by signed share, which overshoots where many units push the same way, and that by magnitude, which
    for few parents chooses such as lead away from the response (docs/tracing.md).

    Args:
        scores: under a measure of explained variance; count: at most the number of units.
    """
    signed, squares = scores.signed.double(), scores.magnitude.double().square()
    whole, left, order = float(signed.sum()), torch.ones(len(signed), dtype=torch.bool), list[int]()
    if not whole > 0:  # full ablation takes nothing away by these numbers: there is no share of it
        return list(scores.magnitude.argsort(descending=True, stable=True)[:count].tolist())
    for _ in range(min(count, len(signed))):
        share = float(signed[~left].sum()) / whole
        gain = 2 * (1 - share) * signed + (2 * share - 1) * squares
        order.append(int(gain.masked_fill(~left, -torch.inf).argmax()))
        left[order[-1]] = False
    return order
