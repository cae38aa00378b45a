"""Trained toy models, one by one or the best of each setting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from sae.superposition.interference import dimensions_per_feature, feature_dimensionality, interference
from sae.superposition.polytopes import Polytope, polytopes
from sae.superposition.toy.toy_models import ToyError, ToyModel
from zoo.common.results import Result

REPRESENTED = 0.5
"""Length from which a feature counts as represented: lengths of trained features lie near 1 or near 0."""
DEDICATED = 0.9
"""Dimensionality from which a feature counts as having a dimension of its own."""

Role = Literal["dedicated", "shared", "ignored"]


@dataclass(frozen=True, eq=False)
class Solution:
    """A trained toy model.

    Attributes:
        model: its definition.
        weights: `(m, n)`: W, one column per feature.
        decoder: `(n, m)`: weights of each output, W transposed except for kind "absolute".
        bias: `(n,)`.
        loss: on held-out examples.
    """

    model: ToyModel
    weights: Tensor
    decoder: Tensor
    bias: Tensor
    loss: float

    @property
    def directions(self) -> Tensor:
        """The directions of features, one per row: `(n, m)`."""
        return self.weights.T

    @property
    def gram(self) -> Tensor:
        """Weight from feature j (column) to output i (row), without ReLU and bias: `W^T W`, `(n, n)`."""
        return self.decoder @ self.weights

    @property
    def norms(self) -> Tensor:
        """Length of each feature's direction, `(n,)`: near 1 represented, near 0 not."""
        lengths: Tensor = self.weights.norm(dim=0)
        return lengths

    @property
    def dimensionality(self) -> Tensor:
        """`D_i` of each feature, `(n,)`: see `feature_dimensionality`."""
        return feature_dimensionality(self.directions)

    @property
    def interference(self) -> Tensor:
        """Interference of the other features with each, `(n,)`."""
        return interference(self.directions)

    @property
    def dimensions_per_feature(self) -> float:
        """`D* = m / |W|_F^2`."""
        return float(dimensions_per_feature(self.directions))

    @property
    def represented(self) -> int:
        """Number of represented features: those with a direction longer than 0.5."""
        return int((self.norms > REPRESENTED).sum())

    @property
    def polytopes(self) -> list[Polytope]:
        """The solids that represented features form: see `sae.superposition.polytopes`."""
        return polytopes(self.directions, least_norm=REPRESENTED)

    def roles(self) -> tuple[Role, ...]:
        """By feature: has a dimension of its own, shares, or is ignored. The most important tend to come first."""
        roles: list[Role] = []
        for norm, dims in zip(self.norms.tolist(), self.dimensionality.tolist(), strict=True):
            roles.append("ignored" if norm <= REPRESENTED else "dedicated" if dims >= DEDICATED else "shared")
        return tuple(roles)

    def hidden(self, x: Tensor) -> Tensor:
        """The hidden layer `(..., m)` for features `(..., n)`."""
        hidden = x @ self.weights.T.to(x)
        return hidden.relu() if self.model.kind in ("absolute", "privileged") else hidden

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs `(..., n)` for features `(..., n)`."""
        output = self.hidden(x) @ self.decoder.T.to(x) + self.bias.to(x)
        return output if self.model.kind == "linear" else output.relu()

    def describe(self) -> dict[str, Any]:
        """The solution's numbers, ready for JSON."""
        return {
            **self.model.describe(),
            "loss": self.loss,
            "represented": self.represented,
            "dimensions_per_feature": self.dimensions_per_feature,
            "norms": self.norms.tolist(),
            "dimensionality": self.dimensionality.tolist(),
            "interference": self.interference.tolist(),
            "roles": dict(Counter(self.roles())),
            "polytopes": [p.describe() for p in self.polytopes],
        }


@dataclass(frozen=True, eq=False)
class Trained(Result):
    """All models of a sweep, trained. `trained[i]` is one as a `Solution`; smaller models are padded with zeros.

    Attributes:
        models: their definitions, in the given order (B of them).
        encoders: `(B, m, n)`; decoders: `(B, n, m)`; biases: `(B, n)`.
        losses: `(B,)` on 32,768 held-out examples, the same for models of one law.
        steps: `(T,)` at which the training was recorded.
        loss_history: `(T, B)`; encoder_history: `(T, B, m, n)`.
        provenance: settings, seeds, versions.
    """

    models: tuple[ToyModel, ...]
    encoders: Tensor
    decoders: Tensor
    biases: Tensor
    losses: Tensor
    steps: tuple[int, ...]
    loss_history: Tensor
    encoder_history: Tensor
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.models)

    def __getitem__(self, index: int) -> Solution:
        model = self.models[index]
        n, m = model.features, model.hidden
        return Solution(
            model,
            self.encoders[index, :m, :n],
            self.decoders[index, :n, :m],
            self.biases[index, :n],
            float(self.losses[index]),
        )

    def __iter__(self) -> Iterator[Solution]:
        return (self[i] for i in range(len(self)))

    def history(self, index: int) -> tuple[Tensor, Tensor]:
        """One model's losses `(T,)` and directions `(T, n, m)` during training."""
        model = self.models[index]
        return self.loss_history[:, index], self.encoder_history[:, index, : model.hidden, : model.features].mT

    def settings(self) -> dict[ToyModel, list[int]]:
        """The runs of each setting: models that differ in their seeds only."""
        runs: dict[ToyModel, list[int]] = {}
        for i, model in enumerate(self.models):
            runs.setdefault(model.setting, []).append(i)
        return runs

    def best(self) -> Trained:
        """The run of each setting with the least loss: some runs get stuck, and a setting is judged by its best."""
        chosen = [min(runs, key=lambda i: float(self.losses[i])) for runs in self.settings().values()]
        return self.pick(chosen)

    def pick(self, indices: list[int]) -> Trained:
        """Some of the models.

        Raises:
            ToyError: no index, or one out of range.
        """
        if not indices or not all(-len(self) <= i < len(self) for i in indices):
            raise ToyError(f"models are numbered 0 to {len(self) - 1}; asked for {indices[:5]}")
        at = torch.tensor(indices)
        return Trained(
            tuple(self.models[i] for i in indices),
            self.encoders[at],
            self.decoders[at],
            self.biases[at],
            self.losses[at],
            self.steps,
            self.loss_history[:, at],
            self.encoder_history[:, at],
            self.provenance,
        )

    def describe(self) -> dict[str, Any]:
        """The best run of each setting, and the losses of all its runs, ready for JSON."""
        best = iter(self.best())
        rows = [
            {**next(best).describe(), "losses": [float(self.losses[i]) for i in runs]}
            for runs in self.settings().values()
        ]
        return {"models": rows, "provenance": dict(self.provenance)}
