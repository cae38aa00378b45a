"""The dossier of one unit: all that is known of it on one page, in sections that anybody can add to."""

from circuits.explain.dossier import Dossier, Subject, explain
from circuits.explain.registry import SECTIONS, Section, register
from circuits.explain.wires import Wire, Wires, wires

from circuits.explain import quick, slow  # isort: skip  # they register their sections

__all__ = [
    "SECTIONS",
    "Dossier",
    "Section",
    "Subject",
    "Wire",
    "Wires",
    "explain",
    "quick",
    "register",
    "slow",
    "wires",
]
