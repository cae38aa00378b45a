"""The sparse autoencoders of this server: their metrics, their latents, and channels decomposed into latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose, pick
from apps.explorer.pages import Entry
from apps.explorer.panes import charts
from apps.explorer.panes.sae import latents
from apps.explorer.resources import saes
from apps.explorer.resources.saes import LoadedSAE
from apps.explorer.server.security import UploadError, guarded, plain
from apps.explorer.server.settings import BUILT_IN
from apps.explorer.session import figures
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Location
from circuits.errors import shorten
from circuits.plot.sae.channel_dissection import dissection_figure

PAGE = Entry("SAE", ":material/blur_on:", "sparse autoencoders: latents, and channels decomposed into them", order=70)
SECTIONS = {"latents": "Latents", "channel": "Channel decomposition"}


def main() -> None:
    """The page."""
    at = page_frame.location()
    top = st.container()
    loaded, broken = saes.loaded_saes(at.settings)
    chosen: LoadedSAE | None = None
    dissected: latents.Dissected | None = None
    if not loaded and not broken:
        _without(at)
    else:
        latents.table(at, loaded, broken)
    if loaded:
        chosen = _chosen(at, loaded)
        _metrics(chosen)
        space = saes.space_of(at, chosen)
        if space is None:
            st.info(plain(f"{chosen.name}: {saes.refused(at, chosen)}"))
        else:
            section = choose("Section", SECTIONS, "section")
            with guarded():
                dissected = _section(at, chosen, space, section)
    with top:
        page_frame.header(
            "sae", "Sparse autoencoders" if chosen is None else f"Sparse autoencoder {chosen.name}",
            about="the latents of an SAE are units of its layer, like channels", view={"unit": str(at.unit)},
            python=_python(at, chosen), export=_export(at, chosen, dissected),
        )  # fmt: skip


def _chosen(at: Location, loaded: tuple[LoadedSAE, ...]) -> LoadedSAE:
    """The SAE of the address, or the first one of the open model."""
    order = sorted(loaded, key=lambda sae: saes.space_of(at, sae) is None)
    requested = st.query_params.get("sae", "")
    by_name = {sae.name: sae for sae in order}
    if requested and requested not in by_name:
        raise UploadError(f"no SAE {shorten(requested)!r} is loaded; there are {', '.join(by_name)}")
    return by_name[pick("SAE", {name: f"{name}: {sae.model}/{sae.layer}" for name, sae in by_name.items()}, "sae")]


def _without(at: Location) -> None:
    layer = at.unit.layer if at.model.layers[at.unit.layer].size is not None else at.model.trunk[0]
    st.info("No sparse autoencoder is loaded. Train one on a layer, and start the explorer with it:")
    images, width = "scenes:2000" if at.model.name == BUILT_IN else "FOLDER", 8 * at.model.layers[layer].channels
    options = ("--images", images, "--latents", width, "--k", 8, "--out", "saes/parts")
    train = at.command("sae", "train", f"{at.model.name}/{layer}", *options)
    st.code(f"{train}\ncircuits explore --sae saes/parts", language="sh", wrap_lines=True)


def _metrics(chosen: LoadedSAE) -> None:
    if chosen.report:
        st.caption(
            "FVU, L0 and dead latents are of the last training report. "
            "circuits sae eval measures them on held-out images, beside the layer's own channels."
        )
    if chosen.densities is not None:
        st.markdown("##### Activation density of the latents")
        figure = charts.density_histogram(chosen.densities)
        charts.show(figure, "densities", "Histogram of the activation densities of latents")
        dead = latents.never_active(chosen)
        st.caption(f"{dead:,} of {chosen.sae.latents:,} latents were active on no input, and are not shown.")


def _section(at: Location, chosen: LoadedSAE, space: str, section: str) -> latents.Dissected | None:
    scanned = saes.scanned(at, chosen, space)
    if section == "latents":
        if scanned is None:
            st.info("Its latents are not scanned yet. This command scans all of them:")
            st.code(at.command("sae", "features", chosen.folder), language="sh", wrap_lines=True)
        else:
            latents.wall(scanned)
        return None
    layer, _, name = space.partition("~")
    channel = latents.channel_of_address(at, layer)
    result = latents.dissected(at, at if scanned is None else scanned, layer, name, channel)
    if result is None:
        return None
    dissection, figure, images = result
    examples = f"its {len(dissection.examples)} top activating images"
    st.caption(plain(f"On {len(images):,} images of {images.name}; {examples}."))
    figures.show(figure, f"{layer}:{channel} decomposed into latents")
    st.dataframe(latents.writer_rows(dissection), hide_index=True, alt="latents that write to the channel")
    return result


def _python(at: Location, chosen: LoadedSAE | None) -> str:
    if chosen is None:
        return ""
    if chosen.of_language:
        return f"import sae\n\ns = sae.load({str(chosen.folder)!r})\n"
    channel = st.session_state.get("channel_number", 0)
    return (
        "import circuits\n"
        "from sae.data.attach import attach_folder\n\n"
        f"model = circuits.load({chosen.model!r})\n"
        f"site, name = attach_folder(model, {str(chosen.folder)!r}, {chosen.name!r})\n"
        f"images = circuits.read_scan({str(at.settings.store)!r}, model.name).images()\n"
        f"dissection = circuits.dissect(model, f'{{site.layer.name}}:{channel}', name, images, n={latents.EXAMPLES})\n"
    )


def _export(at: Location, chosen: LoadedSAE | None, dissected: latents.Dissected | None) -> Export | None:
    if chosen is None:
        return None
    if dissected is None:
        data: Mapping[str, Any] = {**chosen.row(), "report": dict(chosen.report)}
        return Export(f"sae-{chosen.name}", None, lambda: data, lambda: [chosen.row()])
    dissection, _, images = dissected
    figure = lambda: dissection_figure(dissection, images, at.model.input)  # noqa: E731
    return Export(dissection.unit, figure, dissection.describe, lambda: latents.writer_rows(dissection))


main()
