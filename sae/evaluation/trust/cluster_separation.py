"""Does a dictionary separate what a polysemantic channel mixes? Clusters of its images, and the latents behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.common.examples import Example
from circuits.common.provenance import provenance
from circuits.common.statistics import Estimate
from circuits.dataset.part_labels import part_grid
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.hooks import read
from circuits.network.model import Model
from circuits.units.clustering import unit_rows
from circuits.units.polysemanticity import Polysemanticities
from sae.architectures.base import SAE
from sae.data.site import check_fits
from sae.data.vision_site import VisionSite
from sae.errors import SAEError
from sae.evaluation.baselines import RandomDictionary
from sae.evaluation.controls.decompositions import decompose
from sae.evaluation.controls.dictionary import Dictionary
from sae.evaluation.controls.untrained import untrained_sae
from sae.seeding import CONTROL, generator
from zoo.common.checks import one_of
from zoo.common.results import HIDDEN, Result
from zoo.images.sources import Images, open_images
from zoo.progress import Progress, reporter

CONTROLS = ("untrained", "random directions", "pca", "other channels")
SHUFFLED = "shuffled clusters"
MEASURES = {
    "clusters": "latents grouped like the clusters, against the clusters",
    "leading latent": "the latent that gives most, against the clusters",
    "parts": "latents grouped like the clusters, against the annotated part at the position",
    "classes": "latents grouped like the clusters, against the class of the image",
}
"""What is measured, by adjusted Rand index: 1 is the same, 0 is chance."""
_LEAST = 5  # examples of a part or class, two of which there must be
_PER_IMAGE = 16  # positions that controls are fitted on
_DRAWS, _SHUFFLES = 2000, 20


@dataclass(frozen=True, eq=False)
class SeparatedChannel(Result):
    """One channel that is split into clusters.

    Attributes:
        unit: its address; sizes: examples of each cluster.
        values: dictionary or control -> measure -> adjusted Rand index; "clusters" stands there, too, for how well the
            clusters themselves agree with parts and classes. What these images do not give is left out.
    """

    unit: str
    sizes: tuple[int, ...]
    values: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, eq=False)
class Separation(Result):
    """Result of `separation`.

    Attributes:
        layer: of the channels; dictionaries, controls: their names.
        rows: the channels, the most polysemantic first.
        provenance: settings, digests, versions.
    """

    layer: str
    dictionaries: tuple[str, ...]
    controls: tuple[str, ...]
    rows: tuple[SeparatedChannel, ...] = field(metadata=HIDDEN)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def values(self, name: str, measure: str = "clusters") -> NDArray[np.float64]:
        """A measure of a dictionary or control, for each channel; NaN where these images do not give it."""
        one_of("name", name, (*self.dictionaries, *self.controls, "clusters"), error=SAEError)
        one_of("measure", measure, tuple(MEASURES), error=SAEError)
        return np.array([row.values[name].get(measure, np.nan) for row in self.rows])

    def mean(self, name: str, measure: str = "clusters") -> Estimate:
        """Mean over channels, with its bootstrap interval over channels; NaN where no channel has it."""
        return _estimate(self.values(name, measure))

    def difference(self, name: str, other: str, measure: str = "clusters") -> Estimate:
        """Mean difference of two dictionaries on the same channels, with its interval."""
        return _estimate(self.values(name, measure) - self.values(other, measure))

    def records(self) -> list[dict[str, Any]]:
        """A row for each dictionary and control: means over channels."""
        return [
            {"dictionary": name} | {m: value for m in MEASURES if (value := self.mean(name, m).value) == value}
            for name in (*self.dictionaries, *self.controls)
        ]

    def describe(self) -> dict[str, Any]:
        """Ready for JSON: means with intervals, differences from the controls, and every channel."""
        names = (*self.dictionaries, *self.controls, "clusters")
        means = {n: {m: e.describe() for m in MEASURES if (e := self.mean(n, m)).value == e.value} for n in names}
        differences = {
            n: {c: self.difference(n, c).describe() for c in self.controls if c != n} for n in self.dictionaries
        }
        return super().describe() | {
            "mean": means,
            "less_controls": differences,
            "channels": [row.describe() for row in self.rows],
        }


@torch.no_grad()
def separation(
    model: Model,
    result: Polysemanticities,
    dictionaries: Mapping[str, SAE],
    images: Any,
    *,
    most: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> Separation:
    """Compare the clusters of split channels with the latents that write to these channels.

    On each of a channel's clustered examples every latent gives its activation times its weight on the channel. Two
    assignments of examples follow: Ward's clusters of what the latents give, as many as there are clusters (rows by
    direction, square roots, as the clusters are made from parents); and the latent that gives most. Each is compared
    with the clusters by adjusted Rand index (Hubert and Arabie 1985), the first also with the part at the position and
    with the class of the image, where these are known and at least two are on five examples.

    The controls are as sparse as the first dictionary and go through the same: the SAE untrained, as many random
    directions, principal components, the other channels (what is far from its mean, without the channel itself), and
    the dictionary against shuffled clusters.

    Args:
        model: the network; result: of `circuits.polysemantic`, on a layer of it.
        dictionaries: by name, of that layer.
        images: those that `result` was computed on.
        most: at most so many of the split channels, the highest score first.
        seed: of the controls, and of the positions that they are fitted on.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total) images.

    Raises:
        SAEError: no dictionary, a transcoder, one of another layer; no channel that is split; clusters of latents.
        CircuitsError: other images.

    >>> separation(model, circuits.polysemantic(model, "mixed4a", images=x), {"topk": s}, x)  # doctest: +SKIP
    """
    split = [row for row in result.rows if row.split][:most]
    if not split:
        raise SAEError(f"none of the {len(result.rows)} units is split: there are no clusters to separate")
    units = [Unit.parse(row.unit) for row in split]
    if any(unit.basis is not None or unit.layer != units[0].layer for unit in units):
        raise SAEError("separation compares channels of one layer, not latents")
    site = VisionSite(model, units[0].layer)
    if not dictionaries:
        raise SAEError("give at least one dictionary of the layer")
    for name, trained in dictionaries.items():
        if trained.transcodes:
            raise SAEError(f"{name} is a transcoder: its latents do not write to the channels of one layer")
        check_fits(trained, site)
    dataset = open_images(images)
    vectors, fitted = _vectors(site, [e for row in split for c in row.clusters for e in c.examples], dataset, seed,
                               batch_size, progress)  # fmt: skip
    first = next(iter(dictionaries.values()))
    active = max(1, round(float((first.encode(fitted) > 0).sum(dim=1).double().mean())))
    every: dict[str, Dictionary] = {
        **dictionaries,
        "untrained": untrained_sae(first.config, fitted),
        "random directions": RandomDictionary(fitted.mean(dim=0), first.latents, active, seed=seed),
        "pca": decompose(fitted, "pca", k=active, latents=first.latents, seed=seed),
        "other channels": decompose(fitted, "channels", k=active, latents=first.latents, seed=seed),
    }
    every["random directions"].encode(fitted)  # its gain is fitted on the first vectors
    truths = _truths(model, site.layer.name, split_examples(result, len(split)), dataset)
    rows = []
    for number, (row, unit) in enumerate(zip(split, units, strict=True)):
        examples = [e for cluster in row.clusters for e in cluster.examples]
        clusters = np.repeat(np.arange(len(row.clusters)), [len(c.examples) for c in row.clusters])
        acts = torch.stack([vectors[e.image, e.position] for e in examples])
        known = {"clusters": clusters, **{name: labels[row.unit] for name, labels in truths.items()}}
        known = {name: labels for name, labels in known.items() if _tells(labels)}
        values = {"clusters": _agreements(clusters, {n: v for n, v in known.items() if n != "clusters"})}
        for name, dictionary in every.items():
            given = _given(name, dictionary, acts, unit.index or 0)
            grouped = _grouped(given, len(row.clusters))
            values[name] = _agreements(grouped, known)
            values[name]["leading latent"] = _agreements(_leading(given), {"": clusters})[""]
            if SHUFFLED not in values:
                random = np.random.default_rng((seed, number))
                orders = [random.permutation(clusters) for _ in range(_SHUFFLES)]
                values[SHUFFLED] = {
                    measure: float(np.mean([_agreements(labels, {"": order})[""] for order in orders]))
                    for measure, labels in (("clusters", grouped), ("leading latent", _leading(given)))
                }
        rows.append(SeparatedChannel(row.unit, tuple(len(c.examples) for c in row.clusters), values))
    return Separation(
        layer=site.address,
        dictionaries=tuple(dictionaries),
        controls=(*CONTROLS, SHUFFLED),
        rows=tuple(rows),
        provenance=provenance(
            model=model.name, weights=model.digest, images=dataset.name, images_digest=dataset.digest, seed=seed,
            active=active, split=sum(row.split for row in result.rows), units=len(result.rows),
        ),
    )  # fmt: skip


def split_examples(result: Polysemanticities, most: int | None = None) -> dict[str, list[Example]]:
    """Split unit -> its examples, cluster by cluster."""
    split = [row for row in result.rows if row.split][:most]
    return {row.unit: [e for cluster in row.clusters for e in cluster.examples] for row in split}


def _vectors(
    site: VisionSite, examples: list[Example], dataset: Images, seed: int, batch_size: int, progress: Progress
) -> tuple[dict[tuple[int, tuple[int, int]], Tensor], Tensor]:
    """Activations of the layer at the examples, and at positions of the same images sampled at random `(n, d)`."""
    wanted: dict[int, set[tuple[int, int]]] = {}
    for example in examples:
        if example.image >= len(dataset) or dataset.ids[example.image] != example.id:
            raise CircuitsError(f"{dataset.name} does not hold image {example.id}: give the images of the clusters")
        wanted.setdefault(example.image, set()).add(example.position)
    vectors: dict[tuple[int, tuple[int, int]], Tensor] = {}
    sampled = []
    random = generator(seed, CONTROL, 5)
    base, channels = site.channels()
    with reporter(progress, "img") as report:
        done = 0
        for indices, batch in dataset.batches(site.model.input, batch_size=batch_size, indices=sorted(wanted)):
            maps = read(site.model, batch, [site.model.layers[base]])[base][:, channels].float().cpu()
            for image, acts in zip(indices, maps, strict=True):
                vectors |= {(image, at): acts[:, at[0], at[1]] for at in wanted[image]}
                flat = acts.flatten(1).T
                sampled.append(flat[torch.randperm(len(flat), generator=random)[:_PER_IMAGE]])
            done += len(indices)
            report(done, len(wanted))
    return vectors, torch.cat(sampled)


def _truths(
    model: Model, layer: str, examples: Mapping[str, list[Example]], dataset: Images
) -> dict[str, dict[str, NDArray[np.int64]]]:
    """What is known of examples: "parts" and "classes" -> unit -> a label of each, -1 for none."""
    truths = {}
    if dataset.labels is not None:
        labels = dataset.labels
        truths["classes"] = {u: np.array([labels[e.image] for e in some]) for u, some in examples.items()}
    if dataset.annotations is not None:
        at = sorted({e.image for some in examples.values() for e in some})
        grid = part_grid(model, layer, dataset.subset(at)).inside.numpy()
        row_of = {image: row for row, image in enumerate(at)}

        def part(example: Example) -> int:
            parts = np.flatnonzero(grid[row_of[example.image], :, example.position[0], example.position[1]])
            return int(parts[0]) if len(parts) else -1

        truths["parts"] = {u: np.array([part(e) for e in some]) for u, some in examples.items()}
    return truths


def _tells(labels: NDArray[np.int64]) -> bool:
    """Whether there are two labels of enough examples."""
    counts = np.unique(labels[labels >= 0], return_counts=True)[1]
    return int((counts >= _LEAST).sum()) >= 2


def _given(name: str, dictionary: Dictionary, acts: Tensor, channel: int) -> NDArray[np.float64]:
    """What each latent gives the channel on each example `(n, m)`, zero or above."""
    latents = dictionary.encode(acts).cpu()
    if name == "other channels":  # both sides of every channel; they do not write to each other
        latents[:, [channel, channel + acts.shape[1]]] = 0
    else:
        latents = latents * dictionary.write[:, channel].cpu()
    return latents.clamp_min(0).double().numpy()


def _grouped(given: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    from sklearn.cluster import AgglomerativeClustering

    rows = unit_rows(np.sqrt(given))
    return np.asarray(AgglomerativeClustering(n_clusters=count).fit_predict(rows))


def _leading(given: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.where(given.max(axis=1) > 0, given.argmax(axis=1), -1)


def _agreements(labels: NDArray[np.int64], known: Mapping[str, NDArray[np.int64]]) -> dict[str, float]:
    """Adjusted Rand index with each, over the examples of which it is known."""
    from sklearn.metrics import adjusted_rand_score

    return {n: float(adjusted_rand_score(truth[truth >= 0], labels[truth >= 0])) for n, truth in known.items()}


def _estimate(values: NDArray[np.float64]) -> Estimate:
    values = values[~np.isnan(values)]
    if not len(values):
        return Estimate(float("nan"), float("nan"), float("nan"))
    draws = np.random.default_rng(0).integers(len(values), size=(_DRAWS, len(values)))
    return Estimate.of(float(values.mean()), torch.from_numpy(values[draws].mean(axis=1)))
