"""Named lists of units with notes: saved in the store, as a file, or in a link."""

from __future__ import annotations

from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import pick
from apps.explorer.components.gallery import gallery, tile
from apps.explorer.pages import Entry
from apps.explorer.panes.tiles import unit_tile
from apps.explorer.server.security import MAX_UPLOAD, checked_json, guarded, plain
from apps.explorer.session import links, state
from apps.explorer.session.collections import Collection, Collections
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Location
from circuits.errors import CircuitsError
from circuits.network.address import Unit

PAGE = Entry("Collections", ":material/collections_bookmark:", "named lists of units with notes", order=85)
NEW = "-"
"""In the address: none of the saved ones."""


def main() -> None:
    """The page."""
    at = page_frame.location()
    store, top, collection = Collections(at.settings.store), st.container(), None
    with guarded():
        collection = _chosen(at, store)
    with top:
        page_frame.header(
            "collections",
            collection.name if collection is not None and collection.units else "Collections",
            about="units that belong together, with notes",
            view=_view(at, collection),
            export=None if collection is None or not collection.units else _export(collection),
        )
    if collection is not None:
        with guarded():
            _show(collection)
    with guarded():
        _edit(at, store, collection)
    with guarded():
        _files(at, store)


def _chosen(at: Location, store: Collections) -> Collection:
    """The collection of the address: the units that it lists, or a saved one."""
    listed = links.param("units", links.LONGEST)
    if listed:
        return Collection.of_lines("linked", "", "\n".join(listed.split(",")), at.model.name)
    names = store.names()
    requested = links.param("collection", 100)
    if requested is not None and requested not in (NEW, *names):
        return store.read(requested)  # the error says which there are
    if not names:
        return Collection("new")
    first = requested if requested is not None else names[0]
    name = pick(
        "Collection", {n: n for n in dict.fromkeys([first, *names])} | {NEW: "A new one"}, "collection", width=300
    )
    return Collection("new") if name == NEW else store.read(name)


def _view(at: Location, collection: Collection | None) -> dict[str, Any]:
    """The address: a saved collection by its name; one that is in no store by its units, so that a link has them."""
    view: dict[str, Any] = {"unit": str(at.unit)}
    if collection is not None and collection.units:
        listed = links.param("units", links.LONGEST)
        view |= {"units": listed} if listed else {"collection": collection.name}
    return view


def _show(collection: Collection) -> None:
    if collection.notes:
        st.markdown(plain(collection.notes, 2_000))
    tiles, missing = [], []
    for address, note in collection.units:
        try:
            here = state.locate(address)
            tiles.append({**unit_tile(here, address, state.names_of(here)), "note": note})
        except CircuitsError as error:  # of a model that is not open here
            tiles.append(tile(None, None, alt=address, name=address, note=note))
            missing.append(str(error))
    gallery(tiles, "collection-units", size=128, label=f"units of {collection.name}")
    for reason in dict.fromkeys(missing):
        st.caption(plain(reason))
    if collection.units:
        units = ",".join(unit for unit, _ in collection.units)
        path = links.path_of("collections", {"units": units})
        if len(path) < links.LONGEST:
            st.markdown(f"[The same units as a link that needs no store]({path})")


def _edit(at: Location, store: Collections, collection: Collection | None) -> None:
    if not at.settings.allow_write:
        st.caption("Collections are read only here. To save some: circuits explore --allow-write")
        return
    before = collection or Collection("new")
    with st.form(f"collection-{before.name}", width=760):
        name = st.text_input("Name", before.name, max_chars=80)
        notes = st.text_area("Notes", before.notes, max_chars=2000, height=80)
        text = st.text_area(
            "Units, one a line: its address, then a note", before.lines(), height=160,
            placeholder="mixed4a:11 the car\nmixed3b:39 its wheels",
        )  # fmt: skip
        if st.form_submit_button("Save", type="primary"):
            written = store.save(Collection.of_lines(name, notes, text, at.model.name))
            links.go("collections", unit=at.unit, collection=written.name)
    if before.name in store.names() and st.button("Delete this collection", type="tertiary", key="collection-delete"):
        store.remove(before.name)
        links.go("collections", unit=at.unit)


def _files(at: Location, store: Collections) -> None:
    if not at.settings.allow_write:
        return
    file = st.file_uploader(
        "Import a collection", ["json"], key="collection-import", max_upload_size=MAX_UPLOAD // 2**20
    )
    if file is not None and st.button("Import", key="collection-merge", type="primary"):
        written = store.save(Collection.parse(checked_json(file.getvalue())))
        links.go("collections", unit=at.unit, collection=written.name)


def _export(collection: Collection) -> Export:
    def rows() -> list[dict[str, Any]]:
        return [{"unit": str(Unit.parse(unit)), "note": note} for unit, note in collection.units]

    return Export(f"collection-{collection.name}", None, collection.describe, rows)


main()
