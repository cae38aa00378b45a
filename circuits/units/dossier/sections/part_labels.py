"""The parts that a unit detects, by the part labels kept beside the scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from circuits.dataset.labels.results import UnitLabel, read_labels
from circuits.dataset.scan_store import StoreError
from circuits.units.dossier.section_registry import Finding, Nothing, Subject, section
from zoo.common.results import Result

_MOST = 6
"""Parts shown, those that the unit detects best."""


@dataclass(frozen=True)
class DetectedParts(Result):
    """How well a unit detects outlined parts, best first by the half of the images that chose.

    Attributes:
        name: the part that the unit is named after: its best, where the interval lies above all controls.
        images: name and count of the images whose parts are outlined.
    """

    name: str | None
    rows: tuple[UnitLabel, ...]
    images: Mapping[str, Any]


@section("parts", "Parts", quick=True, order=15)
def parts(subject: Subject) -> Finding | None:
    """Scores of the unit for each part; no section where the store has no labels of its layer."""
    try:
        labels = read_labels(subject.scan.folder.parent, subject.model.name, subject.model.digest)
    except StoreError as error:
        return Nothing(str(error))
    if labels is None or subject.unit.space not in labels.layers:
        return None
    rows = tuple(labels.of(subject.unit)[:_MOST])
    return DetectedParts(rows[0].part if rows[0].above_controls else None, rows, labels.images)
