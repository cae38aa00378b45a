"""Matryoshka: nested dictionaries, each of which reconstructs the input (Bussmann et al. 2025, arXiv 2503.17547)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar

import torch
from torch import Tensor

from sae.architectures import sparse_ops
from sae.architectures.base import START, Losses, TrainingState, register
from sae.architectures.batchtopk import BatchTopK, BatchTopKSAE
from sae.architectures.topk import sparse_losses
from sae.checks import whole
from sae.errors import SAEError

FRACTIONS = (1 / 32, 1 / 16, 1 / 8, 1 / 4)


@dataclass(frozen=True, kw_only=True)
class Matryoshka(BatchTopK):
    """Nested dictionaries: the first g latents are a dictionary of their own, for each of several g.

    Attributes:
        groups: sizes of the groups of latents, adding up to `latents` (default: 1/32, 1/16, 1/8, 1/4 of them,
            and the rest). For the rest see `BatchTopK`.

    >>> Matryoshka(latents=1024, k=16).prefixes
    (32, 96, 224, 480, 1024)
    """

    architecture: ClassVar[str] = "matryoshka"

    groups: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for size in self.groups or ():
            whole("groups", size)
        if self.groups is not None and sum(self.groups) != self.latents:
            raise SAEError(f"groups {self.groups} add up to {sum(self.groups)}, not to the {self.latents} latents")

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Number of latents of each nested dictionary; the last is all of them."""
        groups = self.groups or tuple(size for f in FRACTIONS if (size := int(self.latents * f)))
        nested = tuple(accumulate(groups))
        return nested if nested and nested[-1] == self.latents else (*nested, self.latents)


@register
class MatryoshkaSAE(BatchTopKSAE):
    """See the configuration, `Matryoshka`."""

    Config = Matryoshka
    config: Matryoshka

    def losses(self, x: Tensor, target: Tensor, state: TrainingState = START) -> Losses:
        values, pattern = self.select(x)
        prefixes = self.config.prefixes
        reconstruction, loss = self.decoder_bias.expand_as(target), values.new_zeros(())
        # the reconstruction of a prefix is that of the one before plus its own group: one pass over the latents in all.
        # The selection is the batch's, over all groups: a prefix has k latents per input or fewer
        for start, end in pairwise((0, *prefixes)):
            inside = (pattern.columns >= start) & (pattern.columns < end)
            reconstruction = reconstruction + sparse_ops.decode(values * inside, pattern, self.decoder)
            loss = loss + (target - reconstruction).square().mean()
        return sparse_losses(self, x, target, values, pattern, reconstruction, state, loss / len(prefixes))

    def prefix_errors(self, acts: Tensor, target: Tensor | None = None) -> list[float]:
        """Mean squared error of each nested dictionary, smallest first.

        Args:
            acts: raw activations `(N, d)`; target: `(N, d_out)` what a transcoder reconstructs of them.
        """
        if self.transcodes and target is None:
            raise SAEError("a transcoder's errors are those of its targets: give target=, (N, d_out)")
        with torch.no_grad():
            latents, offset, write = self.encode(acts), self.offset, self.write
            target = acts if target is None else target
            linear = self.linear_part(acts)
            target = target if linear is None else target - linear
            return [
                float((target - latents[:, :end] @ write[:end] - offset).square().mean())
                for end in self.config.prefixes
            ]
