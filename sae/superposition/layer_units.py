"""Predictions of the toy models of superposition, tested on the units of a real layer.

In a toy model features of low importance or low density share dimensions. Here the units of a layer are compared by
activation density, importance for the network's predictions, polysemanticity of their top activating images, and the
dimensionality of the latents that write to them. If the theory carries over these are correlated; each correlation
stands beside the same with units shuffled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.attribution.class_scores import ClassScores
from circuits.common.provenance import provenance
from circuits.common.statistics import correlation, permutation_p, shuffled_correlations
from circuits.network.model import Model
from circuits.network.responses import ActivationMeans
from circuits.network.subnetwork import channel_pools
from circuits.units.polysemanticity import Polysemanticities
from sae.checks import whole
from sae.data.activations import collect, fitting
from sae.data.vision_site import VisionSite
from sae.errors import SAEError
from sae.seeding import CONTROL
from sae.superposition.geometry import Geometry, geometry
from zoo.common.results import Result, plain
from zoo.images.sources import open_images
from zoo.progress import Progress, reporter

Array = NDArray[np.float64]

MEASURES = ("density", "importance", "polysemanticity", "dimensionality", "writers")
PAIRS = (
    ("density", "importance"),
    ("density", "polysemanticity"),
    ("importance", "polysemanticity"),
    ("density", "dimensionality"),
    ("importance", "dimensionality"),
    ("polysemanticity", "dimensionality"),
    ("polysemanticity", "writers"),
)
"""Pairs of measures that are correlated."""


@dataclass(frozen=True)
class Correlation:
    """Two measures over the units of a layer.

    Attributes:
        rho: rank correlation (Spearman); low, high: its central 95 % with units shuffled; n: units compared.
        p: share of shuffles with a correlation as large in size.
    """

    rho: float
    low: float
    high: float
    p: float
    n: int


@dataclass(frozen=True, eq=False)
class LayerUnits(Result):
    """The units of a layer, in channel order; NaN where a measure is not known.

    Attributes:
        units: addresses.
        density: share of positions at which each is active.
        importance: mean KL divergence of the network's predictions, in nats, when the unit is ablated to its mean.
        polysemanticity: score of `circuits.polysemantic`.
        dimensionality: mean `D_i` of the latents that write to it, weighted by their contributions.
        writers: effective number of latents that write to it, `1 / sum of squared shares`.
        correlations: pair of measures -> correlation.
        provenance: weights, images, basis, seed.
    """

    units: tuple[str, ...]
    density: Array
    importance: Array
    polysemanticity: Array
    dimensionality: Array
    writers: Array
    correlations: Mapping[tuple[str, str], Correlation]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        correlations = [{"of": list(pair), **vars(c)} for pair, c in self.correlations.items()]
        return super().describe() | {"correlations": plain(correlations)}


@torch.no_grad()
def layer_units(
    model: Model,
    layer: str,
    basis: str,
    images: Any,
    *,
    polysemanticity: Polysemanticities | None = None,
    importance_images: int = 64,
    draws: int = 1000,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> LayerUnits:
    """Compare the units of a layer: density, importance, polysemanticity, and dimensionality of their latents.

    Args:
        model: the model, with the dictionary attached.
        layer: a whole layer; basis: name of the dictionary attached to it.
        images: in any form that `capture` takes.
        polysemanticity: of the same layer, of `circuits.polysemantic`; without it those numbers are NaN.
        importance_images: number of images, sampled at random, on which importance is measured; the layers after this
            one run once per unit and image.
        draws: shuffles of the control.
        seed: of all random samples.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total) units.

    Raises:
        AddressError: no such layer or dictionary. SAEError: a branch, or polysemanticity of another layer.

    >>> layer_units(model, "mixed3b", "parts", "scenes:200").correlations  # doctest: +SKIP
    """
    whole("importance_images", importance_images)
    whole("draws", draws)
    site = VisionSite(model, layer)
    if site.layer.part is not None:
        raise SAEError(f"take the whole layer {site.layer.part[0]}; {site.layer.name} is channels of it")
    dictionary = model.basis(site.layer.name, basis)
    units = tuple(f"{site.address}:{i}" for i in range(site.d))
    source = open_images(images)
    acts = collect(
        site, source, sampling=fitting(site, source, vectors=100_000, seed=seed), batch_size=batch_size
    ).vectors
    sample = open_images(source, limit=importance_images, seed=seed)
    shape = geometry(dictionary.write[_living(dictionary.write)], seed=seed)
    columns = {
        "density": (acts > 0).double().mean(dim=0).cpu().numpy(),
        "importance": _importance(model, site, acts.mean(dim=0), sample, batch_size, progress),
        "polysemanticity": _scores(units, polysemanticity),
    }
    columns["dimensionality"], columns["writers"] = _crowding(dictionary, acts, shape)
    return LayerUnits(
        units=units,
        **columns,
        correlations={
            (a, b): _correlation(columns[a], columns[b], draws, seed)
            for a, b in PAIRS
            if np.isfinite(columns[a] * columns[b]).sum() > 3
        },
        provenance=provenance(
            weights=model.digest, images=source.digest, basis=basis, importance_images=len(sample), draws=draws,
            seed=seed,
        ),
    )  # fmt: skip


def _living(write: Tensor) -> Tensor:
    living: Tensor = write.norm(dim=1) > 0
    return living


def _importance(
    model: Model, site: VisionSite, mean: Tensor, images: Any, batch_size: int, progress: Progress
) -> Array:
    """KL from the clean prediction when a channel is its mean at all positions; mean over images, `(C,)`."""
    rest = ClassScores(model, site.layer.name)
    held = _pooled_means(model, site.layer.name, rest, images, batch_size)
    total = torch.zeros(site.d, dtype=torch.float64)
    count = 0
    batches = -(-len(images) // batch_size)
    with reporter(progress, "units") as report:
        for batch_number, (_, batch) in enumerate(images.batches(model.input, batch_size=batch_size)):
            acts, context = rest.begin(batch)
            clean = rest.scores(acts, context).double().log_softmax(dim=1)
            count += len(batch)
            for channel in range(site.d):
                edited = acts.clone()
                edited[:, channel] = mean[channel]
                edits = {
                    name: partial(_set_channel, channel=at.start + channel, value=pooled[channel])
                    for name, (pooled, at) in held.items()
                }
                ablated = rest.scores(edited, context, edits).double().log_softmax(dim=1)
                total[channel] += float((clean.exp() * (clean - ablated)).sum())
                report(batch_number * site.d + channel + 1, batches * site.d)
    mean_kl: Array = (total / max(1, count)).numpy()
    return mean_kl


def _pooled_means(
    model: Model, layer: str, rest: ClassScores, images: Any, batch_size: int
) -> dict[str, tuple[Tensor, slice]]:
    """Means of the layer's channels after each max pool over them, and which of the pool's channels these are.

    The pool of a mean is not the mean of the pool.
    """
    pools, means = channel_pools(model, layer, model.logits), ActivationMeans()
    for _, batch in images.batches(model.input, batch_size=batch_size) if pools else ():
        rest.scores(*rest.begin(batch), {name: means.tap(name) for name in pools})
    return {name: (means.of(name)[pools[name]].to(model.device), pools[name]) for name in means.layers}


def _set_channel(acts: Tensor, channel: int, value: Tensor) -> Tensor:
    edited = acts.clone()
    edited[:, channel] = value
    return edited


def _scores(units: tuple[str, ...], polysemanticity: Polysemanticities | None) -> Array:
    scores = np.full(len(units), np.nan)
    if polysemanticity is None:
        return scores
    score_of = {row.unit: row.score for row in polysemanticity.rows}
    if not set(score_of) <= set(units):
        other = next(iter(set(score_of) - set(units)))
        raise SAEError(f"polysemanticity is of other units ({other}); it must be of {units[0].rpartition(':')[0]}")
    for i, unit in enumerate(units):
        scores[i] = score_of.get(unit, np.nan)
    return scores


def _crowding(dictionary: Any, acts: Tensor, shape: Geometry) -> tuple[Array, Array]:
    """Per channel: mean `D_i` of its latents weighted by their contributions, and their effective number.

    The contribution of latent i to channel c is `sum_x |a_i(x)| |W_ic|`; the effective number is the inverse
    participation ratio of the shares, `1 / sum_i s_i^2`.
    """
    living = _living(dictionary.write)
    written = dictionary.write[living].detach().double().abs().cpu()
    strength = torch.zeros(len(living), dtype=torch.float64)
    for part in torch.split(acts, 4096):
        strength += dictionary.encode(part).abs().double().sum(dim=0).cpu()
    contributions = strength[living][:, None] * written
    shares = contributions / contributions.sum(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
    crowded = torch.from_numpy(shape.dimensionality) @ shares
    return crowded.numpy(), (1 / shares.square().sum(dim=0).clamp_min(1e-12)).numpy()


def _correlation(a: Array, b: Array, draws: int, seed: int) -> Correlation:
    from scipy.stats import rankdata

    finite = np.isfinite(a) & np.isfinite(b)
    x, y = (rankdata(v[finite]) for v in (a, b))
    rho = correlation(x, y)
    shuffled = shuffled_correlations(x, y, draws=draws, generator=np.random.default_rng([seed, CONTROL]))
    low, high = np.quantile(shuffled, [0.025, 0.975])
    p = permutation_p(abs(rho), np.abs(shuffled), tolerance=1e-12)
    return Correlation(rho, float(low), float(high), p, int(finite.sum()))
