"""Detectors of a network by their tuning (curves, high-low frequency, lines, ...), searched once for all figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from apps.figures.context import FigureContext, NotApplicable

if TYPE_CHECKING:
    from circuits.stimuli import Stimuli
    from circuits.tuning import Tuning
    from circuits.tuning.detectors import Detector

THRESHOLD = 0.5
"""The score at which `circuits.find_detectors` counts a unit as a detector."""
PUBLISHED = {
    ("curve", "mixed3b"): "Curves",
    ("curve", "mixed3a"): "Curves",
    ("high-low", "mixed3a"): "High-Low Frequency",
    ("line", "conv2d2"): "Line",
}
"""Kind and layer -> the published family of units."""
_EXAMPLES = {("curve", "mixed3b"): 379, ("high-low", "mixed3a"): 110}
"""Kind and layer -> the unit that the papers show."""


@dataclass(frozen=True)
class TunedUnit:
    """A unit of a search by tuning.

    Attributes:
        unit: its address; score: of the search; orientation: preferred, in degrees.
        about: further results of the search, ready for JSON: tests, preferred radius, peak.
    """

    unit: str
    score: float
    orientation: float
    about: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def index(self) -> int:
        """Of the unit in its layer."""
        return int(self.unit.rpartition(":")[2])


@dataclass(frozen=True)
class Search:
    """Detectors of a layer, best first; where too few units pass the tests, the best-scoring ones.

    Attributes:
        kind, layer: of the search; units: its results; of: number of units in the layer.
        best_untrained: the best score in the same layer untrained; gap: largest gap between preferred orientations.
        passed: how many of `units` pass the tests.
        published: whether `units` are the published family instead of the best-scoring units.
    """

    kind: str
    layer: str
    units: tuple[TunedUnit, ...]
    of: int
    best_untrained: float
    gap: float
    passed: int
    published: bool = False

    @property
    def how(self) -> str:
        """How they were chosen, for a caption."""
        untrained = f"untrained, the best scores {self.best_untrained:.2f}"
        count = len(self.units)
        if self.published:
            return (
                f"{count} published {self.kind} units of {self.layer}, {self.passed} of which pass the search's tests"
            )
        if self.passed == count:
            return (
                f"{count} of {self.of} units of {self.layer} by their tuning to synthetic {self.kind} "
                f"stimuli ({untrained})"
            )
        passes = "none passes" if self.passed == 0 else f"only {self.passed} pass{'es' * (self.passed == 1)}"
        low, high = self.units[-1].score, self.units[0].score
        best = "best-scoring one is" if count == 1 else f"{count} best-scoring ones are"
        scores = f"score {high:.2f}" if count == 1 else f"scores {low:.2f} to {high:.2f}"
        return (
            f"of {self.of} units of {self.layer} {passes} the tests for {self.kind} detectors; the {best} shown "
            f"({scores}, {THRESHOLD:g} passes; {untrained})"
        )

    @property
    def example(self) -> TunedUnit:
        """The unit for a figure of a single one: the best, or the published one that the papers show."""
        index = _EXAMPLES.get((self.kind, self.layer)) if self.published else None
        return next((u for u in self.units if u.index == index), self.units[0])

    @property
    def detectors(self) -> tuple[Detector, ...]:
        """The units as the library's functions about detectors take them, without their tuning curves."""
        from circuits.tuning.detectors import Detector

        return tuple(
            Detector(
                unit=u.unit,
                layer=self.layer,
                kind=self.kind,
                score=u.score,
                tests=u.about["tests"],
                orientation=u.orientation,
                preferred=u.about["preferred"],
                peak=u.about["peak"],
                p=u.about["p"],
            )
            for u in self.units
        )

    def spread(self, n: int, best: int | None = None) -> tuple[TunedUnit, ...]:
        """At most `n` units, of the `best` highest scores, evenly spread over orientations, in order of orientation."""
        candidates = sorted(self.units, key=lambda u: -u.score)[:best]
        chosen = candidates[:1]
        while len(chosen) < min(n, len(candidates)):
            chosen.append(
                max((u for u in candidates if u not in chosen), key=lambda u: (_distance(u, chosen), u.score))
            )
        return tuple(sorted(chosen, key=lambda u: u.orientation))


def _distance(unit: TunedUnit, chosen: list[TunedUnit]) -> float:
    """Degrees to the nearest orientation of the chosen units."""
    return min(min(d % 360, -d % 360) for d in (unit.orientation - c.orientation for c in chosen))


def search(context: FigureContext, kind: str, layer: str, *, at_least: int = 1) -> Search:
    """The detectors of a kind in a layer, searched once for all figures.

    Where fewer than `at_least` units pass, the best-scoring units complete the number, and `how` states it.

    Args:
        context: of the figure.
        kind: as `circuits.find_detectors` has them.
        layer: to search.
        at_least: how many a figure needs.

    Raises:
        NotApplicable: fewer units respond to such stimuli at all.
    """
    from circuits.tuning.circular_statistics import largest_gap
    from circuits.tuning.detectors import find_detectors

    def run() -> dict[str, Any]:
        # the threshold admits every unit with a score above zero: those below THRESHOLD are the fallback
        result = find_detectors(
            context.model,
            kind,
            layers=[layer],
            orientations=context.size(24, 24, 12),
            threshold=1e-9,
            seed=context.seed,
        )
        chance = result.chance(layer)
        passed = sum(r.score >= THRESHOLD for r in result.rows)
        return {
            "units": [{**r.describe(), "curve": None} for r in result.rows],
            "passed": passed,
            "of": len(result.scores[layer]),
            "best_untrained": chance[0] if chance else 0.0,
            "period": result.period,
        }

    cached = context.cached(f"tuned-{kind}", run, layer=layer)
    family = PUBLISHED.get((kind, layer)) if context.published else None
    rows = cached["units"][: max(cached["passed"], at_least)]
    if family is not None:
        from apps.cli.verify.facts import family as members

        indices = members(layer, family)
        rows = [r for r in cached["units"] if int(r["unit"].rpartition(":")[2]) in indices]
    if len(rows) < at_least:
        raise NotApplicable(
            f"needs {at_least} units of {layer} tuned to {kind} stimuli; {len(rows)} of {context.model.name} are"
        )
    units = tuple(TunedUnit(str(r["unit"]), float(r["score"]), float(r["orientation"]), r) for r in rows)
    gap = largest_gap([u.orientation for u in units], float(cached["period"]))
    passed = sum(u.score >= THRESHOLD for u in units)
    return Search(kind, layer, units, cached["of"], cached["best_untrained"], gap, passed, family is not None)


def curve_detectors(context: FigureContext, at_least: int = 1) -> Search:
    """Curve detectors of `curve_layer`."""
    return search(context, "curve", curve_layer(context), at_least=at_least)


def early_curve_detectors(context: FigureContext, at_least: int = 1) -> Search:
    """Curve detectors of the layer before `curve_layer`."""
    return search(context, "curve", layer_before(context, curve_layer(context)), at_least=at_least)


def high_low_detectors(context: FigureContext, at_least: int = 1) -> Search:
    """High-low frequency detectors of mixed3a, or of fire4 of SqueezeNet."""
    return search(context, "high-low", context.layer("mixed3a", "fire4"), at_least=at_least)


def curve_layer(context: FigureContext) -> str:
    """The layer to search for curve detectors: mixed3b, else the trunk layer at a third of the depth."""
    if "mixed3b" in context.model.layers:
        return "mixed3b"
    spatial = [name for name in context.model.trunk if context.model.layers[name].size is not None]
    if len(spatial) < 3:
        raise NotApplicable("needs a network with at least three spatial layers")
    return spatial[len(spatial) // 3]


def layer_before(context: FigureContext, layer: str) -> str:
    """The trunk layer before a layer.

    Raises:
        NotApplicable: the input of the layer is the image.
    """
    below = context.model.before(layer)
    if below is None:
        raise NotApplicable(f"needs a layer before {layer}")
    return below


def curve_stimuli(context: FigureContext, layer: str, orientations: int, radii: int = 7) -> Stimuli:
    """Curves of radii that suit a layer's receptive field, outlines, light and dark; the straight line last."""
    from circuits import stimuli

    field_, most = context.model.layers[layer].receptive_field, min(context.model.input.hw)
    size = float(most if field_ is None else min(most, *field_.size))
    shares = (1 / 10, 1 / 6, 1 / 4, 3 / 8, 1 / 2, 3 / 4)[-(radii - 1) :]
    finite = sorted({max(2.0, round(size * share, 1)) for share in shares})
    return stimuli.curves(orientations, (*finite, math.inf), width=3.0 if size >= 32 else 2.0)


def tuning(context: FigureContext, units: Sequence[str], stimuli: Stimuli, *, pre: bool = False) -> Tuning:
    """`circuits.tune` of units of one layer, cached for all figures."""
    from circuits.tuning import Tuning, tune

    def measure() -> dict[str, Any]:
        result = tune(context.model, list(units), stimuli=stimuli, pre=pre)
        return {
            "responses": result.responses.tolist(),
            "baseline": result.baseline.tolist(),
            "layer": result.layer,
            "reach": result.reach,
            "size": list(result.size),
        }

    cached = context.cached(
        "tuning", measure, units=list(units), stimuli=stimuli.digest, pre=pre, model=context.model.digest
    )
    return Tuning(
        units=tuple(units),
        axes=stimuli.axes,
        responses=torch.tensor(cached["responses"]),
        baseline=torch.tensor(cached["baseline"]),
        layer=cached["layer"],
        stimuli=stimuli.name,
        pre=pre,
        reach=cached["reach"],
        size=(cached["size"][0], cached["size"][1]),
    )


def mean_echo(measured: Tuning, units: Sequence[str]) -> float:
    """Mean response to the opposite orientation over the peak, of the units that respond at all; 1 if none does."""
    rows = measured.rows()
    echoes = [max(0.0, echo) for unit in units if (echo := rows[measured.row(unit)].echo) is not None]
    return sum(echoes) / len(echoes) if echoes else 1.0


def channel_families(context: FigureContext, layer: str, kinds: Sequence[str]) -> tuple[dict[str, list[int]], str]:
    """Channels of a layer by family, and how the families were determined, for a caption.

    On the published network these are the published families. On any other network they are the units that pass the
    searches, each in the first kind that it passes for; where no unit passes, clusters of units with similar incoming
    weights.

    Args:
        context: of the figure.
        layer: of the channels.
        kinds: to search for, in order of priority.
    """
    if context.published:
        from apps.cli.verify.facts import facts

        rows = [f for f in facts()["families"] if f["layer"] == layer and f["family"] != "Other Units"]
        rows.sort(key=lambda f: -len(f["units"]))
        return {f["family"].lower(): list(f["units"]) for f in rows}, "published families"
    families: dict[str, list[int]] = {}
    assigned: set[int] = set()
    for kind in kinds:
        units = search(context, kind, layer).units
        members = [u.index for u in units if u.score >= THRESHOLD and u.index not in assigned]
        assigned |= set(members)
        if members:
            families[kind] = members
    if families:
        return families, f"units that pass the searches for {', '.join(families)} detectors"
    from circuits.units import weight_factors
    from circuits.units.similarity import by_weights

    count = min(6, context.model.layers[layer].channels)
    clusters = weight_factors.families(by_weights(context.model, layer), count=count, shuffles=0)
    families = {f"like :{m[0].rpartition(':')[2]}": [int(u.rpartition(":")[2]) for u in m] for m in clusters.members}
    return families, "six clusters of units with similar incoming weights, as no unit passes a search for a kind"
