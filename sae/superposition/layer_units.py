"""What toy models of superposition say of the units of a real layer.

In a toy model, features that matter little or come seldom share space. Here a layer's units are set beside each
other: how often they fire, how much the network's predictions need them, into how many unrelated groups their examples
fall, and how crowded the directions are that a dictionary writes them with. If theory carries over, the numbers go
together; each correlation stands beside the same one with units shuffled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.attribution.class_scores import ClassScores
from circuits.common.provenance import provenance
from circuits.common.statistics import correlation, permutation_p, shuffled_correlations
from circuits.network.model import Model
from circuits.units.polysemanticity import Polysemanticities
from sae.checks import whole
from sae.data.activations import collect, fitting
from sae.data.vision_site import VisionSite
from sae.errors import SAEError
from sae.seeding import CONTROL
from sae.superposition.geometry import Geometry, geometry
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
"""What is held against what."""


@dataclass(frozen=True)
class Correlation:
    """Two measures over the units of a layer.

    Attributes:
        rho: rank correlation (Spearman); low, high: middle 95 % of it with units shuffled; n: units compared.
        p: share of shuffles with a correlation as large in size.
    """

    rho: float
    low: float
    high: float
    p: float
    n: int


@dataclass(frozen=True, eq=False)
class LayerUnits:
    """The units of a layer, in channel order; NaN where a measure is not known.

    Attributes:
        units: addresses.
        density: share of positions at which each fires.
        importance: mean KL divergence, in nats, that silencing it to its mean brings to the network's predictions.
        polysemanticity: score of `circuits.polysemantic`.
        dimensionality: mean `D_i` of the latents that write to it, weighted by how much each does.
        writers: effective number of latents that write to it, `1 / sum of squared shares`.
        correlations: pair of measures -> correlation.
        provenance: where it all came from.
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
        return {
            "units": list(self.units),
            **{name: [None if np.isnan(v) else float(v) for v in getattr(self, name)] for name in MEASURES},
            "correlations": [{"of": list(pair), **vars(c)} for pair, c in self.correlations.items()],
            "provenance": dict(self.provenance),
        }


@torch.no_grad()
def layer_units(
    model: Model,
    layer: str,
    basis: str,
    images: Any,
    *,
    polysemanticity: Polysemanticities | None = None,
    pictures: int = 64,
    draws: int = 1000,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> LayerUnits:
    """Set a layer's units beside each other: density, importance, polysemanticity, and how crowded their latents are.

    Args:
        model: the model, with the dictionary attached.
        layer: a whole layer; basis: name of the dictionary attached to it.
        images: pictures in any form that `capture` takes.
        polysemanticity: of the same layer, as `circuits.polysemantic` gives it; without it those numbers are NaN.
        pictures: on how many of them, drawn by lot, importance is measured; one run of the rest of the network per
            unit and picture.
        draws: shuffles of the control.
        seed: of what is drawn by lot.
        batch_size: pictures per forward pass.
        progress: True for a bar, or a function of (done, total) units.

    Raises:
        AddressError: no such layer or dictionary. SAEError: a branch, or polysemanticity of another layer.

    >>> layer_units(model, "mixed3b", "parts", "scenes:200").correlations  # doctest: +SKIP
    """
    whole("pictures", pictures)
    whole("draws", draws)
    site = VisionSite(model, layer)
    if site.layer.part is not None:
        raise SAEError(f"take the whole layer {site.layer.part[0]}; {site.layer.name} is channels of it")
    dictionary = model.basis(site.layer.name, basis)
    units = tuple(f"{site.address}:{i}" for i in range(site.d))
    opened = open_images(images)
    acts = collect(
        site, opened, sampling=fitting(site, opened, vectors=100_000, seed=seed), batch_size=batch_size
    ).vectors
    few = open_images(opened, limit=pictures, seed=seed)
    shape = geometry(dictionary.write[_living(dictionary.write)], seed=seed)
    columns = {
        "density": (acts > 0).double().mean(dim=0).cpu().numpy(),
        "importance": _importance(model, site, acts.mean(dim=0), few, batch_size, progress),
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
            weights=model.digest, images=opened.digest, basis=basis, pictures=len(few), draws=draws, seed=seed
        ),
    )


def _living(write: Tensor) -> Tensor:
    living: Tensor = write.norm(dim=1) > 0
    return living


def _importance(
    model: Model, site: VisionSite, mean: Tensor, pictures: Any, batch_size: int, progress: Progress
) -> Array:
    """KL from the clean prediction when each channel says its mean everywhere; mean over pictures, `(C,)`."""
    rest = ClassScores(model, site.layer.name)
    total = torch.zeros(site.d, dtype=torch.float64)
    count = 0
    batches = -(-len(pictures) // batch_size)
    with reporter(progress, "units") as told:
        for batch_number, (_, batch) in enumerate(pictures.batches(model.input, batch_size=batch_size)):
            acts, context = rest.begin(batch)
            clean = rest.scores(acts, context).double().log_softmax(dim=1)
            count += len(batch)
            for channel in range(site.d):
                edited = acts.clone()
                edited[:, channel] = mean[channel]
                said = rest.scores(edited, context).double().log_softmax(dim=1)
                total[channel] += float((clean.exp() * (clean - said)).sum())
                told(batch_number * site.d + channel + 1, batches * site.d)
    found: Array = (total / max(1, count)).numpy()
    return found


def _scores(units: tuple[str, ...], found: Polysemanticities | None) -> Array:
    scores = np.full(len(units), np.nan)
    if found is None:
        return scores
    known = {row.unit: row.score for row in found.rows}
    if not set(known) <= set(units):
        other = next(iter(set(known) - set(units)))
        raise SAEError(f"polysemanticity is of other units ({other}); it must be of {units[0].rpartition(':')[0]}")
    for i, unit in enumerate(units):
        scores[i] = known.get(unit, np.nan)
    return scores


def _crowding(dictionary: Any, acts: Tensor, shape: Geometry) -> tuple[Array, Array]:
    """Per channel: mean `D_i` of its writers weighted by how much each gives, and their effective number."""
    living = _living(dictionary.write)
    written = dictionary.write[living].detach().double().abs().cpu()
    strength = torch.zeros(len(living), dtype=torch.float64)
    for part in torch.split(acts, 4096):
        strength += dictionary.encode(part).abs().double().sum(dim=0).cpu()
    given = strength[living][:, None] * written  # how much each latent gives to each channel
    shares = given / given.sum(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
    crowded = torch.from_numpy(shape.dimensionality) @ shares
    return crowded.numpy(), (1 / shares.square().sum(dim=0).clamp_min(1e-12)).numpy()


def _correlation(a: Array, b: Array, draws: int, seed: int) -> Correlation:
    from scipy.stats import rankdata

    known = np.isfinite(a) & np.isfinite(b)
    x, y = (rankdata(v[known]) for v in (a, b))
    rho = correlation(x, y)
    shuffled = shuffled_correlations(x, y, draws=draws, generator=np.random.default_rng([seed, CONTROL]))
    low, high = np.quantile(shuffled, [0.025, 0.975])
    p = permutation_p(abs(rho), np.abs(shuffled), tolerance=1e-12)
    return Correlation(rho, float(low), float(high), p, int(known.sum()))
