"""Group TopK: latents are active in groups, so that a feature may be a subspace and not one direction.

What turns, shifts or changes color is a family of directions that are active in each other's place: curves of all
orientations, say. A group is chosen by the length of its latents, `sqrt(sum z^2)`, whichever of them is large, as in
independent subspace analysis (Hyvarinen & Hoyer 2000) and the group lasso (Yuan & Lin 2006).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sae.architectures import sparse_ops
from sae.architectures.base import SAE, START, Losses, TrainingState, register
from sae.architectures.kernels import Select
from sae.architectures.topk import TopK, check_lengths, sparse_losses
from sae.checks import whole
from sae.errors import SAEError


@dataclass(frozen=True, kw_only=True)
class GroupTopK(TopK):
    """An autoencoder with the `k / group` longest groups of latents active; within a group those above zero.

    Attributes:
        k: latents of the active groups of an input, a multiple of `group`: at most so many are above zero.
        group: latents of a group, those that follow each other. For the rest see `SAEConfig`.

    >>> GroupTopK(latents=4096, k=32, group=8).title
    'grouptopk-4096-k32-group8'
    """

    architecture: ClassVar[str] = "grouptopk"

    group: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "group", whole("group", self.group))
        if self.latents % self.group or self.k % self.group:
            raise SAEError(
                f"groups of {self.group} latents: latents={self.latents} and k={self.k} must be multiples of that"
            )

    @property
    def title(self) -> str:
        return f"{super().title}-group{self.group}"

    @property
    def select(self) -> Select:
        """The rule by which latents are selected."""
        return Select(self.k, group=self.group)


@register
class GroupTopKSAE(SAE):
    """See the configuration, `GroupTopK`."""

    Config = GroupTopK
    config: GroupTopK

    def activate(self, pre: Tensor) -> Tensor:
        values, pattern = self.config.select(pre)
        return torch.zeros_like(pre).index_put((pattern.rows, pattern.columns), values)

    def losses(self, x: Tensor, target: Tensor, state: TrainingState = START) -> Losses:
        values, pattern = sparse_ops.encode(x, self.encoder, self.encoder_bias, self.input_bias, self.config.select)
        reconstruction = sparse_ops.decode(values, pattern, self.decoder) + self.decoder_bias
        return sparse_losses(self, x, target, values, pattern, reconstruction, state)

    def _stretch(self, by: Tensor) -> None:
        check_lengths(by)
        super()._stretch(by)
