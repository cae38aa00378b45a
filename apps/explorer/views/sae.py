"""The sparse autoencoders that the server was given: their numbers, their latents, and channels against them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose, pick
from apps.explorer.panes import latents
from apps.explorer.resources import saes
from apps.explorer.resources.saes import Given
from apps.explorer.server.security import UploadError, guarded, plain
from apps.explorer.session import exports
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Here
from circuits.errors import shorten
from circuits.plot.sae.channel_dissection import dissection_figure
from circuits.units.channel_dissection import Dissection
from zoo.images.sources import Images

SECTIONS = {"latents": "Latents", "channel": "A channel against latents"}
_TRAIN = "circuits sae train {} --images {} --latents {} --k 8 --out saes/parts\ncircuits explore --sae saes/parts"


def main() -> None:
    """The page."""
    at = page_frame.opened()
    top = st.container()
    found, broken = saes.given(at.settings)
    one: Given | None = None
    made: tuple[Dissection, bytes, Images] | None = None
    if not found and not broken:
        _without(at)
    else:
        latents.table(at, found, broken)
    if found:
        one = _one(at, found)
        _numbers(one)
        space = saes.space_of(at, one)
        if space is None:
            st.info(plain(f"{one.name}: {saes.refused(at, one)}"))
        else:
            section = choose("Section", SECTIONS, "section")
            with guarded():
                made = _section(at, one, space, section)
    with top:
        page_frame.show(
            "sae", "Sparse autoencoders" if one is None else f"Sparse autoencoder {one.name}",
            about="latents of a layer, which are units like any other", view={"unit": str(at.unit)},
            python=_python(at, one), export=_export(at, one, made),
        )  # fmt: skip


def _one(at: Here, found: tuple[Given, ...]) -> Given:
    """The SAE that is looked at: that of the address, or the first that reads the open model."""
    order = sorted(found, key=lambda one: saes.space_of(at, one) is None)
    said = st.query_params.get("sae", "")
    if said and said not in {one.name for one in found}:
        raise UploadError(f"no SAE {shorten(said)!r} was given; there are {', '.join(one.name for one in found)}")
    wanted = pick("SAE", {one.name: f"{one.name}: {one.model}/{one.layer}" for one in order}, "sae")
    return next(one for one in found if one.name == wanted)


def _without(at: Here) -> None:
    layer = at.unit.layer if at.model.layers[at.unit.layer].size is not None else at.model.trunk[0]
    built_in = at.model.name == "scenes"
    st.info("The server was given no sparse autoencoder. Train one on a layer, and start the explorer with it:")
    command = _TRAIN.format(
        f"{at.model.name}/{layer}", "scenes:2000" if built_in else "FOLDER", 8 * at.model.layers[layer].channels
    )
    st.code(command, language="sh", wrap_lines=True)


def _numbers(one: Given) -> None:
    if one.report:
        st.caption(
            "FVU, L0 and dead are those of the last report of its training. "
            "circuits sae eval measures it on pictures that it has not seen, beside the layer's own channels."
        )
    if one.densities is not None:
        st.markdown("##### How often its latents fire")
        st.plotly_chart(
            latents.densities(one), key="densities", config={"displayModeBar": False},
            alt="Histogram of the densities of latents",
        )  # fmt: skip
        st.caption(f"{latents.silent(one):,} of {one.sae.latents:,} latents fired on no input, and are not shown.")


def _section(at: Here, one: Given, space: str, section: str) -> tuple[Dissection, bytes, Images] | None:
    there = saes.scanned(at, one, space)
    if section == "latents":
        if there is None:
            st.info("Its latents have not been scanned. This looks at all of them, once:")
            st.code(f"circuits sae features {one.folder}", language="sh", wrap_lines=True)
        else:
            latents.wall(there)
        return None
    layer, _, name = space.partition("~")
    channel = latents.channel_asked(at, layer)
    made = latents.taken_apart(at, at if there is None else there, layer, name, channel)
    if made is None:
        return None
    found, figure, images = made
    st.caption(plain(f"On {len(images):,} pictures of {images.name}; its {len(found.examples)} strongest examples."))
    st.image(figure, width="stretch", alt=f"{layer}:{channel} taken apart into latents")
    st.dataframe(latents.told(found), hide_index=True, alt="latents that write to the channel")
    return made


def _python(at: Here, one: Given | None) -> str:
    if one is None:
        return ""
    if one.of_language:
        return f"import sae\n\ns = sae.load({str(one.folder)!r})\n"
    channel = st.session_state.get("channel_number", 0)
    return (
        "import circuits\nfrom circuits.units.channel_dissection import dissect\n"
        "from sae.data.vision_site import attach_folder\n\n"
        f"model = circuits.load({one.model!r})\n"
        f"site, name = attach_folder(model, {str(one.folder)!r}, {one.name!r})\n"
        f"pictures = circuits.read_scan({str(at.settings.store)!r}, model.name).pictures()\n"
        f"found = dissect(model, f'{{site.layer.name}}:{channel}', name, pictures, n={latents.EXAMPLES})\n"
    )


def _export(at: Here, one: Given | None, made: tuple[Dissection, bytes, Images] | None) -> Export | None:
    if one is None:
        return None
    if made is None:
        data: Mapping[str, Any] = {**one.row(), "report": dict(one.report)}
        return exports.Export(f"sae-{one.name}", None, lambda: data, lambda: [one.row()])
    found, _, images = made
    return exports.Export(
        found.unit,
        lambda: dissection_figure(found, images, at.model.input),
        found.describe,
        lambda: latents.told(found),
    )


main()
