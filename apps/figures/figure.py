"""What a figure is: what a script says of it, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from apps.figures.papers import PAPERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from apps.cli.verify.checks import Check
    from apps.figures.context import FigureContext

Fits = Literal["vision", "inception", "toy", "language"]
"""What a figure is about: any vision network; one with the branches of InceptionV1 (`scenes` has them); toy models,
whatever the model; a language model."""


@dataclass(frozen=True)
class Claim:
    """What a figure shows, as a number beside its control.

    Attributes:
        what: the claim in a few words, such as "wheels excite from below".
        value: the number that decides it; control: what stands against it: random units, shuffles, a bound.
        holds: whether it is so here.
        versus: what the control is.
    """

    what: str
    value: float
    control: float
    holds: bool
    versus: str


@dataclass(frozen=True)
class Drawn:
    """What a script gives back.

    Attributes:
        pictures: name -> drawing, in the order shown; the only one of a figure is called "".
        numbers: what is drawn, ready for JSON: nothing in the picture that is not here.
        caption: one or two sentences: what is seen, of how many, by which seed, and how units were chosen. Model, data
            and number of pictures are added to it.
        claims: what the paper says, measured.
    """

    pictures: Mapping[str, Drawing]
    numbers: Mapping[str, Any]
    caption: str
    claims: Sequence[Claim] = ()


@dataclass(frozen=True)
class Figure:
    """A figure of a paper, and the script that makes it.

    Attributes:
        id: short, such as "Z11"; also: further figures that the same picture stands for.
        name: for people and files, such as "car-circuit"; title: one line.
        paper: a key of `PAPERS`.
        shows: what the paper's figure says, in a sentence.
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
    draw: Callable[[FigureContext], Drawn]
    also: tuple[str, ...] = ()
    cost: int = 10
    published: Callable[[FigureContext], Iterable[Check]] | None = None
    module: str = field(default="", compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """All that it may be asked for by."""
        return (self.id, *self.also, self.name)


KNOWN: dict[str, Figure] = {}
"""Figures by id, as the scripts announced them."""


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
) -> Callable[[Callable[[FigureContext], Drawn]], Callable[[FigureContext], Drawn]]:
    """Announce a function as the script of a figure; the arguments are those of `Figure`.

    Raises:
        ValueError: a name that another figure has, or an unknown paper.
    """
    if paper not in PAPERS:
        raise ValueError(f"no paper {paper!r}; there are {', '.join(PAPERS)}")

    def announced(draw: Callable[[FigureContext], Drawn]) -> Callable[[FigureContext], Drawn]:
        made = Figure(
            id, name, title, paper, shows, fits, draw, tuple(also), cost, published, getattr(draw, "__module__", "")
        )
        others = [o for o in KNOWN.values() if (o.id, o.module) != (made.id, made.module)]
        taken = {n.lower(): other.id for other in others for n in other.names}
        for one in made.names:
            if one.lower() in taken:
                raise ValueError(f"figure {id} calls itself {one!r}, which {taken[one.lower()]} is called")
        KNOWN[id] = made
        return draw

    return announced
