"""What a unit answers to: strongest, from strong to weak, by lot, about to fire, and what keeps it down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose
from apps.explorer.components.gallery import gallery, tile
from apps.explorer.panes import crops
from apps.explorer.session import state
from apps.explorer.session.state import Here
from circuits.common.examples import Example
from circuits.dataset.scan_results import UnitScan
from circuits.plot.drawing.wording import minus, number

KINDS = {
    "top": "Strongest",
    "bands": "Strong to weak",
    "random": "By lot",
    "near": "Near zero",
    "negative": "Kept down",
}
SHOWN = {"field": "What it sees", "whole": "Whole picture", "heat": "Heat"}
TOP, FEW = 24, 12


def show(at: Here, found: UnitScan) -> str | None:
    """Examples; what was clicked comes back as `image@y,x`."""
    with st.container(horizontal=True, gap="medium"):
        kind = choose("Examples", KINDS, "examples")
        shown = choose("Shown", SHOWN, "shown")
    groups = _groups(found, kind)
    if not any(examples for _, examples in groups):
        st.info(_nothing(found, kind))
        return None
    picked = None
    for i, (title, examples) in enumerate(groups):
        if title:
            st.caption(title)
        picked = _quilt(at, examples, cast(crops.Shown, shown), f"{kind}-{i}", len(groups) > 1) or picked
    return picked


def _groups(found: UnitScan, kind: str) -> list[tuple[str, Sequence[Example]]]:
    if kind == "bands":
        return [
            (f"{number(b.low)} to {number(b.high)}: {100 * b.share:.3g} % of where it fires", b.examples)
            for b in reversed(found.bands)
        ]
    several = {"top": found.top[:TOP], "random": found.random, "near": found.near_zero, "negative": found.most_negative}
    return [("", several[kind][: TOP if kind == "top" else FEW])]


def _nothing(found: UnitScan, kind: str) -> str:
    if kind in ("top", "random", "bands"):
        return f"It fires on none of the {found.images:,} pictures."
    if not found.signed:
        return "Its responses were read behind its rectifier: nothing lies below zero."
    return "There is no such place."


def _quilt(at: Here, examples: Sequence[Example], shown: crops.Shown, key: str, small: bool) -> str | None:
    if shown == "heat":
        scan, images = at.scanned, state.pictures_of(at)
        shots = page_frame.settled(
            ("heat", scan.manifest["digest"], str(at.unit), key),
            "where it responds",
            lambda report: crops.heated(at.model, at.unit, examples, images, scan.input_spec, report),
            model=at.model,
        )
        if shots is None:
            return None
    else:
        shots = crops.cut(at, examples, shown)
    tiles = [
        tile(
            None,
            shot,
            alt=f"{e.id}, position {e.position[0]},{e.position[1]}: {minus(f'{e.value:.3g}')}",
            note=minus(f"{e.value:.3g}"),
            pick=f"{e.image}@{e.position[0]},{e.position[1]}",
        )
        for e, shot in zip(examples, shots, strict=True)
    ]
    return gallery(tiles, f"quilt-{key}", size=70 if small else 84, label=f"examples of {at.unit.short}")
