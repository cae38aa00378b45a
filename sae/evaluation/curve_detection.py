"""Do latents detect curves of the orientations that channels leave out?

Curve detectors of a layer seldom point all ways alike. After Gorton, *The Missing Curve Detectors of InceptionV1*, 2024
(arXiv 2406.03662): latents of SAEs on early vision are said to fill the gaps. Here both are found by the tests of
`circuits.detectors`, and as many random directions go through the same tests. More detectors leave smaller gaps
whatever they are, so every gap stands beside that of as many orientations drawn by lot.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.network.model import Model
from circuits.network.responses import pooled_responses
from circuits.tuning.curves import Curve
from circuits.tuning.detectors.detector_types import Extent, Judgment, kind_of
from circuits.tuning.detectors.search import NATURAL, Detector
from circuits.tuning.measure import tune
from sae.checks import whole
from sae.data.vision_site import VisionSite
from sae.errors import SAEError
from sae.evaluation.baselines import RandomDictionary
from zoo.images.sources import open_images
from zoo.progress import Progress, reporter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHANNELS = "channels"
_LOOKED_AT = 4096  # vectors that say how sparse a basis is


@dataclass(frozen=True)
class Coverage:
    """How orientations lie on their circle, degrees.

    Attributes:
        count: of orientations.
        largest_gap: the largest stretch without any.
        mean_gap: period / count, and so no more than the count; NaN without any.
        expected_gap: the gap that an orientation drawn by lot falls into, on average: the least, `mean_gap`, when all
            gaps are alike.
        covered: share of the circle within `within` degrees of some orientation.
        chance: largest gap of as many orientations drawn by lot: median, and the range of 95 %.
        more_even: share of those draws whose largest gap is larger; 0.5 is chance.
        within, period: degrees.
    """

    count: int
    largest_gap: float
    mean_gap: float
    expected_gap: float
    covered: float
    chance: tuple[float, float, float]
    more_even: float
    within: float
    period: float

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        low = {"mean_gap": None if np.isnan(self.mean_gap) else self.mean_gap}
        return {**vars(self), **low, "chance": dict(zip(("median", "low", "high"), self.chance, strict=True))}


def coverage(
    orientations: Sequence[float], *, within: float = 10.0, period: float = 360.0, draws: int = 2000, seed: int = 0
) -> Coverage:
    """How evenly orientations lie on the circle.

    Args:
        orientations: degrees.
        within: how near an orientation is covered.
        period: 360, or 180 for lines.
        draws: of as many orientations by lot; seed: of these.

    Raises:
        SAEError: numbers that are no degrees.

    >>> coverage([0, 90, 180, 270]).largest_gap
    90.0
    """
    found = _degrees(orientations)
    for name, number in (("within", within), ("period", period)):
        if not 0 < number < float("inf"):
            raise SAEError(f"{name} is in degrees, above 0; not {number}")
    whole("draws", draws)
    gaps = gaps_of(found, period)
    by_lot = np.random.default_rng(seed).uniform(0, period, (draws, len(found)))
    largest = gaps_of(by_lot, period).max(axis=-1)
    low, median, high = np.quantile(largest, [0.025, 0.5, 0.975])
    return Coverage(
        count=len(found),
        largest_gap=float(gaps.max()),
        mean_gap=period / len(found) if len(found) else float("nan"),
        expected_gap=float((gaps**2).sum() / period),
        covered=float(np.minimum(gaps, 2 * within).sum() / period) if len(found) else 0.0,
        chance=(float(median), float(low), float(high)),
        more_even=_share_larger(largest, float(gaps.max())),
        within=within,
        period=period,
    )


def gaps_of(orientations: NDArray[np.float64], period: float = 360.0) -> NDArray[np.float64]:
    """Stretches between neighbors on the circle, `(..., n)` for `(..., n)` degrees; one whole circle for none."""
    if orientations.shape[-1] == 0:
        return np.full((*orientations.shape[:-1], 1), period)
    ordered = np.sort(orientations % period, axis=-1)
    return np.diff(ordered, axis=-1, append=ordered[..., :1] + period)


def _share_larger(drawn: NDArray[np.float64], gap: float) -> float:
    """Share of drawn gaps above one, equal ones counting half (to a rounding: the sum of gaps is a whole circle)."""
    return float(((drawn > gap + 1e-9).mean() + (drawn >= gap - 1e-9).mean()) / 2)


def apart(orientations: Sequence[float], others: Sequence[float], period: float = 360.0) -> NDArray[np.float64]:
    """Degrees from each orientation to the nearest of the others; the whole period where there are none."""
    a, b = _degrees(orientations), _degrees(others)
    if not len(b):
        return np.full(len(a), period)
    distance = np.abs((a[:, None] - b[None] + period / 2) % period - period / 2)
    return np.asarray(distance.min(axis=1))


@dataclass(frozen=True, eq=False)
class Searched:
    """Units of one kind, searched for curve detectors.

    Attributes:
        name: "channels", the name of a basis, or "random-4096-k32"; control: whether it is such random directions.
        units: how many; active: mean number above zero at a position of the pictures.
        scores: `(units,)`; detectors: those that pass, best first.
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


@dataclass(frozen=True)
class Filling:
    """What the detectors of a basis add to those among the channels.

    Attributes:
        in_gaps: how many of them point farther than `within` from every detector among the channels.
        largest_gap: of both together.
        by_lot: share of draws that leave a larger gap when as many orientations are drawn by lot instead.
        in_largest: how many lie in the channels' largest gap; expected: as many would by chance.
        single: how many write to one channel above all (cosine above 0.9 with it): a channel again, not a new feature.
    """

    in_gaps: int
    largest_gap: float
    by_lot: float
    in_largest: int
    expected: float
    single: int

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class CurveComparison:
    """What `compare` found.

    Attributes:
        address: of the layer; threshold: score from which a unit counts as a detector; within: degrees.
        searched: the channels, each basis, and random directions, as many and as sparse as each.
        coverages: of each, and of the channels together with each ("channels + topk").
        fillings: name of a basis or control -> what it adds to the channels.
        provenance: digests, seed, versions.
    """

    address: str
    threshold: float
    within: float
    searched: tuple[Searched, ...]
    coverages: Mapping[str, Coverage]
    fillings: Mapping[str, Filling]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Searched:
        """The units called so.

        Raises:
            SAEError: none were searched.
        """
        for one in self.searched:
            if one.name == name:
                return one
        raise SAEError(f"{name!r} was not searched; searched were {', '.join(one.name for one in self.searched)}")

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "address": self.address,
            "threshold": self.threshold,
            "within": self.within,
            "searched": [
                {
                    "name": one.name,
                    "control": one.control,
                    "units": one.units,
                    "active": one.active,
                    "best": float(one.scores.max()),
                    "detectors": [{"unit": d.unit, "score": d.score, "orientation": d.orientation, "tests": d.tests}
                                  for d in one.detectors],
                }
                for one in self.searched
            ],
            "coverage": {name: one.describe() for name, one in self.coverages.items()},
            "filling": {name: one.describe() for name, one in self.fillings.items()},
            "provenance": dict(self.provenance),
        }  # fmt: skip

    def figure(self, title: str = "") -> Figure:
        """Preferred orientations of the detectors on circles, the channels' gaps shaded."""
        from circuits.plot.sae.latent_quality import orientation_dials

        dials = {one.name: one.orientations for one in self.searched}
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
    """Find the curve detectors among the channels of a layer and among latents, and see which orientations they cover.

    A unit is a detector by the house's tests for curves (`circuits.detectors`), the same for all.

    Args:
        model: the model, with the bases attached (`VisionSite.attach`).
        layer: their layer.
        bases: names of the bases.
        images: natural pictures: then a unit must answer to curves as strongly as to these.
        orientations: shown over 360 degrees; a multiple of 4.
        threshold: score from which a unit counts as a detector.
        within: degrees within which an orientation counts as covered.
        control: put as many random directions, as many of them active, through the same tests.
        reach: positions around the middle that are read too.
        seed: of the random directions and of orientations drawn by lot.
        batch_size: pictures per forward pass.
        progress: True for a bar, or a function of (done, total) pictures.

    Raises:
        AddressError: no such layer or basis. SAEError: no basis, or numbers out of range.

    >>> compare(model, "mixed3b", "topk", images=photographs).coverages["channels + topk"]  # doctest: +SKIP
    """
    site = VisionSite(model, layer)
    name = site.layer.name
    if site.layer.part is not None:
        raise SAEError(f"{name} is a branch; its latents are units of the whole layer: name {site.layer.part[0]}")
    asked = [bases] if isinstance(bases, str) else list(bases)
    _check(asked, orientations, threshold, batch_size)
    pictures = None if images is None else open_images(images)
    kind = kind_of("curve")
    field_ = site.layer.receptive_field
    most = float(min(model.input.hw))
    shown = kind.stimuli(Extent(most if field_ is None else min(most, *field_.size), orientations, seed))
    # controls are attached to a copy: the caller's model stays as it is
    own = copy.copy(model)
    own.bases = dict(model.bases)
    vectors = _some(site, shown["outlines"].tensor(model.input, indices=range(0, len(shown["outlines"]), 12))
                    if pictures is None else pictures, batch_size)  # fmt: skip
    active, controls = {CHANNELS: _active(vectors)}, dict[str, str]()
    for basis in asked:
        found = own.basis(name, basis)
        active[basis] = _active(found.encode(vectors).cpu())
        count, k = len(found.read), max(1, round(active[basis]))
        drawn = f"random-{count}-k{k}"  # bases of one size and sparsity share it
        if control and drawn not in controls:
            controls[drawn] = basis
            own.attach(name, drawn, _RandomBasis(vectors.mean(dim=0).cpu(), count, k, seed=seed))
            active[drawn] = _active(own.basis(name, drawn).encode(vectors).cpu())
    names = [*(n for n in active if n not in controls), *controls]
    spaces = [name if n == CHANNELS else f"{name}~{n}" for n in names]
    with reporter(progress, "img") as report:
        total, done = sum(len(s) for s in shown.values()) + (0 if pictures is None else len(pictures)), 0
        tunings = {}
        for which, stimuli in shown.items():
            tunings[which] = tune(own, spaces, stimuli=stimuli, reach=reach, batch_size=batch_size)
            done += len(stimuli)
            report(done, total)
        natural = None
        if pictures is not None:
            peaks = pooled_responses(own, pictures, spaces, batch_size=batch_size)
            natural = torch.cat([peaks[space].float().quantile(NATURAL, dim=0) for space in spaces])
            report(total, total)
    judged = kind.judge(tunings)
    tests = {"strong": _strength(judged, natural), **judged.tests}
    scores = torch.stack(list(tests.values())).amin(dim=0)
    searched, start = [], 0
    for n in names:
        count = site.layer.channels if n == CHANNELS else len(own.basis(name, n).read)
        rows = range(start, start + count)
        found_here = _detectors(tunings["outlines"].units, name, judged, tests, scores, rows, threshold)
        searched.append(Searched(n, n in controls, count, active[n], scores[start : start + count], found_here))
        start += count
    return _compared(own, site, searched, threshold, within, seed, provenance(
        model=model.name, weights=model.digest, images=None if pictures is None else pictures.name,
        images_digest=None if pictures is None else pictures.digest, orientations=orientations, reach=reach, seed=seed,
    ))  # fmt: skip


class _RandomBasis(RandomDictionary):
    """Random directions as a basis that can be attached."""

    @property
    def read(self) -> Tensor:
        return self.directions

    @property
    def write(self) -> Tensor:
        return self.directions


def _compared(
    model: Model, site: VisionSite, searched: list[Searched], threshold: float, within: float, seed: int, about: Any
) -> CurveComparison:
    channels = searched[0].orientations
    coverages = {one.name: coverage(one.orientations, within=within, seed=seed) for one in searched}
    fillings = {}
    for one in searched[1:]:
        both = coverage([*channels, *one.orientations], within=within, seed=seed)
        coverages[f"{CHANNELS} + {one.name}"] = both
        write = model.basis(site.layer.name, one.name).write.detach().cpu()
        chosen = write[[int(d.unit.rpartition(":")[2]) for d in one.detectors]]
        cosines = chosen.abs().amax(dim=1) / chosen.norm(dim=1)
        fillings[one.name] = filling(
            channels, one.orientations, within=within, seed=seed, single=int((cosines > 0.9).sum())
        )
    return CurveComparison(site.address, threshold, within, tuple(searched), coverages, fillings, about)


def filling(
    channels: Sequence[float],
    added: Sequence[float],
    *,
    within: float = 10.0,
    period: float = 360.0,
    draws: int = 2000,
    seed: int = 0,
    single: int = 0,
) -> Filling:
    """What orientations add to those that are there, beside as many drawn by lot.

    Args:
        channels: degrees that are there; added: those that come to them.
        within: degrees; period: 360, or 180 for lines; draws: by lot; seed: of these.
        single: see `Filling`, kept as it is.
    """
    there, more = _degrees(channels) % period, _degrees(added) % period
    both = float(gaps_of(np.concatenate([there, more]), period).max())
    by_lot = np.random.default_rng(seed).uniform(0, period, (draws, len(more)))
    largest = gaps_of(np.concatenate([np.broadcast_to(there, (draws, len(there))), by_lot], axis=1), period).max(axis=1)
    inside, gap = _in_largest(there, more, period)
    return Filling(
        in_gaps=int((apart(more.tolist(), there.tolist(), period) > within).sum()),
        largest_gap=both,
        by_lot=_share_larger(largest, both),
        in_largest=inside,
        expected=len(more) * gap / period,
        single=single,
    )


def _in_largest(there: NDArray[np.float64], more: NDArray[np.float64], period: float) -> tuple[int, float]:
    """How many lie inside the largest gap of those that are there, and how large it is."""
    gaps = gaps_of(there, period)
    if len(there) < 2:
        return len(more), period
    widest = int(gaps.argmax())
    ahead = (more - np.sort(there)[widest]) % period
    return int(((ahead > 0) & (ahead < gaps[widest])).sum()), float(gaps[widest])


def _detectors(
    units: Sequence[str], layer: str, judged: Judgment, tests: Mapping[str, Tensor], scores: Tensor, rows: range,
    threshold: float,
) -> tuple[Detector, ...]:  # fmt: skip
    made = []
    for i in rows:
        orientation = float(judged.direction[i])
        if not float(scores[i]) >= threshold or np.isnan(orientation):
            continue
        preferred = {name: values[i] for name, values in judged.preferred.items()}
        curve = Curve(units[i], judged.axis, judged.around[i], preferred)
        passed = {name: float(values[i]) for name, values in tests.items()}
        made.append(
            Detector(units[i], layer, "curve", float(scores[i]), passed, orientation, preferred,
                     float(judged.peak[i]), curve=curve)
        )  # fmt: skip
    return tuple(sorted(made, key=lambda d: -d.score))


def _strength(judged: Judgment, natural: Tensor | None) -> Tensor:
    """The test "strong", as `find_detectors` has it: what no picture rouses is no detector."""
    most = torch.maximum(judged.peak, judged.rivals if natural is None else natural)
    there = judged.peak > 0 if natural is None else (judged.peak > 0) & (natural > 0)
    return torch.where(there, judged.peak / most.clamp_min(1e-30), torch.zeros_like(most))


def _some(site: VisionSite, pictures: Any, batch_size: int) -> Tensor:
    """Some vectors of the layer, evenly from the first pictures."""
    opened = site.open(pictures)
    acts = [b.vectors for b in site.blocks(opened.subset(range(min(len(opened), 48))), batch_size=batch_size)]
    vectors = torch.cat(acts)
    return vectors[:: max(1, len(vectors) // _LOOKED_AT)][:_LOOKED_AT]


def _active(latents: Tensor) -> float:
    return float((latents > 0).sum(dim=1).double().mean())


def _degrees(orientations: Sequence[float]) -> NDArray[np.float64]:
    try:
        found = np.asarray(orientations, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SAEError("orientations are a list of degrees") from error
    if found.ndim != 1 or not np.isfinite(found).all():
        raise SAEError("orientations are a list of degrees, each a finite number")
    return found


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
