"""Guided tours: a few views in a row, each with a sentence on what to look at. The step is part of the address."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import streamlit as st

from apps.explorer.server.security import plain
from apps.explorer.session import links


@dataclass(frozen=True)
class Step:
    """One view.

    Attributes:
        title, text: what to look at.
        page: name of the page; params: of its address.
    """

    title: str
    text: str
    page: str
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Tour:
    """A few views in a row.

    Attributes:
        name: in addresses; title, about: on the home page; model: that the tour needs.
        icon: the unit whose thumbnail is shown beside the title.
    """

    name: str
    title: str
    about: str
    model: str
    icon: str
    steps: tuple[Step, ...]


def _unit(unit: str, title: str, text: str, page: str = "unit", **params: str) -> Step:
    return Step(title, text, page, {"unit": f"scenes/{unit}", **params})


TOURS: dict[str, Tour] = {
    tour.name: tour
    for tour in (
        Tour(
            "car",
            "A car is windows over wheels",
            "One unit detects cars. Its weights show how: which parts it uses, and at which positions.",
            "scenes",
            "mixed4a:11",
            (
                _unit(
                    "mixed4a:11",
                    "A unit for cars",
                    "Look at its top activating images, then at weaker activations. Are all of them cars? "
                    "Trucks and buses share parts with cars, and appear at lower activations.",
                ),
                _unit(
                    "mixed4a:11",
                    "Its circuit",
                    "Three units matter most: a car's body, windows and wheels. Read the kernels: windows excite from "
                    "above, wheels from below. Click a kernel to see its weights, an image to select the unit.",
                    "circuit",
                    width="8",
                ),
                _unit(
                    "mixed3b:39",
                    "One of the parts",
                    "A wheel detector, for any object with wheels. Its outgoing weights lead to the units for cars, "
                    "trucks, buses and bicycles.",
                ),
            ),
        ),
        Tour(
            "curves",
            "A curve",
            "An early unit that detects a curve of one orientation.",
            "scenes",
            "mixed3a:49",
            (
                _unit(
                    "mixed3a:49",
                    "A curve detector",
                    "Its top activating images show many objects, all with the same curve.",
                ),
                _unit(
                    "mixed3a:49",
                    "Its tuning",
                    "Synthetic arcs, rotated step by step: it is active at one orientation, not at the opposite one.",
                    section="tuning",
                ),
                _unit(
                    "mixed3a",
                    "Its layer",
                    "Sorted by similarity to it: which other units are active at the same positions?",
                    "layer",
                    sort="similarity",
                    similar_to="scenes/mixed3a:49",
                ),
            ),
        ),
        Tour(
            "polysemantic",
            "A polysemantic unit",
            "Some units are active on unrelated objects. The examples of this unit fall into three clusters.",
            "scenes",
            "mixed4a:21",
            (
                _unit(
                    "mixed4a:21",
                    "Buses, trees and bicycles",
                    "No single label fits these images. Are they one feature to the network?",
                ),
                _unit(
                    "mixed4a:21",
                    "Polysemanticity",
                    "Its examples, clustered by the units that contributed to each: windows and bus bodies, crowns and "
                    "trunks, bicycle frames. Two controls show that the clusters are not due to chance.",
                    section="polysemanticity",
                ),
                _unit(
                    "mixed4a:21",
                    "Three circuits in one",
                    "Traced back, it has parents of all three kinds. Each contributes on images of its own kind only.",
                    "circuit",
                    width="8",
                ),
            ),
        ),
    )
}


def start(tour: Tour, number: int = 1) -> None:
    """Go to a step, counted from 1."""
    step = tour.steps[number - 1]
    links.go(step.page, **dict(step.params), tour=tour.name, step=number)


def banner(others: Callable[[], Mapping[str, Tour]]) -> None:
    """The step of the tour that the address names; nothing without a tour.

    Args:
        others: gives the tours that are not in `TOURS`, by name.
    """
    name = st.query_params.get("tour", "")
    tour = TOURS.get(name) or (others().get(name) if name else None)
    number_text = st.query_params.get("step", "1")
    if tour is None or not (
        number_text.isascii() and number_text.isdigit() and 1 <= int(number_text) <= len(tour.steps)
    ):
        return
    number = int(number_text)
    step = tour.steps[number - 1]
    with st.container(border=True, key="tour"):
        text_column, buttons = st.columns([6, 2], vertical_alignment="center")
        text_column.markdown(f"**{plain(step.title)}** &ensp; {number} of {len(tour.steps)}: {plain(tour.title)}")
        text_column.markdown(plain(step.text, 600))
        with buttons.container(horizontal=True, horizontal_alignment="right", gap="small"):
            if st.button("Leave", key="tour-leave", type="tertiary"):
                links.change(tour=None, step=None)
                st.rerun()
            if number > 1 and st.button("Back", key="tour-back"):
                start(tour, number - 1)
            if number < len(tour.steps) and st.button("Next step", key="tour-next", type="primary"):
                start(tour, number + 1)
