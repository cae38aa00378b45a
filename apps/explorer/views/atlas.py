"""A finished activation atlas: a map of a layer's activations, to zoom, filter by class, and click."""

from __future__ import annotations

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.atlas_map import atlas_map, map_cell
from apps.explorer.components.choose import pick
from apps.explorer.pages import Entry
from apps.explorer.panes.layer import atlas_cell
from apps.explorer.resources import atlases
from apps.explorer.server.byte_cache import cached
from apps.explorer.server.security import guarded, plain
from apps.explorer.session import links
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Location
from circuits.activations.atlas import Atlas, Cell
from circuits.errors import CircuitsError
from circuits.plot.activations.atlas import SIMILARITIES, atlas_figure, sizes

PAGE = Entry("Atlas", ":material/map:", "a map of a layer's activations, from `circuits atlas`", order=55)
EVERY = "all"


def main() -> None:
    """The page."""
    at, top = page_frame.location(), st.container()
    names, atlas, name = atlases.names(at.folder), None, ""
    with guarded():
        if names:
            name = _chosen(at, names)
            atlas = _opened(str(at.folder), name, at.model.digest, atlases.stamp(at.folder, name))
    title = f"Atlas of {at.unit.space}" if atlas is None else f"Atlas of {atlas.layer}"
    with top:
        page_frame.header(
            "atlas", title, about="similar activations lie together; the axes mean nothing",
            view={"unit": str(at.unit)} | ({"atlas": name} if name else {}),
            python=_python(at, name) if name else "", export=None if atlas is None else _export(name, atlas),
        )  # fmt: skip
    if not names:
        out = f"{at.folder}/{atlases.FOLDER}/{at.unit.space}"
        st.caption(plain(f"The store has no atlas of {at.model.name} yet. Make one:"))
        st.code(
            at.command("atlas", f"{at.model.name}/{at.unit.space}", "--images", "FOLDER", "--out", out),
            language="sh",
            wrap_lines=True,
        )
    if atlas is not None:
        with guarded():
            _show(at, name, atlas)


def _chosen(at: Location, names: list[str]) -> str:
    """The atlas of the address, or one of its layer; with a choice where there are several."""
    requested = links.param("atlas", 100)
    if requested is not None and requested not in names:
        raise CircuitsError(f"the store has no atlas of that name; it has {', '.join(names)}")
    first = at.unit.space if at.unit.space in names else names[0]
    return (
        pick("Atlas", {n: n for n in dict.fromkeys([first, *names])}, "atlas", width=260) if len(names) > 1 else first
    )


@cached
def _opened(folder: str, name: str, weights: str, stamp: int) -> Atlas:
    from pathlib import Path

    return atlases.opened(Path(folder), name, weights)


@cached
def _sheet(folder: str, name: str, stamp: int, _atlas: Atlas) -> tuple[str, int]:
    return atlases.sheet(_atlas)


def _show(at: Location, name: str, atlas: Atlas) -> None:
    classes = sorted({label for cell in atlas.cells for label, _ in cell.labels})
    chosen = pick("Class", {EVERY: "All classes", **{c: c for c in classes}}, "class", width=260) if classes else EVERY
    matching = [chosen == EVERY or chosen in dict(cell.labels) for cell in atlas.cells]
    if chosen != EVERY:
        st.caption(
            plain(f"{sum(matching)} of {len(matching)} cells have {chosen} among the classes that they raise most.")
        )
    src, across = _sheet(str(at.folder), name, atlases.stamp(at.folder, name), atlas)
    selected = _selected(atlas)
    cells = [
        map_cell(
            cell.row, cell.column, i if atlas.statuses[i] == "ok" else -1, float(scale), atlas_cell.lines(at, cell),
            about=f"row {cell.row + 1}, column {cell.column + 1}: {cell.count} samples", faint=not matching[i],
        )
        for i, (cell, scale) in enumerate(zip(atlas.cells, sizes(atlas), strict=True))
    ]  # fmt: skip
    where = None if selected is None else (selected.row, selected.column)
    picked = atlas_map(cells, atlas.grid, src, across, where, key="atlas_map", label=f"atlas of {atlas.layer}")
    if picked is not None and picked != where:
        links.change(cell=f"{picked[0]},{picked[1]}")
        st.rerun()
    rows = [(SIMILARITIES.get(r.quantity, r.quantity), r.neighbors, r.random, r.shuffled) for r in atlas.similarity]
    st.caption(plain("How similar neighbors are, beside pairs taken at random: " + "; ".join(
        f"{what}: {near:.2f} (any two {any_two:.2f}" + (")" if shuffled is None else f", shuffled {shuffled:.2f})")
        for what, near, any_two, shuffled in rows
    )))  # fmt: skip
    if selected is not None:
        atlas_cell.show(at, selected)


def _selected(atlas: Atlas) -> Cell | None:
    text = links.param("cell", 20)
    row, _, column = (text or "").partition(",")
    if text is None:
        return None
    cell = atlas.at(int(row), int(column)) if row.isdecimal() and column.isdecimal() else None
    if cell is None:
        raise CircuitsError(f"the atlas has no cell {text}; a cell is row,column, counted from 0 to {atlas.grid - 1}")
    return cell


def _python(at: Location, name: str) -> str:
    folder = str(at.folder / atlases.FOLDER / name)
    load = "from circuits.activations.atlas_store import load_atlas\n\n"
    return f"{load}atlas = load_atlas({folder!r})\nprint(atlas.cells[0])\n"


def _export(name: str, atlas: Atlas) -> Export:
    return Export(f"atlas-{name}", lambda: atlas_figure(atlas), atlas.describe)


main()
