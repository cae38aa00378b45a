"""Feature visualizations of a unit."""

from __future__ import annotations

from dataclasses import dataclass

from circuits.units.dossier.section_registry import Finding, Subject, section
from circuits.visualization import Visualization, visualize
from zoo.common.results import Result

STEPS = 192
"""Optimization steps of a dossier's visualizations."""


@dataclass(frozen=True)
class FeatureVisualizations(Result):
    """Images optimized for a high response, several that differ, and one for the most negative response.

    Attributes:
        positive, negative: the images.
        warning: where all the positive ones activate the unit less than its top activating image does.
    """

    positive: tuple[Visualization, ...]
    negative: Visualization
    warning: str | None = None


@section("visualization", "Feature visualization", order=60)
def visualization(subject: Subject) -> Finding:
    """Three diverse visualizations, and one of the opposite."""
    address, seed = str(subject.unit), subject.seed
    positive = visualize(subject.model, [address], steps=STEPS, variants=3, seed=seed)
    negative = visualize(subject.model, [address], steps=STEPS, optimum="negative", seed=seed)
    best = max(positive, key=lambda v: v.peak)
    return FeatureVisualizations(tuple(positive), negative[0], best.weaker_than(subject.unit_scan.maximum))
