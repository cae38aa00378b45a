"""Units of a network told by their tuning (curves, high-low frequency, lines, ...), as several figures need them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from apps.figures.context import NotApplicable

if TYPE_CHECKING:
    from apps.figures.context import FigureContext
    from circuits.stimuli import Stimuli
    from circuits.tuning import Tuning
    from circuits.tuning.detectors import Detector

THRESHOLD = 0.5
"""The score from which `circuits.find_detectors` counts a unit as a detector."""
PUBLISHED = {
    ("curve", "mixed3b"): "Curves",
    ("curve", "mixed3a"): "Curves",
    ("high-low", "mixed3a"): "High-Low Frequency",
    ("line", "conv2d2"): "Line",
}
"""Kind and layer -> the published family of units, for the network that it holds for."""
_SHOWN = {("curve", "mixed3b"): 379}


@dataclass(frozen=True)
class Tuned:
    """A unit that a search by tuning found.

    Attributes:
        unit: its address; score: of the search; orientation: preferred, in degrees.
        about: what else the search says of it, ready for JSON: tests, preferred radius, peak.
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
    """Detectors of a layer, best first; where too few pass the tests, the best-scoring units stand in for them.

    Attributes:
        kind, layer: what was searched for, and where; units: found; of: units in the layer.
        best_untrained: the best score of the same layer untrained; gap: largest stretch of orientations without any.
        passed: how many of `units` pass; the others are only the best there are.
        published: whether they are not what the search found best, but the published units of their family.
    """

    kind: str
    layer: str
    units: tuple[Tuned, ...]
    of: int
    best_untrained: float
    gap: float
    passed: int
    published: bool = False

    @property
    def how(self) -> str:
        """How they were chosen, for a caption."""
        untrained = f"untrained, the best scores {self.best_untrained:.2f}"
        shown = len(self.units)
        if self.published:
            return (
                f"{shown} published {self.kind} units of {self.layer}, {self.passed} of which pass the search's tests"
            )
        if self.passed == shown:
            return (
                f"{shown} of {self.of} units of {self.layer} found by their tuning to synthetic {self.kind} "
                f"stimuli ({untrained})"
            )
        passes = "none passes" if self.passed == 0 else f"only {self.passed} pass{'es' * (self.passed == 1)}"
        low, high = self.units[-1].score, self.units[0].score
        best = "best-scoring one is" if shown == 1 else f"{shown} best-scoring ones are"
        scores = f"score {high:.2f}" if shown == 1 else f"scores {low:.2f} to {high:.2f}"
        return (
            f"of {self.of} units of {self.layer} {passes} the tests for {self.kind} detectors; the {best} shown "
            f"({scores}, {THRESHOLD:g} passes; {untrained})"
        )

    @property
    def one(self) -> Tuned:
        """The unit that a figure of a single one shows: the best, or the published one that the papers show."""
        told = _SHOWN.get((self.kind, self.layer)) if self.published else None
        return next((u for u in self.units if u.index == told), self.units[0])

    @property
    def detectors(self) -> tuple[Detector, ...]:
        """The units as the library's functions about detectors take them, without their curves."""
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

    def spread(self, n: int, best: int | None = None) -> tuple[Tuned, ...]:
        """At most `n` of them (of the `best` so many), as even in orientation as can be, in order of orientation."""
        left = sorted(self.units, key=lambda u: -u.score)[:best]
        chosen = left[:1]
        while len(chosen) < min(n, len(left)):
            chosen.append(max((u for u in left if u not in chosen), key=lambda u: (_away(u, chosen), u.score)))
        return tuple(sorted(chosen, key=lambda u: u.orientation))


def _away(one: Tuned, others: list[Tuned]) -> float:
    return min(
        min(abs(one.orientation - o.orientation) % 360, -abs(one.orientation - o.orientation) % 360) for o in others
    )


def search(context: FigureContext, kind: str, layer: str, *, at_least: int = 1) -> Search:
    """The detectors of a kind in a layer, searched for once for all figures.

    Where fewer than `at_least` pass, the best-scoring units make up the number, and `how` says so.

    Args:
        context: of the figure.
        kind: as `circuits.find_detectors` has them.
        layer: to search.
        at_least: how many a figure needs.

    Raises:
        NotApplicable: not even that many answer to such stimuli at all.
    """
    from circuits.tuning.circular_statistics import largest_gap
    from circuits.tuning.detectors import find_detectors

    def look() -> dict[str, Any]:
        # every unit with a score above zero: those below the threshold are there to fall back on
        found = find_detectors(
            context.model,
            kind,
            layers=[layer],
            orientations=context.size(24, 24, 12),
            threshold=1e-9,
            seed=context.seed,
        )
        chance = found.chance(layer)
        passed = sum(r.score >= THRESHOLD for r in found.rows)
        return {
            "units": [{**r.describe(), "curve": None} for r in found.rows],
            "passed": passed,
            "of": len(found.scores[layer]),
            "best_untrained": chance[0] if chance else 0.0,
            "period": found.period,
        }

    got = context.cached(f"tuned-{kind}", look, layer=layer)
    family = PUBLISHED.get((kind, layer)) if context.published else None
    rows = got["units"][: max(got["passed"], at_least)]
    if family is not None:
        from apps.cli.verify.facts import family as members

        known = members(layer, family)
        rows = [r for r in got["units"] if int(r["unit"].rpartition(":")[2]) in known]
    if len(rows) < at_least:
        raise NotApplicable(
            f"needs {at_least} units of {layer} tuned to {kind} stimuli; {len(rows)} of {context.model.name} are"
        )
    units = tuple(Tuned(str(r["unit"]), float(r["score"]), float(r["orientation"]), r) for r in rows)
    gap = largest_gap([u.orientation for u in units], float(got["period"]))
    passed = sum(u.score >= THRESHOLD for u in units)
    return Search(kind, layer, units, got["of"], got["best_untrained"], gap, passed, family is not None)


def curve_layer(context: FigureContext) -> str:
    """Where curve detectors are looked for: mixed3b, else the trunk layer at a third of the depth."""
    if "mixed3b" in context.model.layers:
        return "mixed3b"
    spatial = [name for name in context.model.trunk if context.model.layers[name].size is not None]
    if len(spatial) < 3:
        raise NotApplicable("needs a network with at least three layers that have places")
    return spatial[len(spatial) // 3]


def layer_before(context: FigureContext, layer: str) -> str:
    """The trunk layer that a layer reads.

    Raises:
        NotApplicable: it reads the picture itself.
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
    made = sorted({max(2.0, round(size * share, 1)) for share in shares})
    return stimuli.curves(orientations, (*made, math.inf), width=3.0 if size >= 32 else 2.0)


def tuning(context: FigureContext, units: Sequence[str], shown: Stimuli, *, pre: bool = False) -> Tuning:
    """`circuits.tune` of units of one layer, measured once for all figures."""
    import torch

    from circuits.tuning import Tuning, tune

    def measure() -> dict[str, Any]:
        found = tune(context.model, list(units), stimuli=shown, pre=pre)
        return {
            "responses": found.responses.tolist(),
            "baseline": found.baseline.tolist(),
            "layer": found.layer,
            "reach": found.reach,
            "size": list(found.size),
        }

    got = context.cached(
        "tuning", measure, units=list(units), stimuli=shown.digest, pre=pre, model=context.model.digest
    )
    return Tuning(
        units=tuple(units),
        axes=shown.axes,
        responses=torch.tensor(got["responses"]),
        baseline=torch.tensor(got["baseline"]),
        layer=got["layer"],
        stimuli=shown.name,
        pre=pre,
        reach=got["reach"],
        size=(got["size"][0], got["size"][1]),
    )


def mean_echo(measured: Tuning, units: Sequence[str]) -> float:
    """Mean response to the opposite orientation over the peak, of those units that respond at all; 1 if none does."""
    found = [measured.rows()[measured.row(unit)].echo for unit in units]
    kept = [max(0.0, echo) for echo in found if echo is not None]
    return sum(kept) / len(kept) if kept else 1.0


def kinds(context: FigureContext, layer: str, wanted: Sequence[str]) -> tuple[dict[str, list[int]], str]:
    """Channels of a layer by kind, and how the kinds were told, for a caption.

    On the network that published families hold for it is these; else what passes the searches, the first kind that
    a unit passes for; and where nothing passes, clusters of units that read alike.

    Args:
        context: of the figure.
        layer: whose channels.
        wanted: kinds to search for, the first first.
    """
    count = context.model.layers[layer].channels
    if context.published:
        from apps.cli.verify.facts import facts

        rows = [f for f in facts()["families"] if f["layer"] == layer and f["family"] != "Other Units"]
        rows.sort(key=lambda f: -len(f["units"]))
        return {f["family"].lower(): list(f["units"]) for f in rows}, "published families"
    found: dict[str, list[int]] = {}
    taken: set[int] = set()
    for kind in wanted:
        units = search(context, kind, layer).units
        members = [u.index for u in units if u.score >= THRESHOLD and u.index not in taken]
        taken |= set(members)
        if members:
            found[kind] = members
    if found:
        return found, f"units that pass the searches for {', '.join(found)} detectors"
    from circuits.units.similarity import by_weights
    from circuits.units.weight_factors import families

    grouped = families(by_weights(context.model, layer), count=min(6, count), shuffles=0)
    named = {f"like :{m[0].rpartition(':')[2]}": [int(u.rpartition(":")[2]) for u in m] for m in grouped.members}
    return named, "six clusters of units that read the layer before alike, as no unit passes a search for a kind"
