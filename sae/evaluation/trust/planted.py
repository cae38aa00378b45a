"""Absorption and splitting of features, where they can be known: in families of planted features.

A feature is *absorbed* when its latent is silent wherever a more special feature is active, whose latent then writes
both directions (Chanin et al. 2024, A is for Absorption, arXiv 2409.14507); it is *split* when it takes several latents
to detect it. In a network neither can be told from a feature that is not there; here parents and children are planted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.checks import whole
from sae.errors import SAEError
from sae.evaluation.controls.dictionary import Dictionary
from sae.seeding import CONTROL, generator
from zoo.common.checks import whole_number

LEVELS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
"""Shares of a latent's maximum, above which it counts as active; chosen on samples that are not scored."""
SEVERAL = 8
"""Latents at most that together detect a parent."""


@dataclass(frozen=True)
class Families:
    """A layer with planted families of features: a parent, and children that are active only with it, one at a time.

    Attributes:
        families, children: numbers of parents, and of the children of each.
        d: of the layer. With as many dimensions as features or more, directions are orthogonal, else random.
        parent: probability that a parent is active; child: that one of its children is, where the parent is.
        noise: standard deviation, in each dimension; strengths of features are uniform in .5 to 1.5.
        seed: of the directions.
    """

    families: int = 8
    children: int = 4
    d: int = 32
    parent: float = 0.15
    child: float = 0.8
    noise: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("families", "children", "d"):
            whole(name, getattr(self, name))
        if not (0 < self.parent < 1 and 0 < self.child < 1 and self.noise >= 0):
            raise SAEError(f"parent={self.parent} and child={self.child} lie between 0 and 1, noise={self.noise} above")

    @property
    def features(self) -> int:
        """Number of planted features, parents and children."""
        return self.families * (1 + self.children)

    @property
    def directions(self) -> Tensor:
        """`(features, d)`, of length one: a parent, its children, the next parent."""
        rows = torch.randn(max(self.features, self.d), self.d, generator=generator(self.seed, CONTROL, 3))
        if self.features <= self.d:
            rows = torch.linalg.qr(rows)[0]
        return F.normalize(rows[: self.features], dim=1)

    def sample(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Activations `(count, d)`, and the strengths of all features `(count, families, 1 + children)`."""
        random = generator(seed, CONTROL, 4)
        uniform = torch.rand(count, self.families, 3, generator=random)
        child = torch.where(uniform[..., 1] < self.child, (uniform[..., 2] * self.children).long(), -1)
        active = F.one_hot(child + 1, 1 + self.children)
        active[..., 0] = 1
        active *= (uniform[..., :1] < self.parent).long()
        strengths = active * (0.5 + torch.rand(active.shape, generator=random))
        noise = self.noise * torch.randn(count, self.d, generator=random)
        return strengths.flatten(1) @ self.directions + noise, strengths


@torch.no_grad()
def planted_metrics(
    dictionary: Dictionary, families: Families, *, count: int = 20_000, seed: int = 1
) -> dict[str, float]:
    """How a dictionary of planted families represents them: metric -> value, each 1 at best.

    - "planted recovery": the largest cosine of a latent's direction with a feature's, mean over features.
    - "unabsorbed": how often the latent of a parent is active where a child is, too, over how often it is where the
      parent is alone, at most 1; mean over parents. The latent of a parent is the one of the best F1 for the parent
      alone against neither. A parent without a latent counts 0: where none does better than one that is always active.
    - "unsplit": F1 of the best latent for a parent, over F1 of the best of up to 8 latents together (any active); mean,
      0 for a parent without a latent.

    Latents and levels of activity are chosen on one half of the samples, and scored on the other.

    Args:
        dictionary: an SAE or a control, of `families.d` channels.
        families: what is planted; count: samples, 1,000 at least; seed: of the samples.

    Raises:
        SAEError: fewer samples, on which few parents are ever alone.
    """
    whole_number("count", count, least=1000, error=SAEError)
    acts, strengths = families.sample(count, seed)
    latents = dictionary.encode(acts).cpu()
    half = count // 2
    present = strengths > 0
    parents, alone = present[..., 0], present[..., 0] & ~present[..., 1:].any(dim=2)
    high = latents[:half].amax(dim=0)
    active = torch.stack([latents > level * high for level in LEVELS])  # (levels, count, m)
    unabsorbed, unsplit = [], []
    for r in range(families.families):
        level, latent = _best(active[:, :half], alone[:half, r], alone[:half, r] | ~parents[:half, r])
        on = active[level, half:, latent] if level >= 0 else torch.zeros(count - half, dtype=torch.bool)
        recall = [float(on[rows].double().mean()) for rows in _cases(parents[half:, r], alone[half:, r])]
        unabsorbed.append(min(1.0, recall[1] / recall[0]) if recall[0] > 0 else 0.0)
        unsplit.append(_unsplit(active, parents[:, r], half))
    cosines = families.directions @ F.normalize(dictionary.write.float().cpu(), dim=1).T  # an opposite is no feature
    return {
        "planted recovery": float(cosines.amax(dim=1).mean()),
        "unabsorbed": sum(unabsorbed) / len(unabsorbed),
        "unsplit": sum(unsplit) / len(unsplit),
    }


def _cases(parent: Tensor, alone: Tensor) -> tuple[Tensor, Tensor]:
    """Samples on which the parent is alone, and on which a child is active, too."""
    return alone, parent & ~alone


def _f1(active: Tensor, truth: Tensor, rows: Tensor | None = None) -> Tensor:
    """F1 `(..., m)` of latents that are active `(..., n, m)`, over the samples `rows`."""
    some = active if rows is None else active & rows[:, None]
    hits = (some & truth[:, None]).sum(dim=-2).double()
    return 2 * hits / (some.sum(dim=-2) + truth.sum())


def _best(active: Tensor, truth: Tensor, rows: Tensor) -> tuple[int, int]:
    """Level and latent of the best F1; level -1 where none beats a latent that is always active."""
    scores = _f1(active, truth, rows)
    if float(scores.max()) <= _always(truth[rows]):
        return -1, -1
    return divmod(int(scores.argmax()), scores.shape[1])


def _always(truth: Tensor) -> float:
    """F1 of a latent that is always active: what a high base rate gives for nothing."""
    return float(_f1(torch.ones(len(truth), 1, dtype=torch.bool), truth))


def _unsplit(active: Tensor, truth: Tensor, half: int) -> float:
    levels = _f1(active[:, :half], truth[:half]).argmax(dim=0)
    on = active[levels, :, torch.arange(active.shape[2])].T  # (count, m), each latent at its own level
    first = scores = _f1(on[:half], truth[:half])
    if float(first.max()) <= _always(truth[:half]):
        return 0.0
    together, best = torch.zeros(len(on), dtype=torch.bool), -1.0
    for _ in range(SEVERAL):
        if float(scores.max()) <= best:
            break
        best, chosen = float(scores.max()), int(scores.argmax())
        together = together | on[:, chosen]
        scores = _f1(on[:half] | together[:half, None], truth[:half])
    pair = torch.stack([on[:, int(first.argmax())], together], dim=1)
    single, several = _f1(pair[half:], truth[half:]).tolist()
    return float(single / several) if several > 0 else 0.0
