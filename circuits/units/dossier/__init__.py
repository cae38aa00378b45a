"""The dossier of one unit: what is known of it on one page, in sections that other packages can add to."""

from circuits.units.dossier.explain import Dossier as Dossier, explain as explain
from circuits.units.dossier.neighbor_weights import (
    NeighborWeight as NeighborWeight,
    NeighborWeights as NeighborWeights,
    neighbor_weights as neighbor_weights,
)
from circuits.units.dossier.section_registry import (
    SECTIONS as SECTIONS,
    Section as Section,
    Subject as Subject,
    section as section,
)
