"""The dossier of one unit: what is known of it on one page, in sections that other packages can add to."""

from circuits.units.dossier.explain import Dossier, explain
from circuits.units.dossier.neighbor_weights import NeighborWeight, NeighborWeights, neighbor_weights
from circuits.units.dossier.section_registry import SECTIONS, Section, Subject, section

__all__ = [
    "SECTIONS",
    "Dossier",
    "NeighborWeight",
    "NeighborWeights",
    "Section",
    "Subject",
    "explain",
    "neighbor_weights",
    "section",
]
