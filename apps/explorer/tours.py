"""Guided tours: a few views in a row, with a sentence on what to look at. Where one stands is in the view's address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import streamlit as st

from apps.explorer.server.security import plain
from apps.explorer.session import links


@dataclass(frozen=True)
class Step:
    """One view.

    Attributes:
        title, text: what to look at.
        page: of the explorer; params: what its address says.
    """

    title: str
    text: str
    page: str
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Tour:
    """A few views in a row.

    Attributes:
        name: in addresses; title, about: on the first page; model: that it is about.
        face: the unit whose picture stands for it.
    """

    name: str
    title: str
    about: str
    model: str
    face: str
    steps: tuple[Step, ...]


def _unit(unit: str, title: str, text: str, page: str = "unit", **params: str) -> Step:
    return Step(title, text, page, {"unit": f"scenes/{unit}", **params})


TOURS: dict[str, Tour] = {
    tour.name: tour
    for tour in (
        Tour(
            "car",
            "A car is windows over wheels",
            "One unit answers to cars. What it reads, and from where, says how it knows.",
            "scenes",
            "mixed4a:11",
            (
                _unit(
                    "mixed4a:11",
                    "A unit for cars",
                    "Look at what it answers to most, then at weaker responses: all of them cars? "
                    "Trucks and buses share parts, and show up further down.",
                ),
                _unit(
                    "mixed4a:11",
                    "Its circuit",
                    "Three units carry it: a car's body, windows and wheels. Read the kernels: windows excite from "
                    "above, wheels from below. Click a kernel to see its weights, a picture to choose the unit.",
                    "circuit",
                    width="8",
                ),
                _unit(
                    "mixed3b:39",
                    "One of the parts",
                    "A unit for wheels, of whatever has some. Who reads it? Its outputs list the units for cars, "
                    "trucks, buses and bicycles.",
                ),
            ),
        ),
        Tour(
            "curves",
            "A curve",
            "An early unit that wants a bend, in one direction only.",
            "scenes",
            "mixed3a:49",
            (
                _unit(
                    "mixed3a:49",
                    "A bend",
                    "Its strongest examples come from many objects, but the same shape is in all of them.",
                ),
                _unit(
                    "mixed3a:49",
                    "Its tuning",
                    "Synthetic arcs, turned step by step: it answers to one direction, and not to the opposite one.",
                    section="tuning",
                ),
                _unit(
                    "mixed3a",
                    "Its layer",
                    "Sorted by likeness to it: which other units fire where it does?",
                    "layer",
                    sort="likeness",
                    like="scenes/mixed3a:49",
                ),
            ),
        ),
        Tour(
            "polysemantic",
            "One unit, several things",
            "Some units answer to things that have nothing to do with each other. This one can be taken apart.",
            "scenes",
            "mixed4a:21",
            (
                _unit(
                    "mixed4a:21",
                    "Buses, trees and bicycles",
                    "Nobody would give these one name. Are they one thing to the network?",
                ),
                _unit(
                    "mixed4a:21",
                    "Taken apart",
                    "Its examples, grouped by the units that made it fire on each: windows and bus bodies, crowns and "
                    "trunks, bicycle frames. Two controls say that the groups are no accident.",
                    section="parts",
                ),
                _unit(
                    "mixed4a:21",
                    "Three circuits in one",
                    "Traced, it has parents of all three kinds. Each speaks on its own pictures only.",
                    "circuit",
                    width="8",
                ),
            ),
        ),
    )
}


def path(tour: Tour, number: int) -> str:
    """The address of a step, counted from 1."""
    step = tour.steps[number - 1]
    return links.path_of(step.page, {**step.params, "tour": tour.name, "step": number})


def start(tour: Tour, number: int = 1) -> None:
    """Go to a step, counted from 1."""
    step = tour.steps[number - 1]
    links.go(step.page, **dict(step.params), tour=tour.name, step=number)


def banner() -> None:
    """Where the tour stands that the address names; nothing without one."""
    tour = TOURS.get(st.query_params.get("tour", ""))
    said = st.query_params.get("step", "1")
    if tour is None or not (said.isascii() and said.isdigit() and 1 <= int(said) <= len(tour.steps)):
        return
    number = int(said)
    step = tour.steps[number - 1]
    with st.container(border=True, key="tour"):
        words, buttons = st.columns([6, 2], vertical_alignment="center")
        words.markdown(f"**{plain(step.title)}** &ensp; {number} of {len(tour.steps)}: {plain(tour.title)}")
        words.markdown(plain(step.text, 600))
        with buttons.container(horizontal=True, horizontal_alignment="right", gap="small"):
            if st.button("Leave", key="tour-leave", type="tertiary"):
                links.change(tour=None, step=None)
                st.rerun()
            if number > 1 and st.button("Back", key="tour-back"):
                start(tour, number - 1)
            if number < len(tour.steps) and st.button("Next step", key="tour-next", type="primary"):
                start(tour, number + 1)
