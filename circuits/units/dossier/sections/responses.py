"""Statistics of a unit's responses, and its top activating images."""

from __future__ import annotations

from circuits.units.dossier.section_registry import Finding, Subject, section


@section("responses", "Top activating images", quick=True, order=10)
def responses(subject: Subject) -> Finding:
    """The unit's entry in the scan."""
    return subject.unit_scan
