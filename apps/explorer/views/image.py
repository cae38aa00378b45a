"""One image: activations at a position, class attribution, and the activation grid of a layer."""

from __future__ import annotations

from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose
from apps.explorer.pages import Entry
from apps.explorer.panes import image_analysis
from apps.explorer.server.security import guarded
from apps.explorer.session import state
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Location
from circuits import plot

PAGE = Entry("Image", ":material/image_search:", "one image: activations at a position, class attribution", order=50)
SECTIONS = {
    "position": (image_analysis.show_position, "Activations at a position"),
    "class": (image_analysis.show_class, "Class attribution"),
    "grid": (image_analysis.show_grid, "Activation grid"),
}


def main() -> None:
    """The page."""
    at = page_frame.location()
    top = st.container()
    image = None
    with guarded():
        image = image_analysis.selected_image(at)
    section = next(iter(SECTIONS))
    if image is not None:
        if image.index is None:
            st.caption("Your own image stays in this session: a link to this view shows one of the scanned images.")
        section = choose("Section", {name: title for name, (_, title) in SECTIONS.items()}, "section")
        with guarded():
            SECTIONS[section][0](at, image)
    with top:  # last, since the Python code names the class that the section has chosen
        page_frame.header(
            "image", f"An image in {at.unit.space}",
            about="" if image is None else f"{image.name}; choose the layer on the left",
            view={"unit": str(at.unit), "image": None if image is None else image.index},
            python=_python(at, image, section), export=None if image is None else _export(at, image),
        )  # fmt: skip


def _python(at: Location, image: image_analysis.SelectedImage | None, section: str) -> str:
    scan = f"circuits.read_scan({str(at.settings.store)!r}, model.name)"
    index = 0 if image is None else image.index
    source = '"IMAGE.png"' if index is None else f"{scan}.images().subset([{index}])"
    loaded = f"import circuits\n\n{state.loading_code_of(at)}\nimage = {source}\n"
    if section == "class" and (chosen := st.session_state.get("class")) is not None:
        target = f"{at.model.logits}:{chosen}"
        return loaded + (
            f"attribution = circuits.attribute(model, image, source={at.unit.layer!r}, target={target!r})\n"
            f"print(attribution.values.sum(), attribution.response[0], attribution.top({image_analysis.UNITS}))\n"
        )
    if section == "grid":
        pooled = image_analysis.grid_pooling(at.model.layers[at.unit.layer])
        options = f"pooled={pooled}, steps={image_analysis.STEPS}, size={image_analysis.GRID_TILE}"
        return loaded + f"grid = circuits.activation_grid(model, {at.unit.layer!r}, image, {options})\n"
    position = image_analysis.position_of_address(at, at.unit.layer)
    return loaded + (
        f"dictionary = circuits.semantic_dictionary(\n    model, {at.unit.space!r}, image, at={position}, "
        f"top={image_analysis.UNITS}, steps=0\n)\n"
        "print(dictionary.entries[0].units, dictionary.entries[0].values)\n"
    )


def _export(at: Location, image: image_analysis.SelectedImage) -> Export:
    def rows() -> list[dict[str, Any]]:
        entry = image_analysis.position_result(at, image).entries[0]
        rows = zip(entry.units, entry.values, entry.typical, strict=True)
        return [{"position": "{},{}".format(*entry.position), "unit": u, "value": v, "typical": t} for u, v, t in rows]

    return Export(
        f"image-{at.unit.space}",
        lambda: plot.dictionary_figure(image_analysis.position_result(at, image)),
        lambda: image_analysis.position_result(at, image).describe(),
        rows,
    )


main()
