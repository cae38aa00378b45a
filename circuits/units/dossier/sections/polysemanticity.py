"""Clusters among a unit's top activating images."""

from __future__ import annotations

from circuits.units.dossier.section_registry import Finding, Nothing, Subject, section
from circuits.units.polysemanticity import polysemantic

_FEWEST, _MOST = 12, 64
"""Examples: clusters of fewer mean nothing, and more are not looked at."""


@section("polysemanticity", "Polysemanticity", order=80)
def polysemanticity(subject: Subject) -> Finding:
    """Whether the examples fall into clusters by the units that excite this one."""
    if subject.model.before(subject.unit.layer) is None:
        return Nothing(f"{subject.unit.short} reads the image itself: it has no parent units to group examples by")
    top = subject.unit_scan.top
    if len(top) < _FEWEST:
        return Nothing(f"it is active on {len(top)} of the images: too few to find clusters among")
    unit = str(subject.unit)
    result = polysemantic(
        subject.model, unit, images=subject.images, examples={unit: top[:_MOST]}, seed=subject.seed
    )  # fmt: skip
    return result.rows[0] if result.rows else Nothing("its examples do not fall into clusters")
