"""What a latent of a crosscoder writes in each source, measured again on vectors that were not trained on.

The length of a decoder row says that a latent is of one source alone. It may be wrong in two ways (Minder et al. 2025,
Overcoming Sparsity Artifacts in Crosscoders, arXiv 2504.02922). *Complete shrinkage*: the penalty pushed the row of
the other source to zero although the latent is there, too, so that it stands in the error of that source. *Latent
decoupling*: other latents write it there. Both are measured by least squares on held-out vectors. All tensors are in
normalized units, in which every source has the same variance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.architectures.base import SAE
from sae.errors import SAEError

ROWS = 4096

EXCLUSIVE = 0.9
"""Share of a row's length in one source from which a latent is a candidate for that source alone (Lindsey et al.)."""


@dataclass(frozen=True, eq=False)
class LatentScaling:
    """Measures of the latents of a crosscoder of two sources on held-out vectors; all `(m,)`.

    Attributes:
        share: length of a latent's row in the first source, of the sum of both: 1 only the first, 0 only the second.
        shrinkage: what least squares would let a latent write in the source where its row is the shorter one, given the
            errors of the reconstruction, over the same in the other source. 0 where nothing is missing. Paired halves
            of the vectors are multiplied, so that noise adds nothing on average.
        decoupling: how much of its longer direction goes with the latent in the other source's reconstruction, over the
            same in its own, as the nu of the reconstruction in the paper. NaN of sources of different widths.
        twin: the latent that writes in the other source and goes with it most; twin_correlation: of the two.
        density: share of vectors on which it is active; size: its root mean square times the length of its row.
        count: on how many vectors it is active.
        cosine: median cosine of the two rows of latents with a share between .3 and .7; NaN of different widths. Only
            where it is high have the sources one basis, and does `decoupling` say something.
        fvu: unexplained share of the variance of each source, `(2,)`.
    """

    share: Tensor
    shrinkage: Tensor
    decoupling: Tensor
    twin: Tensor
    twin_correlation: Tensor
    density: Tensor
    size: Tensor
    count: Tensor
    cosine: float
    fvu: Tensor


@dataclass(eq=False)
class _Moments:
    """Sums over vectors, of one half of them."""

    n: int
    latents: Tensor
    products: Tensor
    errors: Tensor
    with_errors: Tensor
    squares: Tensor
    variance: Tensor
    active: Tensor


@torch.no_grad()
def latent_scaling(crosscoder: SAE, batches: Iterable[Sequence[Tensor]]) -> LatentScaling:
    """Measure a crosscoder of two sources on vectors that it was not trained on.

    Args:
        crosscoder: of two sources.
        batches: of raw vectors `(n, d)` and their latents `(n, m)`, which go to the two halves in turn: keep the
            vectors of an input together.

    Raises:
        SAEError: another number of sources, or fewer than two batches.
    """
    if crosscoder.config.kind != "crosscoder" or len(crosscoder.written) != 2:
        raise SAEError(f"latents are scaled between two sources; this has {len(crosscoder.written)}")
    halves: list[_Moments | None] = [None, None]
    for number, (vectors, codes) in enumerate(batches):
        for part in zip(torch.split(vectors, ROWS), torch.split(codes, ROWS), strict=True):
            halves[number % 2] = _added(halves[number % 2], _moments(crosscoder, *part))
    first, second = halves
    if first is None or second is None:
        raise SAEError("latents are measured on two halves of the vectors: give at least two batches")
    together = _added(first, second)
    decoder, width = crosscoder.decoder.double(), crosscoder.written[0]
    sources = (slice(None, width), slice(width, None))
    lengths = crosscoder.part_lengths().double()
    share = lengths[0] / lengths.sum(dim=0).clamp_min(1e-30)
    in_first = share >= 0.5
    # what the latent should write in each source: its row, and what of the error goes with it
    refits = [decoder + _slopes(half) for half in (first, second)]
    squared = torch.stack([(refits[0][:, s] * refits[1][:, s]).sum(dim=1).clamp_min(0) for s in sources])
    longer, shorter = _sides(squared, in_first)
    covariance = together.products / together.n - torch.outer(together.latents, together.latents) / together.n**2
    decoupling = torch.full_like(share, torch.nan)
    cosine = torch.nan
    if crosscoder.written[0] == crosscoder.written[1]:
        direction = torch.where(in_first[:, None], decoder[:, sources[0]], decoder[:, sources[1]])
        along = torch.stack([((covariance @ decoder[:, s]) * direction).sum(dim=1) for s in sources])
        own, other = _sides(along, in_first)
        decoupling = other / torch.where(own > 0, own, torch.nan)
        both = (share > 0.3) & (share < 0.7) & (together.active > 0)
        cosines = F.cosine_similarity(decoder[both][:, sources[0]], decoder[both][:, sources[1]], dim=1)
        cosine = float(cosines.median()) if len(cosines) else torch.nan
    twin, correlation = _twins(covariance, share, in_first)
    rms = (together.products.diagonal() / together.n).sqrt()
    return LatentScaling(
        share=share,
        shrinkage=(shorter / longer.clamp_min(1e-30)).sqrt(),
        decoupling=decoupling,
        twin=twin,
        twin_correlation=correlation,
        density=together.active.double() / together.n,
        size=rms * lengths.sum(dim=0),
        count=together.active,
        cosine=cosine,
        fvu=together.squares / together.variance,
    )


def _moments(crosscoder: SAE, acts: Tensor, codes: Tensor) -> _Moments:
    x, latents = crosscoder.normalize(acts).double(), codes.double()
    errors = x - latents @ crosscoder.decoder.double() - crosscoder.decoder_bias.double()
    parts = [torch.split(values.square().sum(dim=0), list(crosscoder.written)) for values in (errors, x)]
    squares, variance = (torch.stack([part.sum() for part in each]) for each in parts)
    return _Moments(
        len(x), latents.sum(dim=0), latents.T @ latents, errors.sum(dim=0), latents.T @ errors, squares, variance,
        (latents > 0).sum(dim=0),
    )  # fmt: skip


def _added(first: _Moments | None, second: _Moments) -> _Moments:
    if first is None:
        return second
    return _Moments(**{name: value + getattr(second, name) for name, value in vars(first).items()})


def _slopes(half: _Moments) -> Tensor:
    """Of the errors by each latent, `(m, d)`, with an intercept; zero of a latent that does not vary."""
    covariance = half.with_errors / half.n - torch.outer(half.latents, half.errors) / half.n**2
    variance = half.products.diagonal() / half.n - (half.latents / half.n).square()
    return torch.where(variance[:, None] > 1e-12, covariance / variance.clamp_min(1e-12)[:, None], 0.0)


def _sides(values: Tensor, in_first: Tensor) -> tuple[Tensor, Tensor]:
    """Of `(2, m)` values, those of the source where each latent is longer, and of the other."""
    own = torch.where(in_first, values[0], values[1])
    return own, torch.where(in_first, values[1], values[0])


def _twins(covariance: Tensor, share: Tensor, in_first: Tensor) -> tuple[Tensor, Tensor]:
    """For each latent the one that writes in the other source and correlates with it most, and the correlation."""
    deviations = covariance.diagonal().clamp_min(0).sqrt()
    correlations = covariance / torch.outer(deviations, deviations).clamp_min(1e-30)
    correlations.fill_diagonal_(-1.0)
    # a latent of the first source alone is decoupled by one that writes in the second, and the other way round
    writes = torch.where(in_first[:, None], (share < EXCLUSIVE)[None], (share > 1 - EXCLUSIVE)[None])
    best = correlations.masked_fill(~writes, -1.0).max(dim=1)
    return best.indices, best.values
