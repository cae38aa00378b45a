"""Search a network for detectors by their tuning, with untrained networks of the same architecture as the control."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.common.statistics import permutation_p
from circuits.common.untrained import Untrained, untrained
from circuits.errors import CircuitsError, shorten
from circuits.network.model import Model
from circuits.network.responses import pooled_responses
from circuits.tuning.circular_statistics import largest_gap
from circuits.tuning.curves import Curve
from circuits.tuning.detectors.detector_types import Extent, Judgment, kind_of
from circuits.tuning.measure import tune
from zoo.common.checks import number, whole_number
from zoo.common.results import HIDDEN, Listed, Result, called, plain
from zoo.images.sources import Images, open_images
from zoo.progress import Progress, reporter

NATURAL = 0.99
"""Quantile over natural images of a unit's maximum activation on each: its natural range without outliers."""


@dataclass(frozen=True)
class Detector(Result):
    """One unit that passed the tests.

    Attributes:
        unit: address; layer: its layer; kind: of detector.
        score: the least of its tests, in [0, 1].
        tests: each by name; `Kind.means` defines them.
        orientation: preferred, degrees counter-clockwise, by the conventions of `circuits.stimuli`.
        preferred: its other preferred values (radius in pixels, width, ratio, pair).
        peak: response to its best stimulus.
        p: share of untrained units of the same layer that score as high, the detector itself counted among them; None
            without a control.
        false_discovery_rate: of the units of the layer that score as high, the share that would by chance: p corrected
            for the choice among all of them (Benjamini and Hochberg 1995). None without a control.
        curve: its responses around the circle of orientations, for `plot.radial_tuning`.
    """

    unit: str
    layer: str
    kind: str
    score: float
    tests: Mapping[str, float]
    orientation: float
    preferred: Mapping[str, Any]
    peak: float
    p: float | None = None
    false_discovery_rate: float | None = None
    curve: Curve | None = field(default=None, compare=False, repr=False, metadata=HIDDEN)

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return super().describe() | {"curve": None if self.curve is None else plain(self.curve.responses)}


@dataclass(frozen=True, eq=False)
class Detectors(Listed[Detector]):
    """The result of `find_detectors`.

    Attributes:
        kind: of detector; layers: searched, in order; threshold: the score from which a unit counts.
        rows: the detectors, best first.
        scores: layer -> `(units,)` scores of all units.
        control: layer -> `(units,)` scores of untrained units; empty without a control.
        control_kind: "random", "shuffled" or None.
        period: of orientations, 360 or 180 degrees.
        provenance: digests, seed, versions.
    """

    kind: str
    layers: tuple[str, ...] = field(metadata=HIDDEN)
    threshold: float
    rows: tuple[Detector, ...] = field(metadata=called("detectors"))
    scores: Mapping[str, Tensor] = field(metadata=HIDDEN)
    control: Mapping[str, Tensor] = field(metadata=HIDDEN)
    control_kind: str | None = field(metadata=called("control"))
    period: float
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def of(self, layer: str) -> tuple[Detector, ...]:
        """The detectors of one layer, best first.

        Raises:
            CircuitsError: the layer was not searched.
        """
        if layer not in self.scores:
            raise CircuitsError(f"{layer} was not searched; searched were {', '.join(self.layers)}")
        return tuple(r for r in self.rows if r.layer == layer)

    def gap(self, layer: str) -> float:
        """The largest stretch of orientations that no detector of a layer prefers, in degrees."""
        return largest_gap([r.orientation for r in self.of(layer)], self.period)

    def chance(self, layer: str) -> tuple[float, float] | None:
        """Of untrained units of a layer: the best score, and the share of detectors; None without a control."""
        if layer not in self.control:
            return None
        scores = self.control[layer]
        return float(scores.max()), float((scores >= self.threshold).float().mean())

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        by_layer = []
        for layer in self.layers:
            best, share = self.chance(layer) or (None, None)
            by_layer.append(
                {
                    "layer": layer,
                    "units": len(self.scores[layer]),
                    "detectors": len(self.of(layer)),
                    "best": float(self.scores[layer].max()),
                    "largest_gap": self.gap(layer),
                    "control_best": best,
                    "control_share": share,
                }
            )
        return super().describe() | {"layers": by_layer}


def find_detectors(
    model: Model,
    kind: str,
    *,
    layers: Sequence[str] | str | None = None,
    images: Any = None,
    orientations: int = 24,
    threshold: float = 0.5,
    control: Untrained | None = "random",
    controls: int = 1,
    reach: int = 1,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> Detectors:
    """Search for units of a kind by their tuning, for networks without a published list of units.

    A unit's score is the least of its tests (`circuits.detectors.KINDS`), so that a detector passes every one of them.
    The same search on an untrained copy of the network is the control.

    Args:
        model: the model.
        kind: "curve", "line", "high-low" or "color-contrast".
        layers: where to look; by default every trunk layer with a map.
        images: natural images, in any form that `capture` takes: responses are then relative to those to the images.
            Without them, to the unit's best stimulus.
        orientations: how many over 360 degrees; a multiple of 4.
        threshold: score from which a unit counts as a detector.
        control: "random" weights, trained weights "shuffled", or None.
        controls: how many untrained networks.
        reach: positions around the center that are read too.
        seed: of textures and untrained weights.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total) stimuli.

    Raises:
        CircuitsError: an unknown kind, or numbers out of range. AddressError: an unknown layer.
        StimuliError: color contrast for a model without three channels.

    >>> find_detectors(load("scenes"), "line", layers="conv2d1", control=None).kind
    'line'
    """
    model.check_images("a search for detectors")
    detector = kind_of(kind)
    _check(orientations, threshold, controls)
    names = _layers(model, layers)
    source = None if images is None else open_images(images)
    models = [model]
    if control is not None:
        models += [untrained(model, control, seed=seed + i) for i in range(controls)]
    stimuli = {layer: detector.stimuli(_extent(model, layer, orientations, seed)) for layer in names}
    total = len(models) * sum(len(s) for sets in stimuli.values() for s in sets.values())
    judged: list[dict[str, Judgment]] = []
    natural: list[dict[str, Tensor]] = []
    with reporter(progress, "img") as report:
        count = 0
        for network in models:
            judged.append({})
            for layer in names:
                tunings = {}
                for name, stimulus in stimuli[layer].items():
                    tunings[name] = tune(network, layer, stimuli=stimulus, reach=reach, batch_size=batch_size)
                    count += len(stimulus)
                    report(count, total)
                judged[-1][layer] = detector.judge(tunings)
            natural.append({} if source is None else _natural(network, source, names, batch_size))
    tests = [{layer: tests_of(j[layer], n.get(layer)) for layer in names} for j, n in zip(judged, natural, strict=True)]
    scores = [{layer: score_of(t[layer]) for layer in names} for t in tests]
    chance = {layer: torch.cat([s[layer] for s in scores[1:]]) for layer in names} if len(models) > 1 else {}
    rows = []
    for layer in names:
        units = [str(model.resolve(f"{layer}:{i}")) for i in range(len(scores[0][layer]))]
        rows += detectors_among(
            judged[0][layer], tests[0][layer], units, range(len(units)), layer, detector.name, threshold,
            chance.get(layer),
        )  # fmt: skip
    return Detectors(
        kind=detector.name,
        layers=tuple(names),
        threshold=threshold,
        rows=tuple(sorted(rows, key=lambda r: -r.score)),
        scores=scores[0],
        control=chance,
        control_kind=control,
        period=detector.period,
        provenance=provenance(
            weights=model.digest,
            model=model.name,
            images=None if source is None else source.name,
            images_digest=None if source is None else source.digest,
            orientations=orientations,
            controls=controls if control is not None else 0,
            reach=reach,
            seed=seed,
        ),
    )


def _check(orientations: int, threshold: float, controls: int) -> None:
    if isinstance(orientations, bool) or not isinstance(orientations, int) or orientations < 8 or orientations % 4:
        raise CircuitsError(f"orientations={shorten(orientations)} must be a multiple of 4, at least 8")
    number("threshold", threshold, above=0, most=1)
    whole_number("controls", controls)


def _layers(model: Model, layers: Sequence[str] | str | None) -> list[str]:
    if layers is None:
        names = [n for n in model.trunk if model.layers[n].size is not None]
    else:
        names = [model.layer(n).name for n in ([layers] if isinstance(layers, str) else layers)]
    if not names:
        raise CircuitsError(f"name at least one layer of {model.name} to search, for example layers=['mixed3b']")
    return list(dict.fromkeys(names))


def _extent(model: Model, layer: str, orientations: int, seed: int) -> Extent:
    field, most = model.layers[layer].receptive_field, min(model.input.hw)
    return Extent(float(most if field is None else min(most, *field.size)), orientations, seed)


def _natural(model: Model, images: Images, layers: list[str], batch_size: int) -> dict[str, Tensor]:
    """A high quantile of every unit's maximum activations on natural images."""
    peaks = pooled_responses(model, images, layers, pool="max", batch_size=batch_size)
    return {layer: values.float().quantile(NATURAL, dim=0) for layer, values in peaks.items()}


def tests_of(judged: Judgment, natural: Tensor | None) -> dict[str, Tensor]:
    """All tests of a layer's units, the strength of the response among them."""
    most = torch.maximum(judged.peak, judged.rivals if natural is None else natural)
    strong = torch.where(judged.peak > 0, judged.peak / most.clamp_min(1e-30), torch.zeros_like(most))
    if natural is not None:
        # a unit that no natural image activates detects nothing in natural images
        strong = torch.where(natural > 0, strong, torch.zeros_like(strong))
    return {"strong": strong, **judged.tests}


def score_of(tests: Mapping[str, Tensor]) -> Tensor:
    """The least of a unit's tests, `(units,)`."""
    return torch.stack(list(tests.values())).amin(dim=0)


def detectors_among(
    judged: Judgment, tests: Mapping[str, Tensor], units: Sequence[str], rows: range, layer: str, kind: str,
    threshold: float, chance: Tensor | None = None,
) -> list[Detector]:  # fmt: skip
    """Of the units judged, those in `rows` that pass all tests and prefer an orientation, best first."""
    scores = score_of(tests)
    passing = set((scores >= threshold).nonzero().flatten().tolist())
    p, rates = ({}, {}) if chance is None else _by_chance(scores, rows, chance)
    detectors = []
    for i in rows:
        orientation = float(judged.direction[i])
        if i not in passing or math.isnan(orientation):
            continue
        preferred = {name: values[i] for name, values in judged.preferred.items()}
        detectors.append(
            Detector(
                unit=units[i],
                layer=layer,
                kind=kind,
                score=float(scores[i]),
                tests={name: float(values[i]) for name, values in tests.items()},
                orientation=orientation,
                preferred=preferred,
                peak=float(judged.peak[i]),
                p=p.get(i),
                false_discovery_rate=rates.get(i),
                curve=Curve(units[i], judged.axis, judged.around[i], preferred),
            )
        )
    return sorted(detectors, key=lambda detector: -detector.score)


def _by_chance(scores: Tensor, rows: range, chance: Tensor) -> tuple[dict[int, float], dict[int, float]]:
    """Unit -> `Detector.p`, and its false discovery rate, for all units in `rows`."""
    from scipy.stats import false_discovery_control

    p = [permutation_p(float(scores[i]), chance) for i in rows]
    return dict(zip(rows, p, strict=True)), dict(zip(rows, false_discovery_control(p).tolist(), strict=True))
