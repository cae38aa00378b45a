"""The latents of an SAE: their activation density, thumbnails of some of them, and channels decomposed into them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import number, pick
from apps.explorer.components.gallery import gallery
from apps.explorer.panes.charts import LOWEST_DENSITY
from apps.explorer.panes.tiles import unit_tile
from apps.explorer.resources import saes
from apps.explorer.resources.saes import LoadedSAE
from apps.explorer.server.security import plain
from apps.explorer.session import state
from apps.explorer.session.figures import ScreenFigure, screen_figure
from apps.explorer.session.state import Location
from circuits.plot.drawing.wording import number as text_of
from circuits.plot.sae.channel_dissection import dissection_figure
from circuits.units.channel_dissection import Dissection, dissect
from zoo.images.sources import Images
from zoo.progress import Progress

ORDERS = {
    "random": "Random sample",
    "dense": "Highest activation density",
    "sparse": "Lowest activation density",
    "maximum": "Largest activation",
}
TILES, IMAGES, EXAMPLES, SEED = 48, 200, 32, 0

Dissected = tuple[Dissection, ScreenFigure, Images]
"""A channel decomposed into latents, its figure as PNG, and the images."""


def table(at: Location, loaded: tuple[LoadedSAE, ...], broken: Mapping[str, str]) -> None:
    """A table of all SAEs, with a note on those of another model and those that cannot be read."""
    rows = [{**sae.row(), "note": saes.refused(at, sae)} for sae in loaded]
    rows += [{"SAE": name, "note": reason} for name, reason in broken.items()]
    names = dict.fromkeys(k for row in rows for k in row)
    used = [k for k in names if any(row.get(k) not in (None, "") for row in rows)]
    rounded = st.column_config.NumberColumn(format="%.3f")
    st.dataframe(
        [{k: row.get(k) for k in used} for row in rows], hide_index=True, column_config={"FVU": rounded},
        alt="the SAEs of this server",
    )  # fmt: skip


def never_active(sae: LoadedSAE) -> int:
    """Number of latents that were active on no input."""
    return 0 if sae.densities is None else int((sae.densities <= LOWEST_DENSITY).sum())


def wall(at: Location) -> None:
    """Thumbnails of some latents that are active; a click opens the unit's page."""
    layer = at.scanned.layer(at.unit.space)
    by = pick("Latents", ORDERS, "sort")
    live = np.flatnonzero(layer.active_images > 0)
    if by == "random":
        chosen = np.random.default_rng(SEED).permutation(live)[:TILES]
        chosen.sort()
    else:
        key = -layer.maximum[live] if by == "maximum" else layer.density[live] * (1 if by == "sparse" else -1)
        chosen = live[np.argsort(key, kind="stable")][:TILES]
    st.caption(
        f"{len(live):,} of {len(layer):,} latents are active on {at.scanned.count:,} images. Shown: {len(chosen)}."
    )
    labels = state.labels_of(at)
    space = f"{at.model.name}/{at.unit.space}"
    # the number alone: all latents share the rest of the address, and a tile has no room for it
    tiles = [
        unit_tile(at, unit, labels, f"{100 * layer.density[i]:.2g} %") | {"name": labels.get(unit) or f":{i}"}
        for i in chosen.tolist()
        for unit in [f"{space}:{i}"]
    ]
    gallery(tiles, "latents", size=92, label=f"latents of {at.unit.space}")


def channel_of_address(at: Location, layer: str) -> int:
    """The channel of the address, with the widget that changes it.

    Raises:
        UploadError: there is no such channel.
    """
    last = at.model.layers[layer].channels - 1
    own = at.unit.index if at.unit.layer == layer and at.unit.basis is None else None
    label = f"Channel of {plain(layer)} (0 to {last})"
    return number(label, "channel", 0, last, own or 0, st.columns([1, 3])[0])


def some_of(images: Images) -> Images:
    """The images that a channel is decomposed on: all of them, or a random sample."""
    if len(images) <= IMAGES:
        return images
    return images.subset(sorted(np.random.default_rng(SEED).permutation(len(images))[:IMAGES].tolist()))


def dissected(at: Location, scanned: Location, layer: str, name: str, channel: int) -> Dissected | None:
    """A channel decomposed into latents; None while that is computed."""
    model, images = at.model, some_of(state.images_of(scanned))

    def work(progress: Progress) -> Dissected:
        dissection = dissect(model, f"{layer}:{channel}", name, images, n=EXAMPLES, progress=progress)
        figure = screen_figure(lambda: dissection_figure(dissection, images, model.input))
        return dissection, figure, images

    key = ("dissect", model.digest, str(dict(at.settings.saes).get(name)), layer, name, channel, images.digest)
    return page_frame.background_result(key, f"decomposing {layer}:{channel}", work, model=model)


def writer_rows(dissection: Dissection) -> list[dict[str, Any]]:
    """The latents that write to the channel, as rows."""
    return [
        {"latent": w.unit, "share of the response": round(w.share, 4), "weight": round(w.weight, 4),
         "largest contribution on": w.leads, "maximum": text_of(w.examples[0].value) if w.examples else ""}
        for w in dissection.writers
    ]  # fmt: skip
