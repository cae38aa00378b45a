"""The sections that are made unasked: what the scan knows, and the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from circuits.errors import CircuitsError
from circuits.units.dossier.neighbor_weights import wires
from circuits.units.dossier.section_registry import Finding, Nothing, Section, Subject, register
from circuits.units.similarity import Neighbors, by_weights, likeness_of, unit_names


@dataclass(frozen=True)
class Alike:
    """The units most like one, by several measures: measure -> neighbors."""

    by: Mapping[str, Neighbors]

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {name: found.describe() for name, found in self.by.items()}


def _responses(subject: Subject) -> Finding:
    return subject.found


def _wires(subject: Subject, direction: Literal["in", "out"]) -> Finding:
    try:
        return wires(subject.model, subject.unit, direction)
    except CircuitsError as error:  # the first and the last layer, and nets without a graph
        return Nothing(str(error))


def _neighbors(subject: Subject) -> Finding:
    model, unit = subject.model, subject.unit
    layer = unit.space
    if len(subject.layer) < 2:
        return Nothing(f"{layer} has no other unit")
    found = {}
    samples = subject.scan.samples(layer)
    if len(samples.values) > 2:
        fired = np.maximum(samples.values, 0) if model.layers[unit.layer].size is not None else samples.values
        measure = f"responses at {len(fired)} places of the pictures"
        likeness = likeness_of(fired.T, unit_names(model, layer), measure=measure, centerd=True, seed=subject.seed)
        found["activations"] = likeness.neighbors(str(unit))
    try:
        found["incoming weights"] = by_weights(model, layer).neighbors(str(unit))
    except CircuitsError:  # the first layer of all, and nets without a graph: the weights' own section says so
        pass
    return Alike(found)


register(Section("responses", "What it answers to", True, _responses))
register(Section("inputs", "What it reads", True, lambda s: _wires(s, "in")))
register(Section("outputs", "Who reads it", True, lambda s: _wires(s, "out")))
register(Section("neighbors", "Who is like it", True, _neighbors))
