"""The sum behind a response, step by step: sources shown, all others, bias and remainder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from circuits.plot.drawing.wording import name_of
from circuits.tracing.circuit import Circuit, Edge, Rest


@dataclass(frozen=True)
class Step:
    """One row of a sum.

    Attributes:
        name: what is added, or what it comes to.
        value: how much.
        start, end: where its bar runs from and to; a sum starts at zero.
        kind: a source, the sources not shown, another term, or a sum of all above.
        edge: of a source.
    """

    name: str
    value: float
    start: float
    end: float
    kind: Literal["source", "rest", "term", "sum"]
    edge: Edge | None = None


def rest_of(circuit: Circuit, unit: str) -> Rest | None:
    """What a node receives beyond its edges, or None for a node that was not traced further."""
    return next((rest for rest in circuit.rest if rest.target == unit), None)


def sum_steps(circuit: Circuit, rest: Rest) -> list[Step]:
    """The steps from nothing to the pre-activation of `rest.target`."""
    steps: list[Step] = []
    run = 0.0

    def add(name: str, value: float, kind: Literal["source", "rest", "term"], edge: Edge | None = None) -> None:
        nonlocal run
        steps.append(Step(name, value, run, run + value, kind, edge))
        run += value

    for edge in circuit.into(rest.target):
        add(name_of(circuit.node(edge.source)), edge.strength, "source", edge)
    add("1 other unit" if rest.count == 1 else f"{rest.count} other units", rest.strength, "rest")
    steps.append(Step("all sources", rest.total, 0.0, rest.total, "sum"))
    run = rest.total
    add("bias", rest.bias, "term")
    add("remainder", rest.remainder, "term")
    steps.append(Step("pre-activation", rest.pre_activation, 0.0, rest.pre_activation, "sum"))
    return steps
