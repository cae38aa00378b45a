"""A mask over units, learned so that circuits of every size keep as much of a target as they can.

Each unit has a number; a circuit of n units takes the n largest. To learn them by gradients, the choice is made soft:
unit c is there by `sigmoid((number_c - threshold) / temperature)`, with the threshold such that the amounts add up to
n. Each step draws a size n, evenly on a logarithmic scale, and improves that circuit on some images; the temperature
falls, so that amounts go to 0 and 1. One order then serves all sizes, and no penalty has to be chosen that trades size
against faithfulness, as with the L1 or L0 penalties of Louizos et al. 2018 (1712.01312) and Cao et al. 2021
(2104.03514). With `size` all steps are spent on circuits of one size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from circuits.network.hooks import frozen
from circuits.tracing.ablation.ablation import Ablation

LEARNING_RATE = 0.3
HOT, COLD = 1.0, 0.1
"""Temperature at the first and at the last step."""
START = 4.0
"""Range of the numbers of a mask that starts from another ranking."""


def learn_mask(
    ablation: Ablation,
    *,
    steps: int = 120,
    seed: int = 0,
    size: int | None = None,
    start: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Numbers `(C,)` of the units of each layer: a circuit of n units is the n largest over all layers.

    Args:
        ablation: on the images to learn on.
        steps: updates, each on one batch of the ablation.
        seed: of batches and sizes.
        size: of the circuit (default: all sizes).
        start: numbers to start from, of any scale (default: all units alike).
    """
    generator = torch.Generator().manual_seed(seed)
    widths = ablation.widths
    total = sum(widths.values())
    first = torch.zeros(total)
    if start is not None:
        ranks = torch.cat([start[layer].cpu() for layer in widths]).argsort().argsort().float()
        first = (ranks / total - 0.5) * START
    first = first + 1e-3 * torch.randn(total, generator=generator)
    numbers = first.to(ablation.model.device).requires_grad_(True)
    optimizer = torch.optim.Adam([numbers], lr=LEARNING_RATE, betas=(0.9, 0.99))
    order: list[int] = []
    with frozen(ablation.model.module), torch.enable_grad():
        for step in range(steps):
            temperature = HOT * (COLD / HOT) ** (step / max(1, steps - 1))
            drawn = float(torch.rand((), generator=generator))
            n = size or max(1, round(math.exp(drawn * math.log(max(1, total / 2)))))
            order = order or torch.randperm(ablation.n_batches, generator=generator).tolist()
            batch, part = ablation.batch(order.pop())
            amounts = torch.split(soft_choice(numbers, min(n, total), temperature), list(widths.values()))
            response = ablation.mixed(batch, dict(zip(widths, amounts, strict=True)))
            loss = ablation.loss(response, part)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return dict(zip(widths, torch.split(numbers.detach().cpu(), list(widths.values())), strict=True))


def soft_choice(numbers: Tensor, n: int, temperature: float) -> Tensor:
    """How much of each unit is there, 0 to 1, so that it is n units in sum.

    `sigmoid((number - threshold) / temperature)`; carries gradients, also through the threshold.
    """
    if n >= len(numbers):
        return torch.ones_like(numbers) + 0 * numbers  # a gradient of zero: all units are there, whatever they are
    with torch.no_grad():  # bisection: the sum falls with the threshold
        margin = temperature * math.log(1e6 * len(numbers))
        low, high = numbers.min() - margin, numbers.max() + margin
        for _ in range(50):
            middle = (low + high) / 2
            more = torch.sigmoid((numbers - middle) / temperature).sum() > n
            low, high = torch.where(more, middle, low), torch.where(more, high, middle)
        at = torch.sigmoid((numbers - low) / temperature)
        rise = (at * (1 - at)).sum().clamp_min(1e-12) / temperature
    # one Newton step, whose value is nothing and whose derivative is that of the threshold
    threshold = low + (torch.sigmoid((numbers - low) / temperature).sum() - n) / rise
    return torch.sigmoid((numbers - threshold) / temperature)
