"""One picture taken apart: what places say, what speaks for a class, and how a layer sees it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose
from apps.explorer.panes import image_analysis
from apps.explorer.server.security import guarded
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Here
from circuits import plot

SECTIONS = {"place": "What a place says", "class": "What speaks for a class", "grid": "Every place as a picture"}


def main() -> None:
    """The page."""
    at = page_frame.opened()
    top = st.container()
    shown = None
    with guarded():
        shown = image_analysis.chosen(at)
    with top:
        page_frame.show(
            "image", f"A picture, in {at.unit.space}",
            about="" if shown is None else f"{shown.name}; the layer is picked on the left",
            view={"unit": str(at.unit), "picture": None if shown is None else shown.index},
            python=_python(at, shown), export=None if shown is None else _export(at, shown),
        )  # fmt: skip
    if shown is None:
        return
    if shown.index is None:
        st.caption("Your own picture stays in this session: a link to this view shows one of the scanned pictures.")
    section = choose("Section", SECTIONS, "section")
    with guarded():
        {"place": image_analysis.show_place, "class": image_analysis.show_class, "grid": image_analysis.show_grid}[
            section
        ](at, shown)


def _python(at: Here, shown: image_analysis.Shown | None) -> str:
    picture = f"pictures.subset([{shown.index}])" if shown is not None and shown.index is not None else '"PICTURE.png"'
    return (
        "import circuits\n\n"
        f"model = circuits.load({at.model.name!r})\n"
        f"pictures = circuits.read_scan({str(at.settings.store)!r}, model.name).pictures()\n"
        f"said = circuits.semantic_dictionary(model, {at.unit.space!r}, {picture}, steps=0)\n"
        f"given = circuits.attribute(model, {picture}, source={at.unit.layer!r}, target='logits:0')\n"
    )


def _export(at: Here, shown: image_analysis.Shown) -> Export:
    def rows() -> list[dict[str, Any]]:
        entry = image_analysis.take(at, shown).entries[0]
        found = zip(entry.units, entry.values, entry.typical, strict=True)
        return [{"place": "{},{}".format(*entry.position), "unit": u, "value": v, "typical": t} for u, v, t in found]

    return Export(
        f"image-{at.unit.space}",
        lambda: plot.dictionary_figure(image_analysis.take(at, shown)),
        lambda: image_analysis.take(at, shown).describe(),
        rows,
    )


main()
