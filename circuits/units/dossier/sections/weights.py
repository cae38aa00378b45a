"""The strongest weights into a unit, and out of it."""

from __future__ import annotations

from typing import Literal

from circuits.errors import CircuitsError
from circuits.units.dossier.neighbor_weights import neighbor_weights
from circuits.units.dossier.section_registry import Finding, Nothing, Subject, section


@section("inputs", "Incoming weights", quick=True, order=20)
def incoming(subject: Subject) -> Finding:
    """The strongest kernels from the layer before."""
    return _weights(subject, "in")


@section("outputs", "Outgoing weights", quick=True, order=30)
def outgoing(subject: Subject) -> Finding:
    """The strongest kernels into the layer after."""
    return _weights(subject, "out")


def _weights(subject: Subject, direction: Literal["in", "out"]) -> Finding:
    try:
        return neighbor_weights(subject.model, subject.unit, direction)
    except CircuitsError as error:  # the first and the last layer, and nets without a graph
        return Nothing(str(error))
