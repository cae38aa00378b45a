"""What a figure is: what a script declares, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from apps.figures.papers import GROUP, PAPERS, load_scripts
from zoo.common.registries import Registry
from zoo.errors import CircuitsError

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from apps.cli.verify.checks import Check
    from apps.figures.context import FigureContext

Fits = Literal["vision", "inception", "toy", "language"]
"""What a figure is about: any vision network; one with the branches of InceptionV1 (`scenes` has them); toy models,
whatever the model; a language model."""


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, measured, beside its control.

    Attributes:
        statement: in a few words, such as "wheels excite from below".
        value: the number that decides it; control: the same of random units, of shuffles, or a bound.
        holds: whether the statement is true here.
        versus: what the control is.
    """

    statement: str
    value: float
    control: float
    holds: bool
    versus: str

    @classmethod
    def above(cls, statement: str, value: float, control: float, versus: str) -> Claim:
        """The claim that a value exceeds its control."""
        return cls(statement, value, control, bool(value > control), versus)

    @classmethod
    def below(cls, statement: str, value: float, control: float, versus: str) -> Claim:
        """The claim that a value is less than its control."""
        return cls(statement, value, control, bool(value < control), versus)

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"what": self.statement} | {k: v for k, v in vars(self).items() if k != "statement"}


@dataclass(frozen=True)
class FigureResult:
    """What a script returns.

    Attributes:
        drawings: name -> drawing, in the order of the gallery; the only one of a figure is called "".
        numbers: what is drawn, ready for JSON: everything that the drawings show.
        caption: one or two sentences: what is drawn, of how many, and how units were chosen. Model, data, number of
            images and seed are added to it.
        claims: statements of the paper, measured.
    """

    drawings: Mapping[str, Drawing]
    numbers: Mapping[str, Any]
    caption: str
    claims: Sequence[Claim] = ()


@dataclass(frozen=True)
class Figure:
    """A figure of a paper, and the script that makes it.

    Attributes:
        id: short, such as "Z11"; also: ids of further figures that this one stands for.
        name: for people and files, such as "car-circuit"; title: one line.
        paper: a key of `PAPERS`.
        shows: what the paper's figure shows, in a sentence.
        fits: what it is about.
        cost: CPU-seconds on GoogLeNet, about: long ones are begun first.
        draw: the script.
        published: checks against published numbers, for the network that they hold for.
    """

    id: str
    name: str
    title: str
    paper: str
    shows: str
    fits: Fits
    draw: Callable[[FigureContext], FigureResult]
    also: tuple[str, ...] = ()
    cost: int = 10
    published: Callable[[FigureContext], Iterable[Check]] | None = None
    module: str = field(default="", compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that selects it."""
        return (self.id, *self.also, self.name)


FIGURES: Registry[Figure] = Registry("figure", group=GROUP, load=load_scripts)
"""Figures by id."""


def figure(
    id: str,
    name: str,
    title: str,
    *,
    paper: str,
    shows: str,
    fits: Fits = "vision",
    also: Sequence[str] = (),
    cost: int = 10,
    published: Callable[[FigureContext], Iterable[Check]] | None = None,
) -> Callable[[Callable[[FigureContext], FigureResult]], Callable[[FigureContext], FigureResult]]:
    """Declare a function as the script of a figure; the arguments are those of `Figure`.

    Raises:
        CircuitsError: a name that another figure has, or an unknown paper.
    """
    PAPERS[paper]  # raises for an unknown one

    def declare(draw: Callable[[FigureContext], FigureResult]) -> Callable[[FigureContext], FigureResult]:
        script = Figure(id, name, title, paper, shows, fits, draw, tuple(also), cost, published, draw.__module__)
        for other in FIGURES.values():
            if (other.id, other.module) == (id, script.module):
                continue  # the module is loaded again
            for common in {n.lower() for n in script.names} & {n.lower() for n in other.names}:
                raise CircuitsError(f"figure {id} cannot have the name {common!r}: it is a name of {other.id}")
        FIGURES.add(id, script, replace=True)
        return draw

    return declare
