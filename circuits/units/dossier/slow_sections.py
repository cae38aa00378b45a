"""The sections that take seconds or minutes, and are made when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from circuits import stimuli
from circuits.attribution.expanded_weights import expanded_weights
from circuits.errors import CircuitsError
from circuits.tuning import Tuning, tune
from circuits.units.dossier.section_registry import Finding, Nothing, Section, Subject, register
from circuits.units.polysemanticity import polysemantic
from circuits.units.weight_factors import Factors, one_sided_nmf
from circuits.visualization import Visualization, visualize

STEPS = 192
"""Steps of the pictures made for a dossier."""
_FACTORS = 3
_LEAST = 12
"""Examples below which groups mean nothing."""


@dataclass(frozen=True)
class Looks:
    """Pictures made by optimization: what the unit answers to, several that differ, and the opposite."""

    positive: tuple[Visualization, ...]
    negative: Visualization

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"positive": [v.describe() for v in self.positive], "negative": self.negative.describe()}


@dataclass(frozen=True)
class Tunings:
    """Tuning to several kinds of stimuli: kind -> tuning of this one unit, strongest kind first."""

    by: Mapping[str, Tuning]

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {name: tuning.rows()[0].describe() for name, tuning in self.by.items()}


def _visualization(subject: Subject) -> Finding:
    address, seed = str(subject.unit), subject.seed
    positive = visualize(subject.model, [address], steps=STEPS, variants=3, seed=seed)
    negative = visualize(subject.model, [address], steps=STEPS, optimum="negative", seed=seed)
    return Looks(tuple(positive), negative[0])


def _tuning(subject: Subject) -> Finding:
    kinds = {
        "lines": stimuli.lines(),
        "curves": stimuli.curves(),
        "high-low": stimuli.high_low(),
        "gratings": stimuli.gratings(),
    }
    if subject.model.input.channels == 3:
        kinds["color contrast"] = stimuli.color_contrast()
    found = {name: tune(subject.model, str(subject.unit), stimuli=shown) for name, shown in kinds.items()}
    order = sorted(found, key=lambda name: -float(found[name].responses.max()))
    return Tunings({name: found[name] for name in order})


def _factors(subject: Subject) -> Finding:
    source = subject.model.before(subject.unit.layer)
    if source is None:
        return Nothing(f"{subject.unit.short} reads the picture itself: its weights have no channels to group")
    try:
        kernels = expanded_weights(subject.model, source=source, target=subject.unit)
        found: Factors = one_sided_nmf(kernels, _FACTORS, seed=subject.seed)
    except CircuitsError as error:  # fewer channels than factors, or no weights at all
        return Nothing(str(error))
    return found


def _polysemanticity(subject: Subject) -> Finding:
    if subject.model.before(subject.unit.layer) is None:
        return Nothing(f"{subject.unit.short} reads the picture itself: nothing made it fire but that")
    top = subject.found.top
    if len(top) < _LEAST:
        return Nothing(f"it fires on {len(top)} of the pictures: too few to find groups among")
    found = polysemantic(
        subject.model,
        str(subject.unit),
        images=subject.pictures,
        examples={str(subject.unit): top[:64]},
        seed=subject.seed,
    )
    return found.rows[0] if found.rows else Nothing("its examples could not be told apart")


register(Section("visualization", "What it looks for", False, _visualization))
register(Section("tuning", "What it is tuned to", False, _tuning))
register(Section("polysemanticity", "How many things it answers to", False, _polysemanticity))
register(Section("factors", "Groups among what it reads", False, _factors))
