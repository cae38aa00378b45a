"""Do latents detect curves of the orientations that channels miss?

The curve detectors of a layer do not cover all orientations evenly. Gorton, *The Missing Curve Detectors of
InceptionV1*, 2024 (arXiv 2406.03662) reports that latents of SAEs on early vision fill the gaps. Here channels, latents
and as many random directions pass through the same tests (`circuits.tuning.detectors`). More detectors leave smaller
gaps whatever their orientations, so every gap stands beside that of as many random orientations.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.network.model import Model
from circuits.network.responses import pooled_responses
from circuits.tuning.detectors.detector_types import Extent, kind_of
from circuits.tuning.detectors.search import NATURAL, Detector, detectors_among, score_of, tests_of
from circuits.tuning.measure import tune
from sae.checks import whole
from sae.data.vision_site import VisionSite
from sae.errors import SAEError
from sae.evaluation.baselines import RandomDictionary
from sae.evaluation.orientation_coverage import Coverage, Filling, coverage, filling
from zoo.common.results import HIDDEN, Result, called
from zoo.images.sources import open_images
from zoo.progress import Progress, reporter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHANNELS = "channels"
_SAMPLED = 4096  # vectors from which the sparsity of a basis is measured


@dataclass(frozen=True, eq=False)
class Searched:
    """Curve detectors among the channels, or among the units of one basis.

    Attributes:
        name: "channels", the name of a basis, or "random-4096-k32"; control: whether it is random directions.
        units: their number; active: mean number above zero at a position of the images.
        scores: `(units,)`; detectors: units above the threshold, best first.
    """

    name: str
    control: bool
    units: int
    active: float
    scores: Tensor
    detectors: tuple[Detector, ...]

    @property
    def orientations(self) -> list[float]:
        """Preferred orientations of the detectors, degrees."""
        return [d.orientation for d in self.detectors]


@dataclass(frozen=True, eq=False)
class CurveComparison(Result):
    """Result of `compare`.

    Attributes:
        address: of the layer; threshold: score from which a unit counts as a detector; within: degrees.
        searched: the channels, each basis, and random directions in the number and sparsity of each.
        coverages: of each, and of the channels together with each ("channels + topk").
        fillings: name of a basis or control -> what it adds to the channels.
        provenance: digests, seed, versions.
    """

    address: str
    threshold: float
    within: float
    searched: tuple[Searched, ...] = field(metadata=HIDDEN)
    coverages: Mapping[str, Coverage] = field(metadata=called("coverage"))
    fillings: Mapping[str, Filling] = field(metadata=called("filling"))
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Searched:
        """The channels or the basis of that name.

        Raises:
            SAEError: it was not searched.
        """
        for entry in self.searched:
            if entry.name == name:
                return entry
        raise SAEError(f"{name!r} was not searched; searched were {', '.join(entry.name for entry in self.searched)}")

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        searched = [
            {name: getattr(entry, name) for name in ("name", "control", "units", "active")}
            | {
                "best": float(entry.scores.max()),
                "detectors": [
                    {"unit": d.unit, "score": d.score, "orientation": d.orientation, "tests": d.tests}
                    for d in entry.detectors
                ],
            }
            for entry in self.searched
        ]
        return super().describe() | {"searched": searched}

    def figure(self, title: str = "") -> Figure:
        """Preferred orientations of the detectors on circles, the channels' gaps shaded."""
        from circuits.plot.sae.latent_quality import orientation_dials

        dials = {entry.name: entry.orientations for entry in self.searched}
        return orientation_dials(
            dials, reference=CHANNELS, within=self.within, title=title or f"{self.address}: curve detectors"
        )


@torch.no_grad()
def compare(
    model: Model,
    layer: str,
    bases: Sequence[str] | str,
    *,
    images: Any = None,
    orientations: int = 24,
    threshold: float = 0.5,
    within: float = 10.0,
    control: bool = True,
    reach: int = 1,
    seed: int = 0,
    batch_size: int = 16,
    progress: Progress = None,
) -> CurveComparison:
    """Find curve detectors among the channels of a layer and among latents, and compare the orientations they cover.

    A unit is a detector by the tests of `circuits.tuning.detectors`, the same for channels, latents and controls.

    Args:
        model: the model, with the bases attached (`VisionSite.attach`).
        layer: their layer.
        bases: names of the bases.
        images: natural images: then a unit must respond to curves as strongly as to these.
        orientations: number of orientations over 360 degrees; a multiple of 4.
        threshold: score from which a unit counts as a detector.
        within: degrees within which an orientation counts as covered.
        control: test as many random directions, at the same sparsity, too.
        reach: positions around the center that are read too.
        seed: of the random directions and random orientations.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total) images.

    Raises:
        AddressError: no such layer or basis. SAEError: no basis, or numbers out of range.

    >>> compare(model, "mixed3b", "topk", images=photographs).coverages["channels + topk"]  # doctest: +SKIP
    """
    site = VisionSite(model, layer)
    name = site.layer.name
    if site.layer.part is not None:
        raise SAEError(f"{name} is a branch; its latents are units of the whole layer: name {site.layer.part[0]}")
    names_of_bases = [bases] if isinstance(bases, str) else list(bases)
    _check(names_of_bases, orientations, threshold, batch_size)
    source = None if images is None else open_images(images)
    kind = kind_of("curve")
    field_ = site.layer.receptive_field
    most = float(min(model.input.hw))
    stimuli_of = kind.stimuli(Extent(most if field_ is None else min(most, *field_.size), orientations, seed))
    # controls are attached to a copy: the caller's model does not change
    own = copy.copy(model)
    own.bases = dict(model.bases)
    vectors = _sample_vectors(site, stimuli_of["outlines"].tensor(model.input, indices=range(0,
    len(stimuli_of["outlines"]), 12))
                    if source is None else source, batch_size)  # fmt: skip
    active, controls = {CHANNELS: _active(vectors)}, dict[str, str]()
    for basis in names_of_bases:
        attached = own.basis(name, basis)
        active[basis] = _active(attached.encode(vectors).cpu())
        count, k = len(attached.read), max(1, round(active[basis]))
        control_name = f"random-{count}-k{k}"  # bases of one size and sparsity share a control
        if control and control_name not in controls:
            controls[control_name] = basis
            own.attach(name, control_name, RandomDictionary(vectors.mean(dim=0).cpu(), count, k, seed=seed))
            active[control_name] = _active(own.basis(name, control_name).encode(vectors).cpu())
    names = [*(n for n in active if n not in controls), *controls]
    spaces = [name if n == CHANNELS else f"{name}~{n}" for n in names]
    with reporter(progress, "img") as report:
        total, finished = sum(len(s) for s in stimuli_of.values()) + (0 if source is None else len(source)), 0
        tunings = {}
        for which, stimuli in stimuli_of.items():
            tunings[which] = tune(own, spaces, stimuli=stimuli, reach=reach, batch_size=batch_size)
            finished += len(stimuli)
            report(finished, total)
        natural = None
        if source is not None:
            peaks = pooled_responses(own, source, spaces, batch_size=batch_size)
            natural = torch.cat([peaks[space].float().quantile(NATURAL, dim=0) for space in spaces])
            report(total, total)
    judged = kind.judge(tunings)
    tests = tests_of(judged, natural)
    scores = score_of(tests)
    searched, start = [], 0
    for n in names:
        count = site.layer.channels if n == CHANNELS else len(own.basis(name, n).read)
        rows = range(start, start + count)
        detectors = detectors_among(judged, tests, tunings["outlines"].units, rows, name, "curve", threshold)
        searched.append(Searched(n, n in controls, count, active[n], scores[start : start + count], tuple(detectors)))
        start += count
    return _compared(own, site, searched, threshold, within, seed, provenance(
        model=model.name, weights=model.digest, images=None if source is None else source.name,
        images_digest=None if source is None else source.digest, orientations=orientations, reach=reach, seed=seed,
    ))  # fmt: skip


def _compared(
    model: Model, site: VisionSite, searched: list[Searched], threshold: float, within: float, seed: int, about: Any
) -> CurveComparison:
    channels = searched[0].orientations
    coverages = {entry.name: coverage(entry.orientations, within=within, seed=seed) for entry in searched}
    fillings = {}
    for entry in searched[1:]:
        both = coverage([*channels, *entry.orientations], within=within, seed=seed)
        coverages[f"{CHANNELS} + {entry.name}"] = both
        write = model.basis(site.layer.name, entry.name).write.detach().cpu()
        chosen = write[[int(d.unit.rpartition(":")[2]) for d in entry.detectors]]
        cosines = chosen.abs().amax(dim=1) / chosen.norm(dim=1)
        fillings[entry.name] = filling(
            channels, entry.orientations, within=within, seed=seed, single=int((cosines > 0.9).sum())
        )
    return CurveComparison(site.address, threshold, within, tuple(searched), coverages, fillings, about)


def _sample_vectors(site: VisionSite, images: Any, batch_size: int) -> Tensor:
    """Vectors of the layer at even intervals, from the first 48 images."""
    opened = site.open(images)
    acts = [b.vectors for b in site.blocks(opened.subset(range(min(len(opened), 48))), batch_size=batch_size)]
    vectors = torch.cat(acts)
    return vectors[:: max(1, len(vectors) // _SAMPLED)][:_SAMPLED]


def _active(latents: Tensor) -> float:
    return float((latents > 0).sum(dim=1).double().mean())


def _check(bases: Sequence[str], orientations: int, threshold: float, batch_size: int) -> None:
    if not bases:
        raise SAEError("name at least one basis that is attached to the layer")
    if CHANNELS in bases or len(set(bases)) < len(bases):
        raise SAEError(f"bases have different names, none of them {CHANNELS!r}; got {', '.join(bases)}")
    if isinstance(orientations, bool) or not isinstance(orientations, int) or orientations < 8 or orientations % 4:
        raise SAEError(f"orientations is a multiple of 4, at least 8; not {orientations}")
    if not 0 < threshold <= 1:
        raise SAEError(f"a threshold on scores lies in (0, 1], not {threshold}")
    whole("batch_size", batch_size)
