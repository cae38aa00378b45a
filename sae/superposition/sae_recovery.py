"""Do sparse autoencoders recover the features of a toy model from its hidden layer? By density, beside controls.

Expectations for a hidden layer `h = W x`, whose features x are independent, zero or uniform in 0..1:

- Sparsity distinguishes features from mixtures only if features are sparser than mixtures. By the central limit theorem
  a sum is closer to normal than its terms. A feature of density p has `excess_kurtosis(p)`, positive below p = .41.
  Denser features are *less* sparse than mixtures of them: dictionaries then learn mixtures, and may score below random
  directions.
- With as many active latents as hidden dimensions any directions reconstruct everything: a good reconstruction is then
  no evidence for features. A dictionary needs about as many active latents as there are active features; with fewer
  its latents are mixtures.
- Latents are not negative, so an antipodal pair, one line to PCA, is two directions to an SAE.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from circuits.common.provenance import provenance
from sae.architectures.base import SAEConfig
from sae.architectures.relu import ReLU
from sae.architectures.topk import TopK
from sae.errors import TrainingError
from sae.evaluation.metrics import reconstruction
from sae.superposition.interference import directions_of
from sae.superposition.toy.feature_sampler import sample
from sae.superposition.toy.results import REPRESENTED, Solution
from sae.superposition.toy.toy_models import ToyError, ToyModel, decaying
from sae.superposition.toy.train import train
from sae.training.train import Run, train as train_dictionaries
from zoo.common.results import Result
from zoo.progress import Progress, reporter

CONTROLS = ("random directions", "hidden axes", "no features")
"""As many random directions as latents; the axes of the hidden layer, in both directions; an SAE trained on vectors
without features: normal vectors with the mean and covariance of the hidden layer."""
ABOVE = 0.9
"""Cosine from which a feature counts as recovered."""
_EVALUATED = 16_384
_BLOCK = 16  # batches that a stream samples at a time


def excess_kurtosis(density: float) -> float:
    """Excess kurtosis of a feature that is uniform in 0..1 with probability `density`, else 0; below 0 is not sparse.

    The moments about the mean follow from `E x^k = p / (k + 1)`: the variance is p/3 - p^2/4, the fourth central moment
    p/5 - p^2/2 + p^3/2 - 3 p^4/16.

    >>> round(excess_kurtosis(1.0), 6), excess_kurtosis(0.4) > 0 > excess_kurtosis(0.42)
    (-1.2, True)
    """
    if not 0 < density <= 1:
        raise ToyError(f"density={density}: above 0 and at most 1")
    p = density
    variance = p / 3 - p**2 / 4
    fourth = p / 5 - p**2 / 2 + p**3 / 2 - 3 * p**4 / 16
    return fourth / variance**2 - 3


def feature_cosines(learned: Tensor, true: Tensor) -> Tensor:
    """The largest signed cosine of each true direction `(G, d)` with a learned one `(m, d)`: `(G,)`.

    Neither latents nor features are negative, so the opposite direction does not recover a feature.

    >>> feature_cosines(torch.eye(2), torch.tensor([[2.0, 0.0], [-1.0, 0.0]]))
    tensor([1., 0.], dtype=torch.float64)
    """
    rows, features = directions_of(learned), directions_of(true)
    if rows.ndim != 2 or features.ndim != 2 or rows.shape[1] != features.shape[1]:
        raise ToyError(f"directions (m, d) and (G, d) of one space; got {tuple(rows.shape)}, {tuple(features.shape)}")
    cosines: Tensor = (F.normalize(features, dim=1) @ F.normalize(rows, dim=1).T).amax(dim=1)
    return cosines


class HiddenStream:
    """A toy model's hidden layer on an endless sequence of new examples, a `sae.Stream`.

    Args:
        solution: the model.
        batch_size: vectors of a batch.
        seed: of the examples, which differ from those that any toy model was trained on.
        normal: replace them by normal vectors of the same mean and covariance: a layer without features.

    >>> from sae.superposition import grid, train
    >>> stream = HiddenStream(train(grid(5, 2), steps=5)[0], batch_size=8)
    >>> next(stream).shape
    torch.Size([8, 2])
    """

    def __init__(self, solution: Solution, batch_size: int = 512, seed: int = 0, *, normal: bool = False) -> None:
        if batch_size < 1 or seed < 0:
            raise ToyError(f"batch_size={batch_size} is at least 1, seed={seed} at least 0")
        self.solution, self.batch_size, self.seed, self.normal = solution, batch_size, seed, normal
        self.at = 0
        self.metadata = {"toy_model": solution.model.describe(), "normal": normal}
        rows = solution.weights.double().cpu().numpy().tobytes()
        self.digest = hashlib.sha256(rows + repr((solution.model, batch_size, seed, normal)).encode()).hexdigest()
        self._batches: tuple[int, Tensor] | None = None
        self._shape: tuple[Tensor, Tensor] | None = None
        if normal:
            hidden = solution.hidden(sample(solution.model, 4 * _EVALUATED, seed=self._seed(0, 1))).double()
            centered = hidden - hidden.mean(dim=0)
            values, axes = torch.linalg.eigh(centered.T @ centered / len(hidden))
            self._shape = (hidden.mean(dim=0), values.clamp_min(0).sqrt() * axes)

    def _seed(self, block: int, which: int = 0) -> int:
        return int(np.random.SeedSequence((self.seed, block, which)).generate_state(1, np.uint32)[0])

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tensor:
        """The next vectors `(batch_size, hidden)`."""
        block, row = divmod(self.at, _BLOCK)
        if self._batches is None or self._batches[0] != block:
            self._batches = (block, self._draw(block))
        self.at += 1
        return self._batches[1][row * self.batch_size : (row + 1) * self.batch_size]

    def _draw(self, block: int) -> Tensor:
        count, seed = _BLOCK * self.batch_size, self._seed(block)
        if self._shape is None:
            return self.solution.hidden(sample(self.solution.model, count, seed=seed))
        mean, axes = self._shape
        noise = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return (mean + noise @ axes.T).to(self.solution.weights.dtype)

    def tell(self) -> dict[str, Any]:
        """The position, as JSON."""
        return {"batch": self.at, "digest": self.digest}

    def seek(self, position: Mapping[str, Any]) -> None:
        """Go on from a position.

        Raises:
            TrainingError: of another stream.
        """
        if position.get("digest") != self.digest:
            raise TrainingError("the position belongs to a stream of another toy model, batch size or seed")
        self.at = int(position["batch"])


@dataclass(frozen=True, eq=False)
class Recovery(Result):
    """How well dictionaries recover the features of toy models.

    Axes: C dictionaries or controls, D densities, S toy models of each density (seeds).

    Attributes:
        features, hidden: of all toy models.
        densities: (D,); names: (C,) of the dictionaries; controls: names of the controls.
        represented: (D, S) number of features that a model represents; active: (D, S) mean number of these that are
            active at once.
        mmcs: (C, D, S) mean over represented features of the largest cosine with a latent, with its sign.
        recovered: (C, D, S) share of them above 0.9.
        fvu, l0, dead: (C, D, S) of the reconstruction of held-out vectors.
        control_mmcs, control_recovered: (controls, D, S).
        active_latents: (C,) k of a TopK dictionary, None where a penalty sets the sparsity.
        provenance: settings, seeds, versions.
    """

    features: int
    hidden: int
    densities: tuple[float, ...]
    names: tuple[str, ...]
    active_latents: tuple[int | None, ...]
    represented: NDArray[np.int64]
    active: NDArray[np.float64]
    mmcs: NDArray[np.float64]
    recovered: NDArray[np.float64]
    fvu: NDArray[np.float64]
    l0: NDArray[np.float64]
    dead: NDArray[np.float64]
    controls: tuple[str, ...]
    control_mmcs: NDArray[np.float64]
    control_recovered: NDArray[np.float64]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kurtosis(self) -> tuple[float, ...]:
        """(D,) excess kurtosis of features: above 0 they are sparser than mixtures."""
        return tuple(excess_kurtosis(p) for p in self.densities)

    def describe(self) -> dict[str, Any]:
        """The numbers, ready for JSON: one row for each density and toy model, dictionaries beside controls."""
        rows = []
        for d, density in enumerate(self.densities):
            for s in range(self.represented.shape[1]):
                dictionaries = {
                    name: {
                        key: float(getattr(self, key)[c, d, s]) for key in ("mmcs", "recovered", "fvu", "l0", "dead")
                    }
                    for c, name in enumerate(self.names)
                }
                control = {
                    name: {
                        "mmcs": float(self.control_mmcs[c, d, s]), "recovered": float(self.control_recovered[c, d, s])
                    }
                    for c, name in enumerate(self.controls)
                }  # fmt: skip
                row = {"density": density, "seed": s, "represented": int(self.represented[d, s])}
                row |= {"active": float(self.active[d, s]), "excess_kurtosis": excess_kurtosis(density)}
                rows.append({**row, "dictionaries": dictionaries, "controls": control})
        return {"features": self.features, "hidden": self.hidden, "rows": rows, "provenance": dict(self.provenance)}


DICTIONARIES: tuple[SAEConfig, ...] = (
    TopK(latents=64, k=1),
    TopK(latents=64, k=2),
    TopK(latents=64, k=4),
    TopK(latents=64, k=8),
    ReLU(latents=64, l1=1.0),
    ReLU(latents=64, l1=4.0),
)
"""Dictionaries that `recovery` trains by default."""


def recovery(
    features: int = 64,
    hidden: int = 16,
    *,
    densities: Sequence[float] = (1.0, 0.7, 0.5, 0.35, 0.25, 0.1, 0.03, 0.01),
    importance: float = 0.95,
    dictionaries: Sequence[SAEConfig] = DICTIONARIES,
    seeds: int = 2,
    runs: int = 2,
    steps: int = 4000,
    sae_steps: int | None = None,
    batch: int = 512,
    lr: float = 3e-3,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: Progress = None,
) -> Recovery:
    """Train toy models, then dictionaries on the hidden layer of each, and compare their directions with the features.

    Args:
        features, hidden: of the toy models.
        densities: of all features, a model each.
        importance: of each feature relative to the one before.
        dictionaries: configurations of `sae.train`.
        seeds: number of toy models of each density, each the best of `runs`.
        steps: of the toy models' training; sae_steps: of the dictionaries' (default: a fifth of that).
        batch: vectors a step; lr: of the dictionaries.
        seed: first seed of weights, examples and dictionaries.
        device: of the toy models' training.
        progress: True for a bar, or a function of (done, total).

    Raises:
        ToyError: numbers out of range, or a toy model that represents nothing.
        SAEError: dictionaries that cannot be trained.
    """
    configs, levels = list(dictionaries), tuple(map(float, densities))
    count = max(1, steps // 5) if sae_steps is None else sae_steps
    if not configs or not levels or seeds < 1 or runs < 1 or count < 1:
        raise ToyError(
            f"seeds={seeds}, runs={runs} and sae_steps={count} are at least 1, dictionaries and densities at least one"
        )
    models = [
        ToyModel(features, hidden, p, decaying(features, importance), seed=seed + s * runs + r, data_seed=seed + s)
        for s in range(seeds)
        for p in levels
        for r in range(runs)
    ]
    trained = train(models, steps=steps, batch=batch, lr=2e-3, records=2, device=device)
    shape = (len(levels), seeds)
    cells = [(d, s) for s in range(seeds) for d in range(len(levels))]
    tables = {n: np.zeros((len(configs), *shape)) for n in ("mmcs", "recovered", "fvu", "l0", "dead")}
    control = np.zeros((2, len(CONTROLS), *shape))
    represented, active = np.zeros(shape, np.int64), np.zeros(shape)
    latents, middle = max(config.latents for config in configs), configs[len(configs) // 2]
    trained_saes: list[Run] = []
    with reporter(progress, "toy model") as report:
        for i, (d, s) in enumerate(cells):
            own = list(range(i * runs, (i + 1) * runs))
            solution = trained[min(own, key=lambda j: float(trained.losses[j]))]
            true = solution.directions[solution.norms > REPRESENTED]
            if not len(true):
                raise ToyError(f"the toy model of density {levels[d]:g} represents no feature: train it for longer")
            represented[d, s], active[d, s] = len(true), levels[d] * len(true)
            settings: dict[str, Any] = {"steps": count, "lr": lr, "report_every": count}
            trained_saes = train_dictionaries(HiddenStream(solution, batch, seed + s), configs, **settings)
            normal = HiddenStream(solution, batch, seed + s, normal=True)
            (without_features,) = train_dictionaries(normal, middle, **settings)
            evaluated = solution.hidden(sample(solution.model, _EVALUATED, seed=2**31 + seed + s))
            for c, run in enumerate(trained_saes):
                quality = reconstruction(run.sae, evaluated, baselines=False)
                tables["mmcs"][c, d, s], tables["recovered"][c, d, s] = _scores(run.sae.write, true)
                tables["fvu"][c, d, s], tables["l0"][c, d, s] = quality.fvu, quality.l0
                tables["dead"][c, d, s] = quality.dead
            axes = torch.eye(hidden)
            random_rows = torch.randn(latents, hidden, generator=torch.Generator().manual_seed(seed + s))
            for c, rows in enumerate((random_rows, torch.cat([axes, -axes]), without_features.sae.write)):
                control[:, c, d, s] = _scores(rows, true)
            report(i + 1, len(cells))
    return Recovery(
        features,
        hidden,
        levels,
        names=tuple(run.name for run in trained_saes),
        active_latents=tuple(getattr(config, "k", None) for config in configs),
        represented=represented,
        active=active,
        **tables,
        controls=CONTROLS,
        control_mmcs=control[0],
        control_recovered=control[1],
        provenance=provenance(
            importance=importance, seeds=seeds, runs=runs, seed=seed, sae_steps=count, batch=batch, lr=lr,
            dictionaries=[c.to_dict() for c in configs], toy_models=dict(trained.provenance),
        ),
    )  # fmt: skip


def _scores(learned: Tensor, true: Tensor) -> tuple[float, float]:
    """Mean of the largest cosines, and the share of them above 0.9."""
    cosines = feature_cosines(learned, true)
    return float(cosines.mean()), float((cosines > ABOVE).double().mean())
