"""Units of the same layer that are similar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuits.errors import CircuitsError
from circuits.units.dossier.section_registry import Finding, Nothing, Subject, section
from circuits.units.similarity import Neighbors, by_weights, unit_names, unit_similarity


@dataclass(frozen=True)
class SimilarUnits:
    """The units most similar to one, by several measures: measure -> neighbors."""

    by: Mapping[str, Neighbors]

    @property
    def related_units(self) -> list[str]:
        """Addresses of all neighbors."""
        return [unit for neighbors in self.by.values() for unit, _ in neighbors.rows]

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {measure: neighbors.describe() for measure, neighbors in self.by.items()}


@section("neighbors", "Similar units", quick=True, order=40)
def similar_units(subject: Subject) -> Finding:
    """Neighbors by correlation of responses, and by cosine of incoming weights."""
    model, unit = subject.model, subject.unit
    layer = unit.space
    if len(subject.layer_scan) < 2:
        return Nothing(f"{layer} has no other unit")
    by: dict[str, Neighbors] = {}
    values = subject.scan.samples(layer).values
    if len(values) > 2:
        rectified = np.maximum(values, 0) if subject.layer_scan.signed else values
        measure = f"responses at {len(values)} positions of the images"
        names = unit_names(model, layer)
        similarity = unit_similarity(rectified.T, names, measure=measure, centered=True, seed=subject.seed)
        by["activations"] = similarity.neighbors(str(unit))
    try:
        by["incoming weights"] = by_weights(model, layer).neighbors(str(unit))
    except CircuitsError:  # the first layer of all, and nets without a graph: the section of weights gives the reason
        pass
    return SimilarUnits(by)
