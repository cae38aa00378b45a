"""Units by label, by a pattern of addresses, or by a concept that images show."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose
from apps.explorer.components.gallery import gallery, tile
from apps.explorer.pages import Entry
from apps.explorer.panes import label_files
from apps.explorer.panes.tiles import unit_tile
from apps.explorer.server.security import checked_text, guarded, plain
from apps.explorer.session import concepts, state
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Location
from circuits import plot
from circuits.dataset.concept_search import find
from circuits.network.address import Unit
from circuits.plot.drawing.wording import short

PAGE = Entry("Search", ":material/search:", "units by label, address or concept", order=90)
SEARCHES = {"label": "By label", "address": "By address", "concept": "By concept"}
MOST = 240
"""Units shown."""


def main() -> None:
    """The page."""
    at = page_frame.location()
    top = st.container()
    kind = choose("Search", SEARCHES, "search")
    export = None
    with guarded():
        export = {"label": _by_label, "address": _by_address, "concept": _by_concept}[kind](at)
    with top:
        page_frame.header(
            "search", "Search", about=f"among the units of {at.model.name}", view={"unit": str(at.unit)},
            python=_python(at, kind), export=export,
        )  # fmt: skip
    st.space("small")
    with guarded():
        label_files.show(at)


def _by_label(at: Location) -> Export:
    query = checked_text(st.text_input("Label, family, author or evidence", key="query", bind="query-params"), 200)
    terms = query.casefold().split()
    labels = [
        label
        for label in at.labels.all(at.model.name)
        if all(w in f"{label.name} {label.family} {label.author} {label.evidence}".casefold() for w in terms)
    ]
    polysemantic = sum(label.polysemantic for label in labels)
    st.caption(f"{len(labels):,} labels" + (f", {polysemantic:,} of polysemantic units" if polysemantic else ""))
    if not labels:
        st.info("No label matches. Labels are written on a unit's page, under Labels (circuits explore --allow-write).")
    tiles = [
        tile(x.unit, state.thumb_of(at, Unit.parse(x.unit)), alt=x.unit, name=x.name or "no label", note=short(x.unit))
        for x in labels[:MOST]
    ]
    gallery(tiles, "units", size=96, label="matching units")
    return Export("labels", None, lambda: at.labels.describe(at.model.name), lambda: [vars(label) for label in labels])


def _by_address(at: Location) -> Export:
    example = "mixed4a:1* or mixed3b:[12]?"
    typed = checked_text(st.text_input("Pattern", key="pattern", placeholder=example, bind="query-params"), 200)
    labels, pattern = state.labels_of(at), typed or f"{at.unit.space}:*"
    every = (f"{layer}:{i}" for layer, count in at.scanned.layers.items() for i in range(count))
    matches = [address for address in every if fnmatchcase(address.lower(), pattern.lower())]
    more = f"; the first {MOST} are shown" if len(matches) > MOST else ""
    st.caption(plain(f"{len(matches):,} units match {pattern}{more}"))
    full = [f"{at.model.name}/{address}" for address in matches]
    tiles = [unit_tile(at, u, labels) for u in full[:MOST]]
    gallery(tiles, "units", size=96, label="matching units")
    rows = [{"unit": u, "name": labels.get(u, "")} for u in full]
    return Export("units", None, lambda: rows, lambda: rows)


def _by_concept(at: Location) -> Export | None:
    names = concepts.concept_names(at)
    if not names:
        st.info("The scanned images have no labels. Give a folder of folders: circuits explore --images FOLDER")
        return None
    left, right = st.columns([3, 2])
    name = left.selectbox("Concept", names, key="concept", bind="query-params")
    layers = right.multiselect(
        "Layers", at.model.trunk, key="layers", placeholder="all layers of the trunk", bind="query-params"
    )
    positive, negative = concepts.concept_images(at, str(name))
    model, searched = at.model, list(layers) or at.model.trunk
    findings = page_frame.background_result(
        ("find", model.digest, str(name), positive.digest, negative.digest, tuple(searched)),
        f"comparing {len(positive):,} images with {name} to {len(negative):,} without",
        lambda report: find(
            model, positive=positive, negative=negative, layers=searched, intervals=20, progress=report
        ),
        model=model,
    )
    if findings is None:
        return None
    st.caption(
        plain(
            f"{len(positive):,} images with {name}, {len(negative):,} without. AUC: probability that an image with it "
            f"activates the unit more than one without, on the half of the images that did not rank the units; "
            f"with labels shuffled the best unit has {findings.chance:.3f}."
        )
    )
    labels = state.labels_of(at)
    tiles = [
        unit_tile(at, row.unit, labels, f"{row.auc:.3f}", mark="" if row.auc > findings.chance else "faint")
        for row in findings.rows[:48]
    ]
    gallery(tiles, "units", size=96, label="matching units")
    rows: list[dict[str, Any]] = [
        {"unit": r.unit, "auc": r.auc, "low": r.low, "high": r.high, "chance": findings.chance} for r in findings.rows
    ]
    return Export(
        f"find-{name}", lambda: plot.auc_table(findings, title=f"{name} in {model.name}"), lambda: rows, lambda: rows
    )


def _python(at: Location, kind: str) -> str:
    if kind == "concept":
        return (
            "import circuits\n\n"
            f"{state.loading_code_of(at)}\n"
            'findings = circuits.find(model, positive="WITH", negative="WITHOUT")\n'
            "print(findings.rows[:10], findings.chance)\n"
        )
    return (
        "from pathlib import Path\nfrom apps.explorer.session.labels import Labels\n\n"
        f"labels = Labels(Path({str(at.settings.store)!r}))\nprint(labels.all({at.model.name!r}))\n"
    )


main()
