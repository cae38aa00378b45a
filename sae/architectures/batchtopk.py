"""BatchTopK: the k * N largest latents of a batch of N are active (Bussmann et al. 2024, arXiv 2412.06410)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sae.architectures import sparse_ops
from sae.architectures.base import SAE, START, Losses, TensorNames, TrainingState, register
from sae.architectures.kernels.sparse_pattern import Pattern
from sae.architectures.topk import TopK, sparse_losses

RATE = 0.01  # of the moving average of the threshold


@dataclass(frozen=True, kw_only=True)
class BatchTopK(TopK):
    """A BatchTopK autoencoder: in training the `k * N` largest latents of a batch of N are active.

    Attributes:
        k: latents per input on average. For the rest see `SAEConfig`.

    >>> BatchTopK(latents=4096, k=32).title
    'batchtopk-4096-k32'
    """

    architecture: ClassVar[str] = "batchtopk"


@register
class BatchTopKSAE(SAE):
    """See the configuration, `BatchTopK`. At inference a latent is active above its threshold, whatever the batch.

    Attributes:
        threshold: `(m,)`, a moving average of the smallest active latent of the training batches; a buffer, saved.
        threshold_weight: sum of the weights in that average; it corrects the start at zero, as in Adam.
    """

    Config = BatchTopK
    config: BatchTopK
    saelens = "jumprelu"  # a threshold at inference is all that is left of the selection
    tensor_names: ClassVar[TensorNames] = {**SAE.tensor_names, "threshold": ("threshold", "m")}

    def __init__(self, config: BatchTopK, d: int) -> None:
        super().__init__(config, d)
        self.threshold: Tensor
        self.threshold_weight: Tensor
        self.register_buffer("threshold", torch.zeros(config.latents, dtype=torch.float32))
        self.register_buffer("threshold_weight", torch.zeros((), dtype=torch.float32))

    def activate(self, pre: Tensor) -> Tensor:
        return torch.relu(pre) * (pre > self.threshold)

    def losses(self, x: Tensor, target: Tensor, state: TrainingState = START) -> Losses:
        values, pattern = self.select(x)
        reconstruction = sparse_ops.decode(values, pattern, self.decoder) + self.decoder_bias
        return sparse_losses(self, x, target, values, pattern, reconstruction, state)

    def select(self, x: Tensor) -> tuple[Tensor, Pattern]:
        """The active latents of a batch of normalized inputs; in training they move the threshold."""
        values, pattern = sparse_ops.encode(
            x, self.encoder, self.encoder_bias, self.input_bias, sparse_ops.batch_topk(self.config.k)
        )
        if self.training:
            self._update_threshold(values.detach())
        return values, pattern

    @torch.no_grad()
    def _update_threshold(self, values: Tensor) -> None:
        smallest = torch.where(values > 0, values, torch.inf).min()
        smallest = torch.where(smallest.isfinite(), smallest, 0.0)  # no latent of the batch is active
        weight = self.threshold_weight * (1 - RATE) + RATE
        self.threshold.copy_((self.threshold * (self.threshold_weight * (1 - RATE)) + RATE * smallest) / weight)
        self.threshold_weight.copy_(weight)

    @torch.no_grad()
    def calibrate(self, acts: Tensor) -> float:
        """Set the threshold so that `k` latents are active on average over raw activations `(N, d)`, and return it.

        For data other than the training data, whose threshold is there after training.
        """
        pre = torch.relu(self.pre_activations(self.checked(acts))).flatten()
        active = min(self.config.k * len(acts), pre.numel() - 1)
        threshold = pre.kthvalue(pre.numel() - active).values
        self.threshold.fill_(threshold)
        return float(threshold)

    def _stretch(self, by: Tensor) -> None:
        super()._stretch(by)
        self.threshold.mul_(by)
