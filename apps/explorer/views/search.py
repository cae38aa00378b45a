"""Units by meaning: class names, labels, the images that activate them, addresses, and concepts that images show."""

from __future__ import annotations

from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import text
from apps.explorer.components.gallery import gallery
from apps.explorer.pages import Entry
from apps.explorer.panes import label_files
from apps.explorer.panes.tiles import unit_tile
from apps.explorer.server.security import guarded, plain
from apps.explorer.session import concepts, state, unit_search
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Location
from circuits import plot
from circuits.dataset.concept_search import find

PAGE = Entry("Search", ":material/search:", "units by class, label, image, address or concept", order=90)
MOST = 240
"""Units shown of each kind."""


def main() -> None:
    """The page."""
    at = page_frame.location()
    top = st.container()
    query = text("Class, label, part or address", "query", 200, "convertible, wheel, or mixed4a:1*")
    export: Export | None = None
    with guarded():
        export = _by_name(at, query)
    with guarded():
        export = _by_concept(at, query) or export
    with top:
        page_frame.header(
            "search", f"Search {query}".strip(), about=f"among the units of {at.model.name}",
            view={"unit": str(at.unit)}, python=_python(at), export=export,
        )  # fmt: skip
    st.space("small")
    with guarded():
        label_files.show(at)


def _by_name(at: Location, query: str) -> Export:
    """Units by the names that are known: of classes, by labels, by the classes of images, and by address."""
    rows: list[dict[str, Any]] = []

    def show(kind: str, caption: str, notes: dict[str, str]) -> None:
        more = f"; the first {MOST} are shown" if len(notes) > MOST else ""
        st.caption(plain(caption + more))
        tiles = [unit_tile(at, unit, names, note) for unit, note in list(notes.items())[:MOST]]
        gallery(tiles, f"units-{kind}", size=96, label=f"units by {kind}")
        rows.extend({"by": kind, "unit": unit, "name": names.get(unit, ""), "note": n} for unit, n in notes.items())

    names = state.names_of(at)
    addresses = dict.fromkeys(unit_search.by_address(at, query), "")
    if ":" in query:
        show("address", f"{len(addresses):,} units match {query}", addresses)
    if classes := unit_search.by_class_name(at, query):
        show(
            "class",
            f"Classes of this name: {len(classes):,}; these are the units of their scores",
            dict.fromkeys(classes, ""),
        )
    labels = unit_search.by_label(at, query)
    polysemantic = sum(label.polysemantic for label in labels)
    if labels or not rows:
        several = f", {polysemantic:,} of polysemantic units" if polysemantic else ""
        show("label", f"{len(labels):,} labels{several}", {x.unit: "" for x in labels})
    units, share = unit_search.by_top_images(at, query)
    if units:
        of = f"of which {100 * share:.2g} % of the scanned images are"
        show(
            "images",
            f"{len(units):,} units with {unit_search.LEAST} or more of their {unit_search.TOP} top activating images "
            f"of one class of this name, {of}",
            {x.unit: f"{x.count} of {unit_search.TOP} {x.name}" for x in units},
        )
    if not rows:
        st.info("No name matches. Labels are written on a unit's page, under Labels (circuits explore --allow-write).")
    return Export("units", None, lambda: {"query": query, "units": rows}, lambda: rows)


def _by_concept(at: Location, query: str) -> Export | None:
    """Units that images with a concept activate more than images without; nothing is run before one is chosen."""
    names = concepts.concept_names(at)
    st.markdown("##### By a concept that images show")
    if not names:
        st.info("The scanned images have no labels. Give a folder of folders: circuits explore --images FOLDER")
        return None
    named = unit_search.concepts_named(names, query)
    left, right = st.columns([3, 2])
    name = left.selectbox(
        "Concept", names, index=None, key="concept", bind="query-params", placeholder=", ".join(named or names)[:80]
    )
    layers = right.multiselect(
        "Layers", at.model.trunk, key="layers", placeholder="all layers of the trunk", bind="query-params"
    )
    if name is None:
        return None
    positive, negative = concepts.concept_images(at, str(name))
    model, searched = at.model, list(layers) or at.model.trunk
    findings = page_frame.background_result(
        ("find", model.digest, str(name), positive.digest, negative.digest, tuple(searched)),
        f"comparing {len(positive):,} images with {name} to {len(negative):,} without",
        lambda bar: find(model, positive=positive, negative=negative, layers=searched, intervals=20, progress=bar),
        model=model, folder=at.results,
    )  # fmt: skip
    if findings is None:
        return None
    st.caption(plain(
        f"{len(positive):,} images with {name}, {len(negative):,} without. AUC: probability that an image with it "
        f"activates the unit more than one without, on the half of the images that did not rank the units; "
        f"with labels shuffled the best unit has {findings.chance:.3f}."
    ))  # fmt: skip
    labels = state.names_of(at)
    tiles = [
        unit_tile(at, row.unit, labels, f"{row.auc:.3f}", mark="" if row.auc > findings.chance else "faint")
        for row in findings.rows[:48]
    ]
    gallery(tiles, "units", size=96, label=f"units for {name}")
    rows: list[dict[str, Any]] = [
        {"unit": r.unit, "auc": r.auc, "low": r.low, "high": r.high, "chance": findings.chance} for r in findings.rows
    ]
    title = f"{name} in {model.name}"
    return Export(f"find-{name}", lambda: plot.auc_table(findings, title=title), lambda: rows, lambda: rows)


def _python(at: Location) -> str:
    concept = st.session_state.get("concept")
    if concept is None:
        return (
            "from pathlib import Path\nfrom apps.explorer.session.labels import Labels\n\n"
            f"labels = Labels(Path({str(at.settings.store)!r}))\nprint(labels.all({at.model.name!r}))\n"
        )
    searched = list(st.session_state.get("layers") or ()) or at.model.trunk
    return (
        f"import circuits\n\n{state.loading_code_of(at)}\n"
        f"images = circuits.read_scan({str(at.settings.store)!r}, model.name).images()\n"
        f"{concepts.code(at, str(concept))}"
        f"findings = circuits.find(model, positive=positive, negative=negative, layers={searched!r}, intervals=20)\n"
        "print(findings.rows[:10], findings.chance)\n"
    )


main()
