"""Search a network for detectors by their tuning, and an untrained network of the same make for chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.common.statistics import permutation_p
from circuits.errors import CircuitsError
from circuits.network.model import Model
from circuits.network.responses import pooled_responses
from circuits.network.untrained import Untrained, untrained
from circuits.tuning.circular_statistics import largest_gap
from circuits.tuning.curves import Curve
from circuits.tuning.detectors.detector_types import Extent, Judgment, Kind, kind_of
from circuits.tuning.measure import tune
from zoo.images.sources import Images, open_images
from zoo.progress import Progress, reporter

NATURAL = 0.99
"""Quantile over pictures of a unit's strongest response to each: its natural range, outliers left out."""


@dataclass(frozen=True)
class Detector:
    """One unit that passed the tests.

    Attributes:
        unit: address; layer: its layer; kind: of detector.
        score: the least of its tests, in [0, 1].
        tests: each by name; what they ask stands in `Kind.means`.
        orientation: preferred, degrees counter-clockwise, by the conventions of `circuits.stimuli`.
        preferred: what else it prefers (radius in pixels, width, ratio, pair).
        peak: response to its best stimulus.
        p: share of untrained units of the same layer that score as high, the detector itself counted among them; None
            without a control.
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
    curve: Curve | None = field(default=None, compare=False, repr=False)

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        plain = {**vars(self), "tests": dict(self.tests), "preferred": dict(self.preferred)}
        plain["curve"] = None if self.curve is None else [float(v) for v in self.curve.responses]
        return plain


@dataclass(frozen=True, eq=False)
class Detectors:
    """What a search found.

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
    layers: tuple[str, ...]
    threshold: float
    rows: tuple[Detector, ...]
    scores: Mapping[str, Tensor]
    control: Mapping[str, Tensor]
    control_kind: str | None
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
        """Of untrained units of a layer: the best score, and the share that counts as detectors; None if not looked."""
        if layer not in self.control:
            return None
        scores = self.control[layer]
        return float(scores.max()), float((scores >= self.threshold).float().mean())

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        by_layer = []
        for layer in self.layers:
            chance = self.chance(layer)
            by_layer.append(
                {
                    "layer": layer,
                    "units": len(self.scores[layer]),
                    "detectors": len(self.of(layer)),
                    "best": float(self.scores[layer].max()),
                    "largest_gap": self.gap(layer),
                    "control_best": None if chance is None else chance[0],
                    "control_share": None if chance is None else chance[1],
                }
            )
        return {
            "kind": self.kind,
            "threshold": self.threshold,
            "control": self.control_kind,
            "period": self.period,
            "layers": by_layer,
            "detectors": [row.describe() for row in self.rows],
            "provenance": dict(self.provenance),
        }


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
    """Search for units of a kind by what they answer to, where no published list of units holds.

    A unit's score is the least of its tests (`circuits.detectors.KINDS`), so that a detector passes every one of them.
    The same search on an untrained copy of the network shows what chance gives.

    Args:
        model: the model.
        kind: "curve", "line", "high-low" or "color-contrast".
        layers: where to look; by default every trunk layer with a map.
        images: natural pictures, in any form that `capture` takes: then responses are measured by what these arouse.
            Without them, by the unit's best stimulus.
        orientations: shown over 360 degrees; a multiple of 4.
        threshold: score from which a unit counts as a detector.
        control: "random" weights, trained weights "shuffled", or None.
        controls: how many untrained networks.
        reach: positions around the middle that are read too.
        seed: of textures and untrained weights.
        batch_size: pictures per forward pass.
        progress: True for a bar, or a function of (done, total) stimuli.

    Raises:
        CircuitsError: an unknown kind, or numbers out of range. AddressError: an unknown layer.
        StimuliError: color contrast asked of a model without three channels.

    >>> find_detectors(load("scenes"), "line", layers="conv2d1", control=None).kind
    'line'
    """
    asked = kind_of(kind)
    _check(orientations, threshold, controls)
    wanted = _layers(model, layers)
    pictures = None if images is None else open_images(images)
    models = [model]
    if control is not None:
        models += [untrained(model, control, seed=seed + i) for i in range(controls)]
    shown = {layer: asked.stimuli(_extent(model, layer, orientations, seed)) for layer in wanted}
    total = len(models) * sum(len(s) for sets in shown.values() for s in sets.values())
    judged: list[dict[str, Judgment]] = []
    natural: list[dict[str, Tensor]] = []
    with reporter(progress, "img") as report:
        done = 0
        for one in models:
            judged.append({})
            for layer in wanted:
                tunings = {}
                for name, stimuli in shown[layer].items():
                    tunings[name] = tune(one, layer, stimuli=stimuli, reach=reach, batch_size=batch_size)
                    done += len(stimuli)
                    report(done, total)
                judged[-1][layer] = asked.judge(tunings)
            natural.append({} if pictures is None else _natural(one, pictures, wanted, batch_size))
    tests = [{layer: _tests(j[layer], n.get(layer)) for layer in wanted} for j, n in zip(judged, natural, strict=True)]
    scores = [{layer: _score(t[layer]) for layer in wanted} for t in tests]
    chance = {layer: torch.cat([s[layer] for s in scores[1:]]) for layer in wanted} if len(models) > 1 else {}
    rows = [
        row
        for layer in wanted
        for row in _rows(model, layer, asked, judged[0][layer], tests[0][layer], scores[0][layer], threshold, chance)
    ]
    return Detectors(
        kind=asked.name,
        layers=tuple(wanted),
        threshold=threshold,
        rows=tuple(sorted(rows, key=lambda r: -r.score)),
        scores=scores[0],
        control=chance,
        control_kind=control,
        period=asked.period,
        provenance=provenance(
            weights=model.digest,
            model=model.name,
            images=None if pictures is None else pictures.name,
            images_digest=None if pictures is None else pictures.digest,
            orientations=orientations,
            controls=controls if control is not None else 0,
            reach=reach,
            seed=seed,
        ),
    )


def _check(orientations: int, threshold: float, controls: int) -> None:
    if isinstance(orientations, bool) or not isinstance(orientations, int) or orientations < 8 or orientations % 4:
        raise CircuitsError(f"orientations is a multiple of 4, at least 8; not {orientations}")
    if not 0 < threshold <= 1:
        raise CircuitsError(f"a threshold on scores lies in (0, 1], not {threshold}")
    if controls < 1:
        raise CircuitsError(f"controls is at least 1, not {controls}; control=None leaves them out")


def _layers(model: Model, layers: Sequence[str] | str | None) -> list[str]:
    if layers is None:
        found = [n for n in model.trunk if model.layers[n].size is not None]
    else:
        found = [model.layer(n).name for n in ([layers] if isinstance(layers, str) else layers)]
    if not found:
        raise CircuitsError(f"name at least one layer of {model.name} to search, for example layers=['mixed3b']")
    return list(dict.fromkeys(found))


def _extent(model: Model, layer: str, orientations: int, seed: int) -> Extent:
    field, most = model.layers[layer].receptive_field, min(model.input.hw)
    return Extent(float(most if field is None else min(most, *field.size)), orientations, seed)


def _natural(model: Model, pictures: Images, layers: list[str], batch_size: int) -> dict[str, Tensor]:
    """How strongly pictures drive every unit: a high quantile of its peaks."""
    peaks = pooled_responses(model, pictures, layers, pool="max", batch_size=batch_size)
    return {layer: values.float().quantile(NATURAL, dim=0) for layer, values in peaks.items()}


def _tests(judged: Judgment, natural: Tensor | None) -> dict[str, Tensor]:
    """All tests of a layer's units, the strength of the response among them."""
    most = torch.maximum(judged.peak, judged.rivals if natural is None else natural)
    strong = torch.where(judged.peak > 0, judged.peak / most.clamp_min(1e-30), torch.zeros_like(most))
    if natural is not None:
        # what no picture rouses is no detector of anything in pictures
        strong = torch.where(natural > 0, strong, torch.zeros_like(strong))
    return {"strong": strong, **judged.tests}


def _score(tests: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(tests.values())).amin(dim=0)


def _rows(
    model: Model,
    layer: str,
    kind: Kind,
    judged: Judgment,
    tests: Mapping[str, Tensor],
    scores: Tensor,
    threshold: float,
    chance: Mapping[str, Tensor],
) -> list[Detector]:
    made = []
    for i in (scores >= threshold).nonzero().flatten().tolist():
        orientation = float(judged.direction[i])
        if math.isnan(orientation):
            continue
        p = None
        if layer in chance:
            p = permutation_p(float(scores[i]), chance[layer])
        unit = str(model.resolve(f"{layer}:{i}"))
        preferred = {name: values[i] for name, values in judged.preferred.items()}
        made.append(
            Detector(
                unit=unit,
                layer=layer,
                kind=kind.name,
                score=float(scores[i]),
                tests={name: float(values[i]) for name, values in tests.items()},
                orientation=orientation,
                preferred=preferred,
                peak=float(judged.peak[i]),
                p=p,
                curve=Curve(unit, judged.axis, judged.around[i], preferred),
            )
        )
    return made
