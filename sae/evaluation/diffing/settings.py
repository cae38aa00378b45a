"""Settings of model diffing."""

from __future__ import annotations

from dataclasses import dataclass

from sae.checks import at_most_latents, whole
from sae.errors import SAEError
from zoo.common.checks import number, whole_number


@dataclass(frozen=True, kw_only=True)
class DiffSettings:
    """How two networks are compared by a crosscoder.

    The limits are those of the literature, not tuned here: .9 of the length (Lindsey et al. 2024), .2 for the error and
    .5 for the reconstruction (Minder et al. 2025, arXiv 2504.02922).

    Attributes:
        latents, k: of the BatchTopK crosscoder, whose latents do not shrink as those of L1 do.
        steps, batch_size, lr: of its training.
        held_out: share of the images that it is judged on and not trained on.
        vectors: about how many positions to train on.
        shrinkage: most of a confirmed latent of one network alone; decoupling: the same.
        twin: largest correlation of such a latent with one that writes in the other network.
        least: vectors on which a latent must be active to be judged.
        draws: of control latents for each ablation.
        controls: compare the first network with itself, too.
        seed: of the split, the crosscoder and the draws.
    """

    latents: int = 256
    k: int = 16
    steps: int = 1500
    batch_size: int = 512
    lr: float = 2e-3
    held_out: float = 0.3
    vectors: int = 65_536
    shrinkage: float = 0.2
    decoupling: float = 0.5
    twin: float = 0.5
    least: int = 20
    draws: int = 8
    controls: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("latents", "k", "steps", "batch_size", "vectors", "least", "draws"):
            whole(name, getattr(self, name))
        whole_number("seed", self.seed, least=0, error=SAEError)
        at_most_latents("k", self.k, self.latents)
        if number("held_out", self.held_out, above=0, error=SAEError) >= 1:
            raise SAEError(f"held_out is a share between 0 and 1, not {self.held_out}")
        for name in ("shrinkage", "decoupling", "twin", "lr"):
            number(name, getattr(self, name), above=0, error=SAEError)
