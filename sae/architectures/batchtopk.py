"""BatchTopK: the k latents per input are spread freely over a batch (Bussmann et al. 2024, arXiv 2412.06410)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sae.architectures import sparse_ops
from sae.architectures.base import SAE, Losses, Revive, SAEConfig, register
from sae.architectures.topk import sparse_losses
from sae.checks import at_most_latents

RATE = 0.01  # of the moving average of the threshold


@dataclass(frozen=True, kw_only=True)
class BatchTopK(SAEConfig):
    """A BatchTopK autoencoder: in training the `k * N` largest latents of a batch of N stay.

    Attributes:
        k: latents per input on average. For the rest see `SAEConfig`.

    >>> BatchTopK(latents=4096, k=32).title
    'batchtopk-4096-k32'
    """

    architecture: ClassVar[str] = "batchtopk"

    k: int = 32
    revive: Revive = "auxk"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_most_latents("k", self.k, self.latents)

    @property
    def title(self) -> str:
        return f"{super().title}-k{self.k}"


@register
class BatchTopKSAE(SAE):
    """See the configuration, `BatchTopK`. At inference a latent fires above its threshold, whatever the batch.

    Attributes:
        threshold: `(m,)`, a running mean of the smallest latent that a training batch kept; a buffer, saved.
        threshold_weight: how much of a full mean has been seen, to correct its start.
    """

    Config = BatchTopK
    config: BatchTopK

    def __init__(self, config: BatchTopK, d: int) -> None:
        super().__init__(config, d)
        self.threshold: Tensor
        self.threshold_weight: Tensor
        self.register_buffer("threshold", torch.zeros(config.latents))
        self.register_buffer("threshold_weight", torch.zeros(()))

    def activate(self, pre: Tensor) -> Tensor:
        return torch.relu(pre) * (pre > self.threshold)

    def losses(self, x: Tensor, target: Tensor, *, dead: Tensor | None = None, sparsity: float = 1.0) -> Losses:
        values, pattern = self.select(x)
        reconstruction = sparse_ops.decode(values, pattern, self.decoder) + self.decoder_bias
        return sparse_losses(self, x, target, values, pattern, reconstruction, dead=dead)

    def select(self, x: Tensor) -> tuple[Tensor, sparse_ops.Pattern]:
        """The latents kept of a batch of normalized inputs; in training they move the threshold."""
        values, pattern = sparse_ops.encode(
            x, self.encoder, self.encoder_bias, self.decoder_bias, sparse_ops.batch_topk(self.config.k)
        )
        if self.training:
            self._follow(values.detach())
        return values, pattern

    @torch.no_grad()
    def _follow(self, values: Tensor) -> None:
        smallest = torch.where(values > 0, values, torch.inf).min()
        smallest = torch.where(smallest.isfinite(), smallest, 0.0)  # a batch on which nothing fires
        weight = self.threshold_weight * (1 - RATE) + RATE
        self.threshold.copy_((self.threshold * (self.threshold_weight * (1 - RATE)) + RATE * smallest) / weight)
        self.threshold_weight.copy_(weight)

    @torch.no_grad()
    def calibrate(self, acts: Tensor) -> float:
        """Set the threshold so that `k` latents fire on average over raw activations `(N, d)`, and give it.

        For another data set than the one trained on; training itself leaves a threshold behind.
        """
        pre = torch.relu(self.pre_activations(self.checked(acts))).flatten()
        kept = min(self.config.k * len(acts), pre.numel() - 1)
        threshold = pre.kthvalue(pre.numel() - kept).values
        self.threshold.fill_(threshold)
        return float(threshold)

    def _stretch(self, by: Tensor) -> None:
        super()._stretch(by)
        self.threshold.mul_(by)
