"""Metrics of a dictionary, as plain functions on tensors, and one pass that accumulates them all.

Definitions, where the literature has several:

- FVU is the sum of squared errors over the sum of squared distances from the mean of the *data set*. The
  mean of each batch flatters small batches; a mean of per-batch ratios is another number.
- A latent is dead if it is silent on all of a stated number of samples.
- Shrinkage is the factor by which reconstructions about the mean are too short along the input: 1 for any
  least-squares fit, however incomplete, below 1 where an L1 penalty reduces latents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.architectures.base import SAE
from sae.checks import check_activations, whole
from sae.errors import SAEError
from sae.seeding import CONTROL, generator
from zoo.common.results import HIDDEN, Result

NEVER = -10.0
"""`log10_density` of a latent that never fired."""


def fvu(x: Tensor, reconstruction: Tensor, mean: Tensor | None = None) -> float:
    """Fraction of the variance of `x` `(N, d)` unexplained: 0 is perfect, 1 is as good as the mean.

    Args:
        mean: `(d,)` mean of the data set (default: of `x`, which must then be the whole data set).

    Raises:
        SAEError: other shapes, or inputs that are all the same.

    >>> x = torch.tensor([[0.0], [2.0]]); fvu(x, torch.ones(2, 1))
    1.0
    """
    _same(x, reconstruction)
    x, reconstruction = x.double(), reconstruction.double()
    total = (x - (x.mean(dim=0) if mean is None else mean.double())).square().sum()
    if not float(total) > 0:
        raise SAEError(f"the {len(x)} inputs do not differ from their mean: no variance to explain")
    return float((x - reconstruction).square().sum() / total)


def explained_variance(x: Tensor, reconstruction: Tensor, mean: Tensor | None = None) -> float:
    """One minus `fvu`."""
    return 1 - fvu(x, reconstruction, mean)


def l0(latents: Tensor) -> float:
    """Mean number of active latents per input, of `(N, m)`."""
    return float((latents != 0).sum(dim=1).double().mean())


def density(latents: Tensor) -> Tensor:
    """Share of inputs on which each latent is active: `(N, m)` -> `(m,)`."""
    return (latents != 0).double().mean(dim=0)


def dead_fraction(density: Tensor) -> float:
    """Share of latents that never fired, given their `density` `(m,)` over as many samples as it was counted on."""
    return float((density == 0).double().mean())


def density_histogram(density: Tensor, bins: int = 40, low: float = NEVER, high: float = 0.0) -> tuple[Tensor, Tensor]:
    """Histogram of `log10_density`: counts `(bins,)` and edges `(bins + 1,)`; every latent is counted."""
    counts, edges = torch.histogram(log10_density(density).cpu().clamp(low, high), bins=bins, range=(low, high))
    return counts.long(), edges


def cosine(x: Tensor, reconstruction: Tensor) -> float:
    """Mean cosine between inputs and reconstructions `(N, d)`, as they are (not centered)."""
    _same(x, reconstruction)
    return float(F.cosine_similarity(x.double(), reconstruction.double(), dim=1).mean())


def shrinkage(x: Tensor, reconstruction: Tensor, mean: Tensor | None = None) -> float:
    """`E|y|^2 / E[x y]` of inputs x and reconstructions y about the mean: 1 is none, below 1 latents are too weak.

    Source: the relative reconstruction bias of Rajamanoharan et al. 2024 (arXiv 2404.16014).
    """
    _same(x, reconstruction)
    mean = x.double().mean(dim=0) if mean is None else mean.double()
    a, b = x.double() - mean, reconstruction.double() - mean
    return _ratio(float(b.square().sum()), float((a * b).sum()))


def _ratio(a: float, b: float) -> float:
    return a / b if b else float("nan")


def mmcs(learned: Tensor, true: Tensor) -> float:
    """Mean over known features of the largest `|cosine|` with any learned one: `(m, d)`, `(G, d)`.

    With random directions it is far above zero (.45 for m=128, G=64, d=32): see `random_mmcs`.
    Source: Sharkey et al., Taking features out of superposition, 2022.

    >>> mmcs(torch.eye(3), -torch.eye(3)[:2])
    1.0
    """
    return float(_cosines(true, learned).abs().amax(dim=1).mean())


def recovered(learned: Tensor, true: Tensor, above: float = 0.9) -> float:
    """Share of known features with a learned one at `|cosine|` above `above`."""
    return float((_cosines(true, learned).abs().amax(dim=1) > above).double().mean())


def random_mmcs(m: int, true: Tensor, seed: int = 0) -> float:
    """`mmcs` of m random directions: the control."""
    return mmcs(torch.randn(m, true.shape[1], generator=generator(seed, CONTROL)).to(true), true)


def matched_cosine(a: Tensor, b: Tensor) -> float:
    """Mean cosine of the best one-to-one matching (Hungarian) of two dictionaries' directions.

    Between two seeds it is the stability of a dictionary (Fel et al., Archetypal SAE, 2025): 1 when both have the same
    features in any order. Of unequal sizes, all directions of the smaller are matched.

    >>> matched_cosine(torch.eye(3), torch.eye(3)[[2, 0, 1]])
    1.0
    """
    from scipy.optimize import linear_sum_assignment

    similarity = _cosines(a, b).numpy()
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    return float(similarity[rows, columns].mean())


def stability(dictionaries: Iterable[SAE | Tensor]) -> float:
    """Mean `matched_cosine` over all pairs of dictionaries, trained with different seeds."""
    directions = [d.write if isinstance(d, SAE) else d for d in dictionaries]
    if len(directions) < 2:
        raise SAEError("stability compares two dictionaries or more")
    pairs = [matched_cosine(a, b) for i, a in enumerate(directions) for b in directions[i + 1 :]]
    return sum(pairs) / len(pairs)


@torch.no_grad()
def _cosines(a: Tensor, b: Tensor) -> Tensor:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise SAEError(f"two dictionaries are (m, d) and (n, d); got {tuple(a.shape)} and {tuple(b.shape)}")
    return F.normalize(a.double().cpu(), dim=1) @ F.normalize(b.double().cpu(), dim=1).T


def _same(x: Tensor, reconstruction: Tensor) -> None:
    if x.shape != reconstruction.shape or x.ndim != 2:
        raise SAEError(f"inputs {tuple(x.shape)} and reconstructions {tuple(reconstruction.shape)} are not both (N, d)")


# -- one pass over data that do not fit -----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Reconstruction(Result):
    """How a dictionary reconstructs a data set.

    Attributes:
        name: of the dictionary; samples: number of inputs.
        fvu, l0, cosine, shrinkage, dead: see the functions of those names (`dead` over `samples`).
        density: `(m,)` share of inputs on which each latent is active.
        errors, variances: `(d,)` sums over the inputs, per dimension: of squared errors and of squared distances from
            the mean.
        baselines: the same for the channel and the random dictionary, if measured.
    """

    name: str
    samples: int
    fvu: float
    l0: float
    cosine: float
    shrinkage: float
    dead: float
    density: Tensor = field(metadata=HIDDEN)
    errors: Tensor = field(metadata=HIDDEN)
    variances: Tensor = field(metadata=HIDDEN)
    baselines: Mapping[str, Reconstruction] = field(default_factory=dict)

    def fvu_of(self, dimensions: slice) -> float:
        """FVU of some dimensions only, a branch of a layer for example; NaN where they never vary."""
        return _ratio(float(self.errors[dimensions].sum()), float(self.variances[dimensions].sum()))

    def describe(self) -> dict[str, Any]:
        """The numbers as JSON, with a histogram for the densities."""
        counts, edges = density_histogram(self.density)
        histogram = {"counts": counts.tolist(), "edges": [round(e, 4) for e in edges.tolist()]}
        return super().describe() | {"explained_variance": 1 - self.fvu, "log10_density": histogram}


class Tally:
    """Accumulates a `Reconstruction` batch by batch; the result does not depend on the batches.

    >>> tally = Tally("an SAE")
    >>> tally.add(torch.tensor([[0.0], [2.0]]), torch.ones(2, 1), torch.tensor([2, 2, 0]))
    >>> tally.result().fvu
    1.0
    """

    def __init__(self, name: str) -> None:
        self.name, self.samples = name, 0
        self._shift = self._x = self._y = self._fired = self._errors = self._xx = torch.zeros(0, dtype=torch.float64)
        # sums of: active latents, cosines, |y|^2, x y, the last two about the shift
        self._totals = torch.zeros(4, dtype=torch.float64)

    def add(self, x: Tensor, reconstruction: Tensor, fired: Tensor) -> None:
        """Add inputs and reconstructions `(n, d)`, and the number of inputs on which each latent is active, `(m,)`."""
        _same(x, reconstruction)
        x, y, fired = x.detach().double().cpu(), reconstruction.detach().double().cpu(), fired.cpu()
        if not self.samples:  # squares about the first batch's mean lose no digits to cancellation
            self._shift = x.mean(dim=0)
            self._x, self._y, self._errors, self._xx = (torch.zeros_like(self._shift) for _ in range(4))
            self._fired = torch.zeros(len(fired), dtype=torch.float64)
        a, b = x - self._shift, y - self._shift
        self.samples += len(x)
        self._x += a.sum(dim=0)
        self._y += b.sum(dim=0)
        self._errors += (x - y).square().sum(dim=0)
        self._xx += a.square().sum(dim=0)
        self._fired += fired
        cosines = F.cosine_similarity(x, y, dim=1).sum()
        self._totals += torch.stack([fired.sum().double(), cosines, b.square().sum(), (a * b).sum()])

    @property
    def mean(self) -> Tensor:
        """Mean `(d,)` of the inputs counted."""
        return self._shift + self._x / self.samples

    def result(self, mean: Tensor | None = None) -> Reconstruction:
        """The counts as numbers; `mean` `(d,)` of the data set, if it is not that of the inputs counted.

        Raises:
            SAEError: nothing was counted, or all inputs are the same.
        """
        if not self.samples:
            raise SAEError("no activations: nothing was counted")
        n = self.samples
        # Sums were taken about the shift c; about the mean c + by they are sum |x - c|^2 - 2 by sum (x - c) + n |by|^2,
        # and the like for y and for x y: one pass, whatever mean is asked for.
        by = (self.mean if mean is None else mean.double().cpu()) - self._shift
        active, cosines, yy, xy = self._totals
        about = n * by.square().sum()
        variances = self._xx - 2 * by * self._x + n * by.square()
        variance = float(variances.sum())
        if not variance > 1e-24 * float(self._xx.sum() + about):
            raise SAEError(f"the {n} inputs do not differ from their mean: no variance to explain")
        yy, xy = yy - 2 * by @ self._y + about, xy - by @ (self._x + self._y) + about
        share = self._fired / n
        return Reconstruction(
            name=self.name,
            samples=n,
            fvu=float(self._errors.sum()) / variance,
            l0=float(active) / n,
            cosine=float(cosines) / n,
            shrinkage=_ratio(float(yy), float(xy)),
            dead=dead_fraction(share),
            density=share,
            errors=self._errors.clone(),
            variances=variances,
        )


def reconstruction(
    sae: SAE,
    acts: Tensor | Iterable[Tensor],
    *,
    mean: Tensor | None = None,
    baselines: bool = True,
    batch_size: int = 4096,
    seed: int = 0,
    name: str | None = None,
    widths: tuple[int, int] | None = None,
) -> Reconstruction:
    """How well an SAE reconstructs raw activations, beside channels and random directions at equal L0.

    Args:
        sae: the SAE.
        acts: `(N, d)`, or batches of it. Batches are read twice with `baselines`, so a one-way iterator is refused.
        mean: `(d,)` mean of the data set that variance is taken about (default: of `acts`).
        baselines: measure the channel and the random dictionary, too (`sae.evaluation.baselines`).
        batch_size: inputs at a time, of one tensor.
        seed: of the random dictionary.
        name: default the architecture's.
        widths: of a transcoder's inputs and targets, which `acts` then has side by side, `(N, d + d_out)`. It has no
            baselines here: those of `evaluate` see its block.

    Raises:
        SAEError: activations that cannot be encoded, empty or all the same.

    >>> reconstruction(s, acts).baselines["channels"].fvu  # doctest: +SKIP
    0.61
    """
    from sae.evaluation.baselines import ChannelDictionary, RandomDictionary

    if (widths is not None) != sae.transcodes or (widths is not None and widths != (sae.d, sae.d_out)):
        raise SAEError(f"a transcoder is measured on pairs: widths= is (d, d_out), not {widths}, of {sae!r}")
    baselines = baselines and widths is None
    if not isinstance(acts, Tensor) and iter(acts) is acts and baselines:
        raise SAEError("baselines read the activations twice: give a tensor or a list, or baselines=False")
    own = Tally(name or sae.config.title)
    for batch in _batches(acts, batch_size):
        with torch.no_grad():
            if widths is None:
                own.add(batch, *sae.reconstruct(batch))
            else:
                x, y = torch.split(batch, list(widths), dim=1)
                own.add(y, *sae.reconstruct(x))
    result = own.result(mean)
    if not baselines:
        return result
    k = max(1, round(result.l0))
    center = own.mean.float()
    dictionaries: list[ChannelDictionary | RandomDictionary] = [
        ChannelDictionary(center, k),
        RandomDictionary(center, sae.latents, k, seed),
    ]
    tallies = [Tally(dictionary.name) for dictionary in dictionaries]
    for batch in _batches(acts, batch_size):
        for dictionary, tally in zip(dictionaries, tallies, strict=True):
            tally.add(batch, *dictionary.reconstruct(batch))
    return replace(result, baselines={tally.name: tally.result(mean) for tally in tallies})


def _batches(acts: Tensor | Iterable[Tensor], size: int) -> Iterable[Tensor]:
    whole("batch_size", size)
    return torch.split(check_activations(acts), size) if isinstance(acts, Tensor) else acts


def log10_density(density: Tensor) -> Tensor:
    """`log10` of densities `(m,)`, -10 for latents that never fired."""
    return torch.where(density > 0, density.clamp_min(1e-300).double().log10(), NEVER)
