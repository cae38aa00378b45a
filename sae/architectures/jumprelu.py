"""JumpReLU: a threshold per latent, learned through a pseudo-derivative (straight-through estimate).

The loss is a step function of a threshold for each input: its derivative is zero almost everywhere. Averaged over
inputs it has one, which depends on the density of pre-activations at the threshold. A kernel density estimate over the
batch with a rectangular kernel of width `bandwidth` gives the formulas of `Jump` and `Step` (Rajamanoharan et al. 2024,
arXiv 2407.14435). The tanh penalty and the pre-activation loss are those of Anthropic's January 2025 update.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from sae.architectures.base import SAE, START, Losses, SAEConfig, TensorNames, TrainingState, register
from sae.architectures.relu import dense_losses
from sae.errors import SAEError
from zoo.common.checks import number, one_of

Penalty = Literal["tanh", "l0"]


@dataclass(frozen=True, kw_only=True)
class JumpReLU(SAEConfig):
    """An autoencoder with a learned threshold per latent.

    The penalty is a mean over inputs of a sum over latents, over d; beside a squared error that is a mean over
    dimensions of inputs of unit variance.

    Attributes:
        penalty: "tanh" (`tanh(tanh_scale * latent * row length)`, which also moves the encoder) or "l0" (the
            number of active latents, which moves thresholds alone).
        coefficient: weight of the penalty; tanh_scale: see there.
        threshold: initial threshold; bandwidth: width of the estimate about it. Both in units of normalized
            inputs, whose mean squared length is d. The defaults are the tanh penalty's; the source of "l0" uses
            0.001 for both.
        pre_act_coefficient: weight of `relu(threshold - pre-activation)` of dead latents.
            For the rest see `SAEConfig`.

    >>> JumpReLU(latents=4096, penalty="l0", coefficient=1.0).title
    'jumprelu-4096-l0_1'
    """

    architecture: ClassVar[str] = "jumprelu"
    penalty_weight: ClassVar[str] = "coefficient"

    penalty: Penalty = "tanh"
    coefficient: float = 2.0
    tanh_scale: float = 4.0
    threshold: float = 0.1
    bandwidth: float = 2.0
    pre_act_coefficient: float = 3e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("penalty", self.penalty, get_args(Penalty), error=SAEError)
        for name in ("coefficient", "tanh_scale", "threshold", "pre_act_coefficient"):
            number(name, getattr(self, name), least=0, error=SAEError)
        number("bandwidth", self.bandwidth, above=0, error=SAEError)

    @property
    def title(self) -> str:
        return f"{super().title}-{self.penalty}_{self.coefficient:g}"


def _near(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """The rectangular kernel: one within half a bandwidth of the threshold."""
    return ((pre - threshold).abs() < bandwidth / 2).to(pre.dtype)


class Jump(torch.autograd.Function):
    """`pre` where it is above its threshold, else zero; its derivative by the threshold is an estimate.

    `d out / d threshold = -(threshold / bandwidth) * [|pre - threshold| < bandwidth / 2]`. With `to_input` the estimate
    also reaches `pre`, with the opposite sign, as in Anthropic's update.
    """

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float, to_input: bool = False) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth, ctx.to_input = bandwidth, to_input
        return torch.relu(pre) * (pre > threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        pre, threshold = ctx.saved_tensors
        estimate = -(threshold / ctx.bandwidth) * _near(pre, threshold, ctx.bandwidth) * grads[0]
        to_pre = grads[0] * ((pre > threshold) & (pre > 0))
        return to_pre - estimate if ctx.to_input else to_pre, estimate.sum(dim=0), None, None


class Step(torch.autograd.Function):
    """One where `pre` is above its threshold, else zero: the sum over latents is L0.

    `d out / d threshold = -[|pre - threshold| < bandwidth / 2] / bandwidth`; `d out / d pre` is zero, so that the L0
    penalty moves thresholds alone.
    """

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        pre, threshold = ctx.saved_tensors
        estimate = -_near(pre, threshold, ctx.bandwidth) / ctx.bandwidth * grads[0]
        return None, estimate.sum(dim=0), None


@register
class JumpReLUSAE(SAE):
    """See the configuration, `JumpReLU`.

    Attributes:
        threshold: `(m,)`, never below zero. Learned as it is, not as its logarithm: Adam moves a parameter by
            about the learning rate a step, which hardly moves a small threshold's logarithm.
    """

    Config = JumpReLU
    config: JumpReLU
    saelens = "jumprelu"
    tensor_names: ClassVar[TensorNames] = {**SAE.tensor_names, "threshold": ("threshold", "m")}

    def __init__(self, config: JumpReLU, d: int) -> None:
        super().__init__(config, d)
        self.threshold = nn.Parameter(torch.full((config.latents,), float(config.threshold), dtype=torch.float32))

    def activate(self, pre: Tensor) -> Tensor:
        return torch.relu(pre) * (pre > self.threshold)

    def losses(self, x: Tensor, target: Tensor, state: TrainingState = START) -> Losses:
        config = self.config
        pre = self.dense_pre(x)
        pre = pre.to(self.threshold.dtype)  # thresholds are never of low precision
        latents: Tensor = Jump.apply(pre, self.threshold, config.bandwidth, config.penalty == "tanh")
        if config.penalty == "tanh":
            count = torch.tanh(config.tanh_scale * latents * self.row_lengths()).sum()
        else:
            count = Step.apply(pre, self.threshold, config.bandwidth).sum()
        terms: dict[str, Tensor] = {config.penalty: state.sparsity * config.coefficient * count / target.numel()}
        dead = state.dead
        if dead is not None and len(dead) and config.pre_act_coefficient > 0:
            below = torch.relu(self.threshold[dead] - pre[:, dead]) * self.row_lengths()[dead]
            terms["pre_act"] = config.pre_act_coefficient * below.sum() / target.numel()
        reconstruction = latents @ self.decoder + self.decoder_bias
        return dense_losses(x, target, latents, reconstruction, **terms)

    @torch.no_grad()
    def constrain(self) -> None:
        super().constrain()
        self.threshold.clamp_(min=0.0)

    def _stretch(self, by: Tensor) -> None:
        super()._stretch(by)
        self.threshold.mul_(by)
