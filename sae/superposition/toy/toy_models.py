"""The definition of a toy model: numbers of features and dimensions, densities, importances, and kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from circuits.errors import CircuitsError, shorten
from zoo.common.checks import one_of, whole_number

Kind = Literal["relu", "linear", "absolute", "privileged"]
Sets: TypeAlias = tuple[tuple[int, ...], ...]
Importance: TypeAlias = float | Sequence[float]


class ToyError(CircuitsError):
    """A toy model, or a sweep of them, that cannot be built or trained."""


@dataclass(frozen=True)
class ToyModel:
    """One toy model of superposition: sparse features squeezed through a few hidden dimensions and back.

    Each feature is zero, or, with probability `density`, uniform between 0 and 1. The model is trained to lose as
    little as it can of `sum_i importance_i (target_i - output_i)^2`. By kind:

    - "relu": `output = ReLU(W^T W x + b)`, target `x`; the model that shows superposition;
    - "linear": the same without ReLU: it learns PCA, whatever the density;
    - "privileged": `ReLU(W^T ReLU(W x) + b)`: hidden dimensions are neurons, whose axes matter;
    - "absolute": `ReLU(V ReLU(W x) + b)`, target `|x|`, features uniform in -1..1: it computes in superposition.

    Attributes:
        features: n, their number; hidden: m, the number of hidden dimensions.
        density: probability that a feature is not zero, in (0, 1] (the paper's 1 - S); one number, or one a feature.
        importance: weight of each feature's error, at least 0; one number, or one a feature.
        kind: see above.
        correlated: sets of features that are always active together (with values of their own).
        exclusive: sets of features of which at most one is active at a time (anticorrelated).
        seed: of the initial weights.
        data_seed: of the examples; models with the same number see the same examples.

    Raises:
        ToyError: numbers out of range, or sets that overlap, name no feature, or mix densities.

    Elhage et al. 2022, Toy Models of Superposition, https://transformer-circuits.pub/2022/toy_model

    >>> ToyModel(features=5, hidden=2, density=0.05).importance
    (1.0, 1.0, 1.0, 1.0, 1.0)
    """

    features: int
    hidden: int
    density: float | tuple[float, ...] = 0.05
    importance: float | tuple[float, ...] = 1.0
    kind: Kind = "relu"
    correlated: Sets = ()
    exclusive: Sets = ()
    seed: int = 0
    data_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("features", "hidden"):
            whole_number(name, getattr(self, name), error=ToyError)
        for name in ("seed", "data_seed"):
            whole_number(name, getattr(self, name), least=0, most=2**32 - 1, error=ToyError)
        one_of("kind", self.kind, get_args(Kind), error=ToyError)
        density = _spread("density", self.density, self.features)
        if not all(0 < p <= 1 for p in density):
            raise ToyError("density is a probability above 0 and at most 1")
        importance = _spread("importance", self.importance, self.features)
        if not all(0 <= i < math.inf for i in importance) or not any(importance):
            raise ToyError("importances are finite, at least 0, and not all 0")
        object.__setattr__(self, "density", density)
        object.__setattr__(self, "importance", importance)
        object.__setattr__(self, "correlated", _sets(self.correlated))
        object.__setattr__(self, "exclusive", _sets(self.exclusive))
        self._check_sets(density)

    def _check_sets(self, density: tuple[float, ...]) -> None:
        members = [i for s in (*self.correlated, *self.exclusive) for i in s]
        if len(set(members)) < len(members):
            raise ToyError("a feature is in two sets (or twice in one): sets do not overlap")
        if outside := [i for i in members if not 0 <= i < self.features]:
            raise ToyError(f"a set names feature {outside[0]}; there are 0 to {self.features - 1}")
        for group in (*self.correlated, *self.exclusive):
            if len({density[i] for i in group}) > 1:
                raise ToyError(f"the features {group} of one set have one density")
        for group in self.exclusive:
            if len(group) * density[group[0]] > 1 + 1e-12:
                raise ToyError(
                    f"{len(group)} features of which one at a time is active have a density of at most "
                    f"1/{len(group)}, not {density[group[0]]:g}"
                )

    @property
    def densities(self) -> tuple[float, ...]:
        """The density of each feature."""
        return _spread("density", self.density, self.features)

    @property
    def importances(self) -> tuple[float, ...]:
        """The importance of each feature."""
        return _spread("importance", self.importance, self.features)

    @property
    def setting(self) -> ToyModel:
        """The model with both seeds 0: models that differ in nothing else are runs of one setting."""
        return replace(self, seed=0, data_seed=0)

    def describe(self) -> dict[str, Any]:
        """Ready for JSON; lists only where features differ."""
        entries: dict[str, Any] = {"features": self.features, "hidden": self.hidden, "kind": self.kind}
        for name, values in (("density", self.densities), ("importance", self.importances)):
            entries[name] = values[0] if len(set(values)) == 1 else list(values)
        if self.correlated or self.exclusive:
            entries |= {"correlated": self.correlated, "exclusive": self.exclusive}
        return {**entries, "seed": self.seed, "data_seed": self.data_seed}


def _spread(name: str, value: Any, count: int) -> tuple[float, ...]:
    """One number a feature."""
    try:
        values = (float(value),) * count if isinstance(value, (int, float)) else tuple(float(v) for v in value)
    except (TypeError, ValueError) as error:
        raise ToyError(f"{name}={shorten(value)}: a number, or one for each feature") from error
    if len(values) != count:
        raise ToyError(f"{len(values)} numbers of {name} for {count} features")
    return values


def _sets(sets: Any) -> Sets:
    try:
        groups = tuple(tuple(int(i) for i in group) for group in sets)
    except (TypeError, ValueError) as error:
        raise ToyError(f"sets of features are written like ((0, 1), (2, 3)), not {shorten(sets)}") from error
    if any(len(group) < 2 for group in groups):
        raise ToyError("a set has at least two features")
    return groups


def decaying(features: int, ratio: float) -> tuple[float, ...]:
    """Importances `ratio**i`: each feature matters `ratio` as much as the one before.

    >>> decaying(3, 0.5)
    (1.0, 0.5, 0.25)
    """
    if features < 1 or not 0 < ratio < math.inf:
        raise ToyError(f"decaying({features}, {ratio}): at least one feature, and a ratio above 0")
    return tuple(float(ratio) ** i for i in range(features))


def density_schedule(count: int, least: float = 0.01) -> tuple[float, ...]:
    """`count` densities from 1 down to `least`, each the same share of the one before.

    >>> density_schedule(3, 0.01)
    (1.0, 0.1, 0.01)
    """
    if count < 1 or not 0 < least <= 1:
        raise ToyError(f"density_schedule({count}, {least}): at least one, down to a number above 0 and at most 1")
    return tuple(round(least ** (i / max(1, count - 1)), 12) for i in range(count))


def grid(
    features: int | Sequence[int],
    hidden: int | Sequence[int],
    *,
    densities: float | Sequence[float] = (0.05,),
    seeds: int = 1,
    importance: Importance | Callable[[int], Importance] = 1.0,
    **options: Any,
) -> list[ToyModel]:
    """Models for every number of features, of hidden dimensions, density and seed, in that order; seeds last.

    Args:
        features, hidden: one number or several.
        densities: one or several.
        seeds: number of runs of each setting, with seeds 0, 1, ...
        importance: as in `ToyModel`, or a function of the number of features.
        options: further fields of `ToyModel`, the same for all.

    Raises:
        ToyError: as `ToyModel`; or nothing to train.

    >>> len(grid(5, 2, densities=density_schedule(10), seeds=4))
    40
    """
    sizes = [features] if isinstance(features, int) else list(features)
    widths = [hidden] if isinstance(hidden, int) else list(hidden)
    levels = [densities] if isinstance(densities, (int, float)) else list(densities)
    if seeds < 1 or not (sizes and widths and levels):
        raise ToyError("a grid has at least one size, one density and one seed")
    return [
        ToyModel(n, m, p, importance(n) if callable(importance) else importance, seed=s, **options)  # type: ignore[arg-type]
        for n in sizes
        for m in widths
        for p in levels
        for s in range(seeds)
    ]
