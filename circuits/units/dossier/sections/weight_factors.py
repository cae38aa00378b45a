"""Groups among the channels that a unit reads."""

from __future__ import annotations

from circuits.attribution.expanded_weights import expanded_weights
from circuits.errors import CircuitsError
from circuits.units.dossier.section_registry import Finding, Nothing, Subject, section
from circuits.units.weight_factors import one_sided_nmf

_FACTORS = 3


@section("factors", "Factors of the incoming weights", order=90)
def weight_factors(subject: Subject) -> Finding:
    """One-sided non-negative factorization of the incoming weights."""
    source = subject.model.before(subject.unit.layer)
    if source is None:
        return Nothing(f"{subject.unit.short} reads the image itself: its weights have no channels to group")
    try:
        kernels = expanded_weights(subject.model, source=source, target=subject.unit)
        return one_sided_nmf(kernels, _FACTORS, seed=subject.seed)
    except CircuitsError as error:  # fewer channels than factors, or no weights at all
        return Nothing(str(error))
