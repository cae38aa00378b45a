"""What high-low frequency detectors are made of: one factor of channels that like fine textures, one that like coarse.

After Schubert et al., *High-Low Frequency Detectors*, Distill 2021: a one-sided non-negative factorization of the
detectors' weights from the layer below finds two groups of channels with opposite weights to either side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits import stimuli
from circuits.attribution.expanded_weights import expanded_weights
from circuits.common.provenance import provenance
from circuits.common.statistics import permutation_p
from circuits.errors import CircuitsError
from circuits.network.model import Model
from circuits.stimuli.textures import FREQUENCIES
from circuits.tuning.detectors.search import Detector
from circuits.tuning.measure import tune
from circuits.units.weight_factors import one_sided_nmf
from zoo.common.results import HIDDEN, Result, plain


@dataclass(frozen=True, eq=False)
class FrequencyFactors(Result):
    """Two groups of channels behind high-low frequency detectors, the one that prefers higher frequencies first.

    Attributes:
        source: layer of the channels; targets: addresses of the detectors.
        channels: `(2, S)` shares of each channel in each factor, rows summing to one.
        maps: `(targets, 2, kh, kw)` signed weights of the factors.
        frequency: `(S,)` preferred frequency of each channel, cycles per pixel, measured with gratings.
        high, low: frequency of each factor: geometric mean of its channels', by their shares.
        octaves: log2(high / low).
        shuffled: the octaves between the factors when channels' frequencies are shuffled, sizes only.
        p: share of shuffles at least as large.
        alignment: of each detector, cosine between its preferred orientation and the direction in which the weight of
            the high factor (less that of the low one) lies; NaN where it lies nowhere.
        explained: share of the squared weights that the factors give back.
        provenance: digests, seed, versions.
    """

    source: str
    targets: tuple[str, ...]
    channels: NDArray[np.float64] = field(metadata=HIDDEN)
    maps: NDArray[np.float64] = field(metadata=HIDDEN)
    frequency: NDArray[np.float64] = field(metadata=HIDDEN)
    high: float
    low: float
    octaves: float
    shuffled: NDArray[np.float64] = field(metadata=HIDDEN)
    p: float
    alignment: NDArray[np.float64]
    explained: float
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def top(self, factor: int, n: int = 5) -> list[tuple[int, float, float]]:
        """The `n` channels with the largest share of a factor: `[(channel, share, frequency)]`."""
        order = np.argsort(-self.channels[factor], kind="stable")[:n]
        return [(int(c), float(self.channels[factor, c]), float(self.frequency[c])) for c in order]

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        top = {name: plain(self.top(i)) for i, name in enumerate(("high", "low"))}
        return super().describe() | {"shuffled_95": float(np.quantile(self.shuffled, 0.95)), "top": top}


def frequency_factors(
    model: Model,
    detectors: Sequence[Detector],
    *,
    source: str | None = None,
    shuffles: int = 2000,
    seed: int = 0,
    batch_size: int = 32,
) -> FrequencyFactors:
    """Factorize the weights of high-low frequency detectors, and measure which frequencies the factors' channels like.

    Args:
        model: the model that they were found in.
        detectors: of one layer.
        source: the layer whose channels are grouped; by default the trunk layer before.
        shuffles: how often channels' frequencies are shuffled, for the control.
        seed: of the factorization and the shuffles.
        batch_size: images per forward pass.

    Raises:
        CircuitsError: no detectors, detectors of several layers, or no layer before theirs.
    """
    model.check_images("a study of detectors")
    units = [model.unit(d.unit) for d in detectors]
    layers = sorted({u.layer for u in units})
    if len(layers) != 1:
        raise CircuitsError(
            f"the detectors to factorize are of one layer, at least one of them; got {layers or 'none'}"
        )
    below = model.layer(source).name if source is not None else model.before(layers[0])
    if below is None:
        raise CircuitsError(f"there is no layer before {layers[0]} whose channels could be grouped")
    with torch.no_grad():
        weights = expanded_weights(model, source=below, target=units)
    factors = one_sided_nmf(weights, 2, shuffles=0, iterations=2000, seed=seed)
    sizes = np.maximum(factors.channels.sum(axis=1), 1e-300)
    shares, maps = factors.channels / sizes[:, None], (factors.spatial * sizes[:, None, None, None]).swapaxes(0, 1)
    frequency = preferred_frequencies(model, below, batch_size)
    logs = shares @ np.log2(frequency)
    order = np.argsort(-logs, kind="stable")
    shares, maps, logs = shares[order], maps[:, order], logs[order]
    rng = np.random.default_rng(seed)
    shuffled = np.array([abs(float(np.diff(shares @ np.log2(rng.permutation(frequency)))[0])) for _ in range(shuffles)])
    octaves = float(logs[0] - logs[1])
    return FrequencyFactors(
        source=below,
        targets=tuple(str(u) for u in units),
        channels=shares,
        maps=maps,
        frequency=frequency,
        high=float(2 ** logs[0]),
        low=float(2 ** logs[1]),
        octaves=octaves,
        shuffled=shuffled,
        p=permutation_p(octaves, shuffled),
        alignment=np.array([_alignment(m, d.orientation) for m, d in zip(maps, detectors, strict=True)]),
        explained=factors.explained,
        provenance=provenance(weights=model.digest, model=model.name, shuffles=shuffles, seed=seed),
    )


def preferred_frequencies(model: Model, layer: str, batch_size: int = 32) -> NDArray[np.float64]:
    """The frequency that each channel of a layer prefers, in cycles per pixel.

    The geometric mean of the gratings' frequencies, by the response to the best orientation and phase of each; that of
    all frequencies for a channel without any response.
    """
    field, most = model.layers[layer].receptive_field, min(model.input.hw)
    size = most if field is None else min(most, *field.size)
    frequencies = [f for f in FREQUENCIES if f * size >= 0.5]
    tuning = tune(model, layer, stimuli=stimuli.gratings(8, frequencies, 4), batch_size=batch_size)
    responses: Tensor = tuning.over("frequency").clamp_min(0).double()
    logs = torch.tensor(frequencies, dtype=torch.float64).log2()
    total = responses.sum(dim=1)
    mean = torch.where(total > 0, responses @ logs / total.clamp_min(1e-300), logs.mean())
    return np.asarray((2**mean).numpy())


def _alignment(maps: NDArray[np.float64], orientation: float) -> float:
    """Cosine between an orientation and the direction in which the first map less the second lies."""
    both = maps[0] - maps[1]
    kh, kw = both.shape
    rows, columns = np.mgrid[:kh, :kw]
    x = float((both * (columns - (kw - 1) / 2)).sum())
    y = float((both * ((kh - 1) / 2 - rows)).sum())
    size = math.hypot(x, y)
    turn = math.radians(orientation)
    return (x * math.cos(turn) + y * math.sin(turn)) / size if size > 0 else math.nan
