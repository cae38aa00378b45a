"""The sign rule: weights between detectors of two layers follow the angle between their preferred orientations.

In InceptionV1 curve detectors are excited by earlier curve detectors of the same orientation and inhibited by those of
the opposite one (Cammarata et al., *Curve Circuits*, Distill 2021). Here this is one number: the correlation of the
summed expanded weight with the cosine of the angle between the two preferred orientations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from circuits.attribution.expanded_weights import expanded_weights
from circuits.common.provenance import provenance
from circuits.common.statistics import correlation, permutation_p
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.tuning.detectors.search import Detector
from zoo.common.checks import whole_number
from zoo.common.results import HIDDEN, Result


@dataclass(frozen=True, eq=False)
class SignRule(Result):
    """Weights between detectors against the angle between what they prefer.

    Attributes:
        sources, targets: addresses.
        angles: `(targets, sources)` degrees from the target's orientation to the source's, in [-period/2, period/2).
        weights: `(targets, sources)` expanded weights, summed over positions.
        correlation: of the weights with the cosine of the angle (of twice the angle for lines).
        shuffled: the same with the sources' orientations shuffled, one number a shuffle.
        p: share of shuffles that correlate at least as much, the real one counted among them.
        period: 360 or 180 degrees.
        provenance: digests, seed, versions.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    angles: NDArray[np.float64]
    weights: NDArray[np.float64]
    correlation: float
    shuffled: NDArray[np.float64] = field(metadata=HIDDEN)
    p: float
    period: float = field(metadata=HIDDEN)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def mean(self, low: float, high: float) -> float:
        """Mean weight of the pairs whose angle, whatever its sign, lies in [low, high) degrees; NaN without any."""
        size = np.abs(self.angles)
        chosen = self.weights[(size >= low) & (size < high)]
        return float(chosen.mean()) if chosen.size else math.nan

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        level = float(np.quantile(self.shuffled, 0.95))
        return super().describe() | {"angles": self.angles.round(3).tolist(), "shuffled_95": level}


def sign_rule(
    model: Model,
    sources: Sequence[Detector],
    targets: Sequence[Detector],
    *,
    period: float = 360.0,
    shuffles: int = 2000,
    seed: int = 0,
) -> SignRule:
    """Correlation of the weights between two families of detectors with the cosine of the angle between them.

    Args:
        model: the model that they are from.
        sources: detectors of an earlier layer, for example `detectors.of("mixed3a")`; at least 3.
        targets: detectors of a later layer, at least 2.
        period: of their orientations.
        shuffles: how often the sources' orientations are shuffled, for the control.
        seed: of the shuffles.

    Raises:
        CircuitsError: too few detectors, or detectors of several layers. GraphError: no path between the layers.
    """
    if len(sources) < 3 or len(targets) < 2:
        raise CircuitsError(
            f"the sign rule needs at least 3 detectors below and 2 above; got {len(sources)} and {len(targets)}"
        )
    whole_number("shuffles", shuffles)
    below, above = [model.unit(d.unit) for d in sources], [model.unit(d.unit) for d in targets]
    layers = {u.layer for u in below}
    if len(layers) != 1:
        raise CircuitsError(f"the sources of a sign rule are of one layer; got {', '.join(sorted(layers))}")
    weights = summed_weights(model, below, above)
    first, second = (np.array([d.orientation for d in side]) for side in (sources, targets))
    angles = (first[None, :] - second[:, None] + period / 2) % period - period / 2
    turn = 2 * math.pi / period
    observed = correlation(np.cos(turn * angles), weights)
    rng = np.random.default_rng(seed)
    shuffled = np.array(
        [
            correlation(np.cos(turn * (first[rng.permutation(len(first))][None, :] - second[:, None])), weights)
            for _ in range(shuffles)
        ]
    )
    return SignRule(
        sources=tuple(str(u) for u in below),
        targets=tuple(str(u) for u in above),
        angles=angles,
        weights=weights,
        correlation=observed,
        shuffled=shuffled,
        p=permutation_p(observed, shuffled),
        period=period,
        provenance=provenance(weights=model.digest, model=model.name, shuffles=shuffles, seed=seed),
    )


def summed_weights(model: Model, sources: Sequence[Unit], targets: Sequence[Unit]) -> NDArray[np.float64]:
    """Expanded weights between units, summed over positions, `(targets, sources)`."""
    with torch.no_grad():
        weights = expanded_weights(model, source=sources[0].layer, target=list(targets))
    chosen = weights.summed[:, [u.index or 0 for u in sources]]
    return np.asarray(chosen.detach().cpu().double().numpy())
