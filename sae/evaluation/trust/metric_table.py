"""Which metric tells a trained dictionary from its controls? Measured for every metric and every control."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import process_time
from typing import Any

import torch
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.common.untrained import untrained
from circuits.network.model import Model
from sae.architectures.base import SAEConfig
from sae.architectures.topk import TopK
from sae.checks import whole
from sae.data.activations import collect, fitting
from sae.data.vision_site import VisionSite
from sae.errors import SAEError
from sae.evaluation.controls.decompositions import DECOMPOSITIONS, decompose
from sae.evaluation.controls.dictionary import Dictionary
from sae.evaluation.controls.untrained import untrained_sae
from sae.evaluation.metrics import matched_cosine
from sae.evaluation.trust.held_out import METRICS, HeldOut, held_out
from sae.evaluation.trust.planted import Families, planted_metrics
from sae.seeding import CONTROL, generator
from sae.training.schedule import short_lr
from sae.training.train import train
from zoo.common.checks import one_of
from zoo.common.results import HIDDEN, Result
from zoo.images.sources import open_images
from zoo.progress import Progress, reporter

log = logging.getLogger(__name__)

TRAINED = "trained"
CONTROLS = (
    "untrained", "frozen encoder", "frozen decoder", "near decoder", "shuffled data", "random network",
    *DECOMPOSITIONS,
)  # fmt: skip
"""Controls of a trained SAE; see `metric_table`."""
PLANTED = "planted families"
"""Stands for the layer of dictionaries of planted features."""
LEAST_IMAGES = 10
TRUSTED = 0.95
"""AUROC from which a metric is said to tell trained dictionaries from a control."""


@dataclass(frozen=True, eq=False)
class MeasuredDictionary(Result):
    """One dictionary: where it is of, what it is, and metric -> value."""

    layer: str
    kind: str
    seed: int
    latents: int
    values: Mapping[str, float]

    def scalars(self) -> dict[str, Any]:
        """A row of the table."""
        return {"layer": self.layer, "kind": self.kind, "seed": self.seed, "latents": self.latents, **self.values}


@dataclass(frozen=True, eq=False)
class MetricTable(Result):
    """Result of `metric_table`.

    Attributes:
        model: its name; layers: as measured; seeds: their number; images: held-out.
        rows: every dictionary that was measured.
        seconds: CPU time.
        provenance: settings, digests, versions.
    """

    model: str
    layers: tuple[str, ...]
    seeds: int
    images: int
    rows: tuple[MeasuredDictionary, ...] = field(metadata=HIDDEN)
    seconds: float
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def controls(self) -> tuple[str, ...]:
        """The controls there are, in order."""
        return tuple(name for name in CONTROLS if any(row.kind == name for row in self.rows))

    def values(self, metric: str, kind: str, layer: str) -> list[float]:
        """A metric of the dictionaries of one kind at a layer, by seed."""
        one_of("metric", metric, tuple(METRICS), error=SAEError)
        return [row.values[metric] for row in self.rows if row.kind == kind and row.layer == layer]

    def mean(self, metric: str, kind: str) -> float:
        """Mean of a metric over layers and seeds, of those that have it; NaN where none has."""
        values = [v for layer in (*self.layers, PLANTED) for v in self.values(metric, kind, layer) if v == v]
        return sum(values) / len(values) if values else float("nan")

    def auroc(self, metric: str, control: str, layer: str | None = None) -> float:
        """Probability that a trained dictionary scores above one of a control of the same layer; ties count half.

        Args:
            metric: of `METRICS`; control: of `CONTROLS`.
            layer: one layer (default: the mean over the layers that have it, within each of which all seeds
                are compared with all).

        Returns:
            NaN where one of the two does not have the metric.
        """
        one_of("control", control, CONTROLS, error=SAEError)
        if layer is None:
            layers = (*self.layers, PLANTED)
            each = [value for name in layers if (value := self.auroc(metric, control, name)) == value]
            return sum(each) / len(each) if each else float("nan")
        high = torch.tensor(self.values(metric, TRAINED, layer), dtype=torch.float64)
        low = torch.tensor(self.values(metric, control, layer), dtype=torch.float64)
        if not len(high) or not len(low) or bool(high.isnan().any() or low.isnan().any()):
            return float("nan")
        above = (high[:, None] > low[None]).double() + 0.5 * (high[:, None] == low[None]).double()
        return float(above.mean())

    def trusted(self, control: str) -> list[str]:
        """Metrics that tell trained dictionaries from a control at an AUROC of `TRUSTED` or more."""
        return [metric for metric in METRICS if self.auroc(metric, control) >= TRUSTED]

    def records(self) -> list[dict[str, Any]]:
        """A row for each metric there is: its mean of trained dictionaries, and its AUROC against each control."""
        return [
            {"metric": metric, TRAINED: self.mean(metric, TRAINED)}
            | {control: self.auroc(metric, control) for control in self.controls}
            for metric in METRICS
            if not math.isnan(self.mean(metric, TRAINED))
        ]

    def describe(self) -> dict[str, Any]:
        """Everything as JSON; NaN is null."""

        def or_null(value: Any) -> Any:
            return None if isinstance(value, float) and value != value else value

        return super().describe() | {
            "metrics": {
                name: {
                    "about": about,
                    "mean": {kind: or_null(self.mean(name, kind)) for kind in (TRAINED, *self.controls)},
                    "auroc": {control: or_null(self.auroc(name, control)) for control in self.controls},
                }
                for name, about in METRICS.items()
            },
            "dictionaries": [{key: or_null(value) for key, value in row.scalars().items()} for row in self.rows],
        }


def four_a_channel(d: int) -> SAEConfig:
    """The SAE of a layer with d channels: `TopK` with 4 latents for each, 4 of them active."""
    return TopK(latents=4 * d, k=4)


def metric_table(
    model: Model,
    layers: Sequence[str],
    images: Any,
    held_out_images: Any,
    *,
    annotated_images: Any = None,
    judge: Model | None = None,
    configs: Callable[[int], SAEConfig] = four_a_channel,
    controls: Sequence[str] = CONTROLS,
    seeds: int = 5,
    steps: int = 600,
    batch_size: int = 1024,
    vectors: int = 200_000,
    predicted: int | None = None,
    scaling: bool = False,
    planted: bool = False,
    seed: int = 0,
    progress: Progress = None,
) -> MetricTable:
    """Train SAEs and their controls at some layers, and see which metric tells them apart on held-out images.

    The controls: "untrained", random directions with biases as at the start; "frozen encoder", "frozen decoder" and
    "near decoder" (softly frozen), trained with these parts at their random start (arXiv 2602.14111); "shuffled data",
    trained on vectors whose channels were permuted independently, so that nothing goes together; "random network",
    trained and measured on the same network with random weights; and the decompositions of
    `sae.evaluation.controls.decompositions`, at equal L0.

    Args:
        model: the network; layers: with positions.
        images: to train on; held_out_images: others, best with labels and annotated parts.
        annotated_images: others with annotated parts, where those of `held_out_images` have none.
        judge: another network, in whose eyes top images are alike (default: the network itself).
        configs: configuration of the SAEs of a layer, of its channels d; seed and name are set by us (default: `TopK`
            with 4 latents a channel, 4 of them active).
        controls: which.
        seeds: dictionaries of each kind at each layer.
        steps, batch_size: of each training, of at most `vectors` positions sampled at random.
        predicted: measure predictions on so many of the held-out images (default: on all): the costliest metrics.
        scaling: also train every dictionary at half its size, for "gain of size".
        planted: also train every kind on planted families of features, for what is known of these
            (`sae.evaluation.trust.planted`).
        seed: the first one.
        progress: True for a bar, or a function of (done, total) dictionaries.

    Raises:
        SAEError: unknown controls, a single seed, a layer without positions, fewer than 10 images to measure on.

    >>> metric_table(model, ["mixed3b"], "scenes:500", "scenes:300@7").auroc("stability", "untrained")  # doctest: +SKIP
    1.0
    """
    whole("seeds", seeds)
    if seeds < 2:
        raise SAEError("seeds=1: how stable a dictionary is takes two of them, and a comparison more")
    for control in controls:
        one_of("controls", control, CONTROLS, error=SAEError)
    if not layers:
        raise SAEError("name at least one layer")
    start, training, testing = process_time(), open_images(images), open_images(held_out_images)
    annotated = None if annotated_images is None else open_images(annotated_images)
    if len(testing) < LEAST_IMAGES:
        raise SAEError(f"{testing.name} has {len(testing)} images to measure on: give at least {LEAST_IMAGES}")
    kinds = (TRAINED, *[name for name in CONTROLS if name in controls])
    rows: list[MeasuredDictionary] = []
    names = [VisionSite(model, layer).layer.name for layer in layers]
    with reporter(progress, "dictionaries") as report:
        total = (len(names) + planted) * seeds * len(kinds)
        for layer in names:
            site = VisionSite(model, layer)
            tested = held_out(model, layer, testing, annotated=annotated, judge=judge, seed=seed)
            by_kind: dict[str, list[_Trained]] = {kind: [] for kind in kinds}
            for number in range(seed, seed + seeds):
                acts = collect(site, training, sampling=fitting(site, training, vectors=vectors, seed=number)).vectors
                own = _seeded(configs(site.d), number)
                sizes = [own] + [replace(own, latents=own.latents // 2)] * (scaling and own.latents >= 2)
                here = [kind for kind in kinds if kind != "random network"]
                if "nmf" in here and float(acts.min()) < 0:
                    log.warning("%s: nmf is left out, since activations are below zero", site.address)
                    here.remove("nmf")
                for kind, sized in _dictionaries_of(here, acts, sizes, steps, batch_size):
                    by_kind[kind].append((sized, tested))
                    report(len(rows) + sum(map(len, by_kind.values())), total)
                if "random network" in kinds:
                    at = tested.seen_by(untrained(model, seed=number))
                    sampling = fitting(at.site, training, vectors=vectors, seed=number)
                    seen = collect(at.site, training, sampling=sampling).vectors
                    for _, sized in _dictionaries_of([TRAINED], seen, sizes, steps, batch_size):
                        by_kind["random network"].append((sized, at))
            rows += _measured(layer, by_kind, predicted, seed)
        for number in range(seed, seed + seeds if planted else seed):
            rows += _of_families(kinds, configs, number, steps, batch_size)
            report(len(rows), total)
    return MetricTable(
        model=model.name, layers=tuple(names), seeds=seeds, images=len(testing), rows=tuple(rows),
        seconds=process_time() - start,
        provenance=provenance(
            model=model.name, weights=model.digest, images=training.name, held_out=testing.name,
            annotated=None if annotated is None else annotated.name, judge=(judge or model).name,
            steps=steps, batch_size=batch_size, vectors=vectors, seed=seed,
            configs={name: _seeded(configs(VisionSite(model, name).d), seed).to_dict() for name in names},
        ),
    )  # fmt: skip


_Trained = tuple[list[Dictionary], HeldOut]
"""A dictionary, perhaps one of half its size, and what they are measured on."""
_OF_FIXED_SIZE = ("channels", "pca", "ica", "nmf")


def _of_families(
    kinds: Sequence[str], configs: Callable[[int], SAEConfig], seed: int, steps: int, batch_size: int
) -> list[MeasuredDictionary]:
    """Dictionaries of every kind of one layer of planted families, with two latents for each feature."""
    families = Families(seed=seed)
    config = configs(families.d)
    config = _seeded(replace(config, latents=2 * families.features, lr=None), seed)
    if hasattr(config, "k"):
        config = replace(config, k=4)  # type: ignore[call-arg]  # a parent or two, and their children
    acts, _ = families.sample(50_000, seed)
    rows = []
    here = [kind for kind in kinds if kind not in ("random network", "nmf")]  # no network; activations are below zero
    for kind, (dictionary,) in _dictionaries_of(here, acts, [config], steps, batch_size):
        values = dict.fromkeys(METRICS, math.nan) | planted_metrics(dictionary, families, seed=seed + 1)
        rows.append(MeasuredDictionary(PLANTED, kind, seed, dictionary.latents, values))
    return rows


def _seeded(config: SAEConfig, seed: int) -> SAEConfig:
    return replace(config, seed=seed, name=None, lr=config.lr or short_lr(config.latents))


def _dictionaries_of(
    kinds: Sequence[str], acts: Tensor, sizes: Sequence[SAEConfig], steps: int, batch_size: int
) -> Iterator[tuple[str, list[Dictionary]]]:
    """Dictionaries of each kind of vectors `(N, d)`, one a size; those that learn from the same vectors in one pass."""
    config, k = sizes[0], getattr(sizes[0], "k", None)
    learning: list[str] = []
    for kind in kinds:
        if kind in DECOMPOSITIONS:
            if k is None:
                raise SAEError(f"{config.architecture} has no k: the decompositions are compared at equal L0")
            some = sizes[:1] if kind in _OF_FIXED_SIZE else sizes
            yield kind, [decompose(acts.cpu(), kind, k=k, latents=c.latents, seed=c.seed) for c in some]
        elif kind == "untrained":
            yield kind, [untrained_sae(c, acts) for c in sizes]
        else:
            learning.append(kind)
    for shuffled in (False, True):
        group = [kind for kind in learning if (kind == "shuffled data") == shuffled]
        if not group:
            continue
        if shuffled:
            random = generator(config.seed, CONTROL, 2)
            acts = torch.stack([column[torch.randperm(len(column), generator=random)] for column in acts.T], dim=1)
        settings = [
            c if kind in (TRAINED, "shuffled data") else replace(c, frozen=kind.removeprefix("frozen "))  # type: ignore[arg-type]
            for kind in group
            for c in sizes
        ]
        runs = train(acts, settings, steps=steps, batch_size=batch_size, seed=config.seed, distributed=False)
        for i, kind in enumerate(group):
            yield kind, [run.sae.cpu() for run in runs[i * len(sizes) : (i + 1) * len(sizes)]]


def _measured(
    layer: str, by_kind: Mapping[str, list[_Trained]], predicted: int | None, seed: int
) -> list[MeasuredDictionary]:
    rows = []
    for kind, pairs in by_kind.items():
        if not pairs:
            continue
        preserved: list[dict[str, float]] = [{"kept predictions": math.nan, "loss recovered": math.nan}] * len(pairs)
        if kind != "random network":  # its predictions are of nothing
            preserved = pairs[0][1].predictions([dictionary for (dictionary, *_), _ in pairs], most=predicted)
        for i, ((dictionary, *half), at) in enumerate(pairs):
            values = at.measure(dictionary)
            if half:
                values["gain of size"] = 1 - (1 - values["explained variance"]) / at.unexplained(half[0])
            others = [
                matched_cosine(dictionary.write, other.write) for (other, *_), _ in pairs if other is not dictionary
            ]
            values |= {**preserved[i], "stability": sum(others) / len(others)}
            rows.append(MeasuredDictionary(layer, kind, seed + i, dictionary.latents, values))
    return rows
