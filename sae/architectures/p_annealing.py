"""P-annealing: the exponent of an Lp penalty falls during training (Karvonen et al. 2024, arXiv 2408.00113)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sae import distributed
from sae.architectures.base import START, Losses, TrainingState, register
from sae.architectures.relu import ReLU, ReLUSAE, dense_losses
from sae.errors import SAEError
from zoo.common.checks import number


@dataclass(frozen=True, kw_only=True)
class PAnnealing(ReLU):
    """An autoencoder with the penalty `l1 * strength * sum(latent^p) / d`, where p falls from 1 to `p_end`.

    With p below 1 the penalty counts active latents more than it shrinks large ones; a training that began there would
    end in a poor minimum.

    Attributes:
        p_end: exponent at the end of the training, above 0 and at most 1; it falls linearly with the steps.
            For the rest see `ReLU`.

    >>> PAnnealing(latents=4096).title
    'p_annealing-4096-l1_5'
    """

    architecture: ClassVar[str] = "p_annealing"

    p_end: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        number("p_end", self.p_end, above=0, most=1, error=SAEError)


@register
class PAnnealingSAE(ReLUSAE):
    """See the configuration, `PAnnealing`. At inference it is a ReLU.

    Attributes:
        strength: scalar buffer that keeps the size of the penalty while p falls.
    """

    Config = PAnnealing
    config: PAnnealing
    unit_decoder = True

    def __init__(self, config: PAnnealing, d: int) -> None:
        super().__init__(config, d)
        self.strength: Tensor
        self.register_buffer("strength", torch.ones(()))

    def exponent(self, progress: float) -> float:
        """p, where `progress` is the share of the training that is over."""
        return 1 + (self.config.p_end - 1) * min(1.0, progress)

    def losses(self, x: Tensor, target: Tensor, state: TrainingState = START) -> Losses:
        latents = torch.relu(self.dense_pre(x))
        active = latents > 0  # at zero the derivative of latent^p is infinite
        # in bfloat16 the two sums, which differ by a step's share of the training, would round to the same number
        precise = latents.to(x.dtype)
        now, later = (
            ((precise + 1e-6) ** self.exponent(step / state.steps) * active).sum()
            for step in (state.step, state.step + 1)
        )
        weight = state.sparsity * self.config.l1 * self.strength / target.numel()
        if self.training:  # the update of the paper: the penalty is as large with the next p as with this one
            before, after = distributed.total(now), distributed.total(later)
            self.strength = (self.strength * (before + 1e-6) / (after + 1e-6)).detach()
        return dense_losses(x, target, latents, latents @ self.decoder + self.decoder_bias, lp=weight * now)
