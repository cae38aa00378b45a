"""Units by what they are called, by address, or by a concept that pictures show."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose
from apps.explorer.components.gallery import gallery, tile
from apps.explorer.panes import label_files
from apps.explorer.panes.tiles import unit_tile
from apps.explorer.server.security import checked_text, guarded, plain
from apps.explorer.session import concepts, state
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Here
from circuits import plot
from circuits.dataset.concept_search import Findings, find
from circuits.network.address import Unit
from circuits.plot.drawing.wording import short

WAYS = {"name": "By name", "address": "By address", "concept": "By concept"}
MOST = 240
"""Units shown."""


def main() -> None:
    """The page."""
    at = page_frame.opened()
    top = st.container()
    way = choose("Search", WAYS, "way")
    export = None
    with guarded():
        export = {"name": _by_name, "address": _by_address, "concept": _by_concept}[way](at)
    with top:
        page_frame.show(
            "search", "Search", about=f"among the units of {at.model.name}", view={"unit": str(at.unit)},
            python=_python(at, way), export=export,
        )  # fmt: skip
    st.space("small")
    with guarded():
        label_files.show(at)


def _by_name(at: Here) -> Export:
    said = checked_text(st.text_input("Name, family, author or evidence", key="words", bind="query-params"), 200)
    words = said.casefold().split()
    found = [
        label
        for label in at.labels.all(at.model.name)
        if all(w in f"{label.name} {label.family} {label.author} {label.evidence}".casefold() for w in words)
    ]
    many = " and several things" if any(label.polysemantic for label in found) else ""
    st.caption(f"{len(found):,} labels{many}")
    if not found:
        st.info(
            "No label says that. Labels are written on a unit's page, under Names (circuits explore --allow-write)."
        )
    tiles = [
        tile(x.unit, state.thumb_of(at, Unit.parse(x.unit)), alt=x.unit, name=x.name or "no name", note=short(x.unit))
        for x in found[:MOST]
    ]
    gallery(tiles, "found", size=96, label="units found")
    return Export("labels", None, lambda: at.labels.describe(at.model.name), lambda: [vars(label) for label in found])


def _by_address(at: Here) -> Export:
    said = checked_text(
        st.text_input("Pattern", key="pattern", placeholder="mixed4a:1* or mixed3b:[12]?", bind="query-params"), 200
    )
    names, layers = state.names_of(at), dict(at.scanned.layers)
    pattern = said or f"{at.unit.space}:*"
    every = (f"{layer}:{i}" for layer, count in layers.items() for i in range(count))
    found = [address for address in every if fnmatchcase(address.lower(), pattern.lower())]
    st.caption(plain(f"{len(found):,} units match {pattern}" + (f"; the first {MOST}" if len(found) > MOST else "")))
    full = [f"{at.model.name}/{address}" for address in found]
    tiles = [
        tile(
            u,
            state.thumb_of(at, Unit.parse(u)),
            alt=u,
            name=names.get(u, short(u)),
            note=short(u) if u in names else "",
        )
        for u in full[:MOST]
    ]
    gallery(tiles, "found", size=96, label="units found")
    rows = [{"unit": u, "name": names.get(u, "")} for u in full]
    return Export("units", None, lambda: rows, lambda: rows)


def _by_concept(at: Here) -> Export | None:
    known = concepts.known(at)
    if not known:
        st.info("The scanned pictures have no labels. Give a folder of folders: circuits explore --images FOLDER")
        return None
    left, right = st.columns([3, 2])
    name = left.selectbox("Concept", known, key="concept", bind="query-params")
    layers = right.multiselect(
        "Layers", at.model.trunk, key="layers", placeholder="the whole trunk", bind="query-params"
    )
    positive, negative = concepts.pictures(at, str(name))
    model, wanted = at.model, list(layers) or at.model.trunk
    found: Findings | None = page_frame.settled(
        ("find", model.digest, str(name), positive.digest, negative.digest, tuple(wanted)),
        f"comparing {len(positive):,} pictures with {name} to {len(negative):,} without",
        lambda report: find(model, positive=positive, negative=negative, layers=wanted, intervals=20, progress=report),
        model=model,
    )
    if found is None:
        return None
    st.caption(
        plain(
            f"{len(positive):,} pictures with {name}, {len(negative):,} without. AUC: how often a picture with it "
            f"makes the unit respond more than one without; with pictures shuffled the best has {found.chance:.3f}."
        )
    )
    names = state.names_of(at)
    tiles = [
        unit_tile(at, row.unit, names, f"{row.auc:.3f}", mark="" if row.auc > found.chance else "faint")
        for row in found.rows[:48]
    ]
    gallery(tiles, "found", size=96, label="units found")
    rows: list[dict[str, Any]] = [
        {"unit": r.unit, "auc": r.auc, "low": r.low, "high": r.high, "chance": found.chance} for r in found.rows
    ]
    return Export(
        f"find-{name}", lambda: plot.auc_table(found, title=f"{name} in {model.name}"), lambda: rows, lambda: rows
    )


def _python(at: Here, way: str) -> str:
    if way == "concept":
        return (
            "import circuits\n\n"
            f"model = circuits.load({at.model.name!r})\n"
            'found = circuits.find(model, positive="WITH", negative="WITHOUT")\n'
            "print(found.rows[:10], found.chance)\n"
        )
    return (
        "from pathlib import Path\nfrom apps.explorer.session.labels import Labels\n\n"
        f"labels = Labels(Path({str(at.settings.store)!r}))\nprint(labels.all({at.model.name!r}))\n"
    )


main()
