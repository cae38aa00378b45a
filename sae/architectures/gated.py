"""Gated: one path decides which latents are active, another their values (Rajamanoharan et al. 2024, 2404.16014)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from sae.architectures.base import SAE, START, Losses, TensorNames, TrainingState, register
from sae.architectures.relu import ReLU, dense_losses


@dataclass(frozen=True, kw_only=True)
class Gated(ReLU):
    """A gated autoencoder: the L1 penalty acts on the gate alone, so that it shrinks no latent.

    Attributes:
        l1: weight of the penalty on the gate's pre-activations, in the units of `ReLU.l1`.
            For the rest see `SAEConfig`.

    >>> Gated(latents=4096, l1=2.0).title
    'gated-4096-l1_2'
    """

    architecture: ClassVar[str] = "gated"


@register
class GatedSAE(SAE):
    """See the configuration, `Gated`. `encoder_bias` is the bias of the gate.

    Attributes:
        magnitude_bias, magnitude_scale: `(m,)`. The magnitude path has no weights of its own: its encoder row is the
            gate's row times `exp(magnitude_scale)`, so that a Gated SAE costs one encoder's product, not two.
    """

    Config = Gated
    config: Gated
    saelens = "gated"
    tensor_names: ClassVar[TensorNames] = {
        **SAE.tensor_names, "encoder_bias": ("b_gate", "m"), "magnitude_bias": ("b_mag", "m"),
        "magnitude_scale": ("r_mag", "m"),
    }  # fmt: skip

    def __init__(self, config: Gated, d: int) -> None:
        super().__init__(config, d)
        self.magnitude_bias = nn.Parameter(torch.zeros(config.latents, dtype=torch.float32))
        self.magnitude_scale = nn.Parameter(torch.zeros(config.latents, dtype=torch.float32))

    def activate(self, pre: Tensor) -> Tensor:
        magnitude = torch.relu((pre - self.encoder_bias) * self.magnitude_scale.exp() + self.magnitude_bias)
        return magnitude * (pre > 0)

    def losses(self, x: Tensor, target: Tensor, state: TrainingState = START) -> Losses:
        gate = self.dense_pre(x)
        latents = self.activate(gate)
        opened = torch.relu(gate)
        reconstruction = latents @ self.decoder + self.decoder_bias
        # the step function of the gate passes no gradient, so the auxiliary task trains it: reconstruct from the gate's
        # own ReLU. The decoder is a constant there, so that this task trains the gate alone; so is the target, which a
        # transcoder's skip moves
        through = opened @ self.decoder.detach() + self.decoder_bias.detach()
        return dense_losses(
            x, target, latents, reconstruction,
            l1=state.sparsity * self.config.l1 * opened.sum() / target.numel(),
            gate=(target.detach() - through).square().mean(),
        )  # fmt: skip

    def _shift(self, by: Tensor) -> None:
        super()._shift(by)
        self.magnitude_bias.copy_(self.magnitude_bias.double() + by * self.magnitude_scale.double().exp())

    def _stretch(self, by: Tensor) -> None:
        super()._stretch(by)
        self.magnitude_bias.mul_(by)
