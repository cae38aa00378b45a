"""Superposition makes models vulnerable to adversarial examples (Elhage et al. 2022, "Adversarial Robustness").

Without superposition the model is the identity on represented features, and a change of the input appears unchanged in
the output. With superposition a change spread over many features adds up in the dimensions that they share: the gain
grows with the number of features per dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.common.statistics import correlation
from sae.superposition.toy.feature_sampler import sample
from sae.superposition.toy.results import Solution, Trained
from sae.superposition.toy.toy_models import ToyError, ToyModel
from zoo.common.results import Result
from zoo.progress import Progress, reporter

_DRAWS = 500


@dataclass(frozen=True, eq=False)
class Vulnerability(Result):
    """Gain of small changes of the input, in the worst direction and in a random one.

    Attributes:
        densities: (B,) of the models' features (the mean, where they differ).
        features_per_dimension: (B,) `|W|_F^2 / m`.
        attacked: (B,) mean over examples of the largest `|f(x + d) - f(x)| / |d|` reached; 1 without superposition.
        random: (B,) the same for random d of the same length: the control.
        radius: length of d.
        provenance: settings of the attack and of the training.
    """

    densities: tuple[float, ...]
    features_per_dimension: NDArray[np.float64]
    attacked: NDArray[np.float64]
    random: NDArray[np.float64]
    radius: float
    provenance: Mapping[str, Any] = field(default_factory=dict)
    described = ("correlation",)

    @property
    def correlation(self) -> float:
        """Of `attacked` with `features_per_dimension`, over models; NaN for fewer than three."""
        if len(self.attacked) < 3:
            return float("nan")
        return correlation(self.features_per_dimension, self.attacked, constant=float("nan"))


def vulnerability(
    trained: Trained,
    *,
    radius: float = 0.3,
    examples: int = 256,
    steps: int = 40,
    seed: int = 0,
    progress: Progress = None,
) -> Vulnerability:
    """Attack examples with at least one feature by projected gradient ascent in a ball, beside random changes.

    Args:
        trained: the models.
        radius: length of the change (L2), above 0; examples have entries up to 1. Much shorter changes do
            not exceed the negative biases of sparse models.
        examples: number from each model's own distribution.
        steps: of ascent; the largest gain of all steps counts.
        seed: of examples and changes.
        progress: True for a bar, or a function of (done, total).

    Raises:
        ToyError: numbers out of range.
    """
    if not radius > 0 or examples < 1 or steps < 1:
        raise ToyError(f"radius={radius} is above 0, examples={examples} and steps={steps} at least 1")
    gains = []
    with reporter(progress, "model") as report:
        for i, solution in enumerate(trained):
            gains.append(_gains(solution, radius, examples, steps, seed))
            report(i + 1, len(trained))
    weights = trained.encoders.double()
    per = weights.square().sum(dim=(1, 2)) / torch.tensor([m.hidden for m in trained.models])
    attacked, random = zip(*gains, strict=True)
    return Vulnerability(
        tuple(float(np.mean(m.densities)) for m in trained.models),
        per.numpy(),
        np.array(attacked),
        np.array(random),
        radius,
        provenance(radius=radius, examples=examples, steps=steps, seed=seed, training=dict(trained.provenance)),
    )


def _gains(solution: Solution, radius: float, examples: int, steps: int, seed: int) -> tuple[float, float]:
    x = _with_features(solution.model, examples, seed)
    generator = torch.Generator().manual_seed(seed)
    clean = solution(x)
    start = _onto(torch.randn(x.shape, generator=generator), radius)

    def change(step: Tensor) -> Tensor:
        moved: Tensor = (solution(x + step) - clean).norm(dim=1)
        return moved / radius

    random = change(start)
    best, step = random.clone(), start
    for k in range(steps):
        step = step.detach().requires_grad_()
        with torch.enable_grad():
            moved = change(step)
            (gradient,) = torch.autograd.grad(moved.sum(), step)
        best = torch.maximum(best, moved.detach())
        # steps shrink linearly from radius / 2, so that late ones refine the direction; each ends on the sphere
        step = _onto(step.detach() + radius * 0.5 * (1 - k / steps) * _onto(gradient, 1.0), radius)
    return float(torch.maximum(best, change(step)).mean()), float(random.mean())


def _with_features(model: ToyModel, count: int, seed: int) -> Tensor:
    """Examples with at least one feature: at x = 0 negative biases keep all outputs at 0, whatever the small change."""
    examples: list[Tensor] = []
    for k in range(_DRAWS):
        x = sample(model, 4 * count, seed=(seed + k) % 2**32)
        examples.append(x[(x != 0).any(dim=1)])
        if sum(map(len, examples)) >= count:
            return torch.cat(examples)[:count]
    raise ToyError(
        f"{_DRAWS * 4 * count} examples, {sum(map(len, examples))} of them with a feature: densities are too low"
    )


def _onto(steps: Tensor, radius: float) -> Tensor:
    lengths: Tensor = steps.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return steps * (radius / lengths)
