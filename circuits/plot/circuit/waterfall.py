"""The sum behind a response, step by step: sources shown, all others, bias and remainder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from circuits.plot.drawing.wording import counted, name_of
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


def bias_name(circuit: Circuit) -> str:
    """What the bias of a sum is: where contributions are counted from a baseline, also what that gives."""
    return "bias" if circuit.provenance.get("baseline") in (None, "zero") else "bias and baseline"


def sum_steps(circuit: Circuit, rest: Rest) -> list[Step]:
    """The steps from nothing to the pre-activation of `rest.target`."""
    sources = [(name_of(circuit.node(edge.source)), edge.strength, edge) for edge in circuit.into(rest.target)]
    others = counted(rest.count, "other unit")
    terms = {bias_name(circuit): rest.bias, "remainder": rest.remainder}
    left_over = {} if rest.error is None else {"left over by the latents": rest.error}
    return running_steps(sources, others, rest.strength, rest.total, terms, rest.pre_activation, left_over)


def running_steps(
    sources: Iterable[tuple[str, float, Edge]], others: str, rest: float | None, total: float,
    terms: Mapping[str, float], pre_activation: float, also: Mapping[str, float] | None = None,
) -> list[Step]:  # fmt: skip
    """The steps of a sum: sources, other units with the rest of the total (None: what is left of it), further terms.

    `also` are parts of the total that are no units.
    """
    steps: list[Step] = []
    run = 0.0

    def add(name: str, value: float, kind: Literal["source", "rest", "term"], edge: Edge | None = None) -> None:
        nonlocal run
        steps.append(Step(name, value, run, run + value, kind, edge))
        run += value

    for name, value, edge in sources:
        add(name, value, "source", edge)
    add(others, total - run if rest is None else rest, "rest")
    for name, value in (also or {}).items():
        add(name, value, "rest")
    steps.append(Step("all sources", total, 0.0, total, "sum"))
    run = total
    for name, value in terms.items():
        add(name, value, "term")
    return [*steps, Step("pre-activation", pre_activation, 0.0, pre_activation, "sum")]
