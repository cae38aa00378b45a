"""Relaxed archetypal dictionaries: what latents write is made of data (RA-SAE, Fel et al. 2025, arXiv 2502.12892).

Dictionaries of free directions differ from seed to seed. Here an atom is a convex combination of points of the data
and a short deviation from it, `atom_i = sum_j mixture_ij point_j + deviation_i`, with rows of `mixture` on the simplex.
What a latent writes is the direction of its atom, from the mean of the data. If the points surround the mean, some atom
has any direction: what holds directions near the data is then that they start as centers of it and are combinations of
few.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sae.architectures.base import register
from sae.architectures.topk import TopK, TopKSAE
from sae.checks import whole
from sae.errors import SAEError
from sae.seeding import CONTROL, generator
from zoo.common.checks import number

NEWTON = 20
"""Steps of the projection onto the simplex at most; it ends by itself after a few."""


@dataclass(frozen=True, kw_only=True)
class Archetypal(TopK):
    """A TopK autoencoder whose decoder rows are directions of convex combinations of data.

    Attributes:
        points: centers of k-means that the combinations are of (default: as many as latents, at most 1,024).
        relaxation: largest deviation of an atom from its combination, as a share of the combination's length.
        k: see `TopK`. For the rest see `SAEConfig`.

    >>> Archetypal(latents=4096, k=32).title
    'archetypal-4096-k32'
    """

    architecture: ClassVar[str] = "archetypal"
    refused: ClassVar[dict[tuple[str, str], str]] = {
        ("kind", "transcoder"): "its atoms are made of inputs, and a transcoder writes something else",
        ("kind", "skip-transcoder"): "its atoms are made of inputs, and a transcoder writes something else",
        ("kind", "crosscoder"): "its atoms are combinations of inputs: none could belong to one source alone",
        ("frozen", "near decoder"): "its rows cannot stay near random ones and be made of data; freeze the decoder",
        ("revive", "resample"): "its rows are made of data, not set; use revive='auxk'",
    }

    points: int | None = None
    relaxation: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points is not None:
            object.__setattr__(self, "points", whole("points", self.points))
        number("relaxation", self.relaxation, least=0, error=SAEError)

    @property
    def centers(self) -> int:
        """How many points there are."""
        return self.points or min(self.latents, 1024)


@register
class ArchetypalSAE(TopKSAE):
    """See the configuration, `Archetypal`. At inference it is a TopK SAE.

    Attributes:
        mixture: `(m, n)` shares of the points in each atom, zero or above, with a sum of one.
        deviation: `(m, d)` of the atoms from their combinations.
        lengths: `(m, 1)` of the atoms, from the mean; a buffer.
        points: `(n, d)` in normalized inputs; a buffer. Random directions until `take_examples` was called.
    """

    Config = Archetypal
    config: Archetypal
    saelens = None  # what atoms are made of belongs to the file
    constants = (*TopKSAE.constants, "points")
    examples = 20_000

    def __init__(self, config: Archetypal, d: int) -> None:
        super().__init__(config, d)
        n, m = config.centers, config.latents
        random = generator(config.seed, CONTROL, n)
        self.points: Tensor
        self.register_buffer("points", F.normalize(torch.randn(n, d, generator=random, dtype=torch.float32)))
        # as many atoms as there are points start as one point each, the rest half way between two
        own = torch.arange(m) % n
        other = torch.where(torch.arange(m) < n, own, torch.randint(n, (m,), generator=random))
        mixture = 0.5 * (F.one_hot(own, n) + F.one_hot(other, n)).float()
        self.mixture = nn.Parameter(mixture)
        self.deviation = nn.Parameter(torch.zeros(m, d, dtype=torch.float32))
        self.lengths: Tensor
        self.register_buffer("lengths", torch.ones(m, 1, dtype=torch.float32))
        with torch.no_grad():
            self.constrain()
            self.encoder.copy_(self.decoder)

    @property
    def atoms(self) -> Tensor:
        """Raw activations `(m, d)`: without relaxation each lies in the convex hull of the data."""
        atoms: Tensor = self.mean + (self.mixture @ self.points + self.deviation) / self.scale
        return atoms

    @torch.no_grad()
    def take_examples(self, x: Tensor) -> None:
        """Make centers of inputs the points, unless the decoder is frozen at its random start.

        Raises:
            SAEError: fewer inputs than points.
        """
        if self.config.frozen == "decoder":
            return
        x = x[: self.examples]
        if len(x) < len(self.points):
            raise SAEError(f"points={len(self.points)}: there are {len(x)} inputs to take them from")
        from sklearn.cluster import MiniBatchKMeans

        with warnings.catch_warnings():  # a fit that stops at its last iteration has centers all the same
            warnings.simplefilter("ignore")
            fit = MiniBatchKMeans(
                len(self.points), random_state=self.config.seed % 2**32, n_init=1, batch_size=4096, max_iter=20
            ).fit(x.float().cpu().numpy())
        self.points.copy_(torch.from_numpy(fit.cluster_centers_))
        self.constrain()
        if self.config.frozen is None:
            self.encoder.copy_(self.decoder)

    def project_gradients(self) -> None:
        """Pass the decoder's gradient on to what its rows are made of: `d row / d atom` is one over its length."""
        gradient = self.decoder.grad
        super().project_gradients()
        self.decoder.grad = None
        if gradient is None or self.config.frozen == "decoder":
            return
        with torch.no_grad():
            to_atoms = gradient / self.lengths
            self.mixture.grad = to_atoms @ self.points.T
            self.deviation.grad = to_atoms if self.config.relaxation else None

    @torch.no_grad()
    def constrain(self) -> None:
        self.mixture.copy_(on_simplex(self.mixture))
        combined = self.mixture @ self.points
        most = self.config.relaxation * combined.norm(dim=1, keepdim=True)
        lengths = self.deviation.norm(dim=1, keepdim=True)
        self.deviation.mul_((most / lengths.clamp_min(1e-12)).clamp_max(1.0))
        combined.add_(self.deviation)
        self.lengths.copy_(combined.norm(dim=1, keepdim=True).clamp_min(1e-12))
        self.decoder.copy_(combined / self.lengths)

    @torch.no_grad()
    def folded(self) -> ArchetypalSAE:
        same = super().folded()
        same.points.copy_(self.mean + self.points / self.scale)
        same.deviation.copy_(self.deviation / self.scale)
        same.lengths.copy_(self.lengths / self.scale)
        return same


def on_simplex(rows: Tensor) -> Tensor:
    """The nearest points of the simplex (zero or above, with a sum of one) to `rows` `(m, n)`.

    They are `max(0, rows - t)`, with the t of each row at which the sum is one: Newton's method on a convex function
    that falls, from below, which gets there in finitely many steps (Michelot 1986). A projection, unlike a division by
    the sum, makes small entries zero, so that a combination is of few points.

    >>> on_simplex(torch.tensor([[0.9, 0.3, -2.0]]))
    tensor([[0.8000, 0.2000, 0.0000]])
    """
    t = torch.maximum(rows.mean(dim=1, keepdim=True) - 1 / rows.shape[1], rows.amax(dim=1, keepdim=True) - 1)
    for _ in range(NEWTON):
        above = (rows - t).relu_()
        excess = above.sum(dim=1, keepdim=True) - 1
        if float(excess.max()) < 1e-6:
            break
        t = t + excess / above.sign_().sum(dim=1, keepdim=True)
    return (rows - t).relu_()
