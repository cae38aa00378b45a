"""Tuning of a unit to synthetic stimuli."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from circuits import stimuli
from circuits.tuning import Tuning, tune
from circuits.units.dossier.section_registry import Finding, Subject, section


@dataclass(frozen=True)
class Tunings:
    """Tuning to several kinds of stimuli: kind -> tuning of this one unit, strongest kind first."""

    by: Mapping[str, Tuning]

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {kind: curve.rows()[0].describe() for kind, curve in self.by.items()}


@section("tuning", "Tuning curves", order=70)
def tuning(subject: Subject) -> Finding:
    """Responses to lines, curves, high-low frequency boundaries, gratings and, for color images, color contrast."""
    kinds = {
        "lines": stimuli.lines(),
        "curves": stimuli.curves(),
        "high-low": stimuli.high_low(),
        "gratings": stimuli.gratings(),
    }
    if subject.model.input.channels == 3:
        kinds["color contrast"] = stimuli.color_contrast()
    curves = {kind: tune(subject.model, str(subject.unit), stimuli=drawings) for kind, drawings in kinds.items()}
    order = sorted(curves, key=lambda kind: -float(curves[kind].responses.max()))
    return Tunings({kind: curves[kind] for kind in order})
