"""The dossier of one unit: all that is known of it on one page, in sections that anybody can add to."""

from circuits.units.dossier.explain import Dossier, explain
from circuits.units.dossier.neighbor_weights import Wire, Wires, wires
from circuits.units.dossier.section_registry import SECTIONS, Section, Subject, register

from circuits.units.dossier import fast_sections  # noqa: F401  # isort: skip  # they register
from circuits.units.dossier import slow_sections  # noqa: F401  # isort: skip  # their sections

__all__ = [
    "SECTIONS",
    "Dossier",
    "Section",
    "Subject",
    "Wire",
    "Wires",
    "explain",
    "register",
    "wires",
]
