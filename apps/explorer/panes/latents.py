"""The latents of an SAE: how often they fire, small pictures of some of them, and a channel against them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import pick
from apps.explorer.components.gallery import gallery
from apps.explorer.panes.tiles import unit_tile
from apps.explorer.resources import saes
from apps.explorer.resources.saes import Given
from apps.explorer.server.security import UploadError, plain
from apps.explorer.session import exports, links, state
from apps.explorer.session.state import Here
from circuits.plot.drawing import palette
from circuits.plot.drawing.wording import number
from circuits.plot.sae.channel_dissection import dissection_figure
from circuits.units.channel_dissection import Dissection, dissect
from zoo.images.sources import Images
from zoo.progress import Progress

ORDERS = {"lot": "By lot", "often": "Fires most often", "seldom": "Fires least often", "strong": "Strongest response"}
SHOWN, PICTURES, EXAMPLES, SEED = 48, 200, 32, 0
_LOWEST = -6.0
"""Power of ten below which no number of inputs that was looked at can tell densities apart."""


def table(at: Here, found: tuple[Given, ...], broken: Mapping[str, str]) -> None:
    """All SAEs, those of other models and those that cannot be read with a line that says so."""
    rows = [{**one.row(), "note": saes.refused(at, one)} for one in found]
    rows += [{"SAE": name, "note": why} for name, why in broken.items()]
    names = dict.fromkeys(k for row in rows for k in row)
    used = [k for k in names if any(row.get(k) not in (None, "") for row in rows)]
    three = st.column_config.NumberColumn(format="%.3f")
    st.dataframe(
        [{k: row.get(k) for k in used} for row in rows], hide_index=True, column_config={"FVU": three},
        alt="the SAEs that the server was given",
    )  # fmt: skip


def densities(one: Given) -> Any:
    """How many latents fire how often: share of inputs along, in powers of ten."""
    assert one.densities is not None
    powers = np.log10(np.maximum(one.densities, 1e-12))
    live = powers[powers > _LOWEST]
    counts, edges = np.histogram(live, bins=np.linspace(_LOWEST, 0.0, 49))
    middles = (edges[1:] + edges[:-1]) / 2
    hover = [f"{10**low:.2g} to {10**high:.2g} of inputs" for low, high in zip(edges, edges[1:], strict=False)]
    figure = go.Figure(
        go.Bar(
            x=middles, y=counts, width=edges[1] - edges[0], customdata=hover, opacity=0.75,
            marker={"color": palette.EXCITES, "line": {"width": 0}},
            hovertemplate="%{customdata}: %{y} latents<extra></extra>",
        )
    )  # fmt: skip
    powers_shown = list(range(int(_LOWEST), 1))
    figure.update_layout(
        height=230, margin={"l": 4, "r": 4, "t": 6, "b": 4}, bargap=0.08, showlegend=False,
        xaxis={
            "title": "share of inputs on which a latent fires", "range": [_LOWEST, 0], "tickvals": powers_shown,
            "ticktext": ["1" if p == 0 else f"10<sup>{p}</sup>".replace("-", "\N{MINUS SIGN}") for p in powers_shown],
        },
        yaxis={"title": "latents"},
    )  # fmt: skip
    return figure


def silent(one: Given) -> int:
    """Latents that fired on no input, by the densities that are kept."""
    return 0 if one.densities is None else int((one.densities <= 10**_LOWEST).sum())


def wall(there: Here) -> None:
    """Small pictures of some latents that fire; a click opens the unit's page."""
    layer = there.scanned.layer(there.unit.space)
    by = pick("Which latents", ORDERS, "sort")
    live = np.flatnonzero(layer.fires_on > 0)
    if by == "lot":
        chosen = np.random.default_rng(SEED).permutation(live)[:SHOWN]
        chosen.sort()
    else:
        key = -layer.maximum[live] if by == "strong" else layer.density[live] * (1 if by == "seldom" else -1)
        chosen = live[np.argsort(key, kind="stable")][:SHOWN]
    st.caption(
        f"{len(live):,} of {len(layer):,} latents fire on {there.scanned.count:,} pictures. Shown: {len(chosen)}."
    )
    names = state.names_of(there)
    space = f"{there.model.name}/{there.unit.space}"
    # the number alone: all of them share what stands before it, and a tile has no room for it
    tiles = [
        unit_tile(there, unit, names, f"{100 * layer.density[i]:.2g} %") | {"name": names.get(unit) or f":{i}"}
        for i in chosen.tolist()
        for unit in [f"{space}:{i}"]
    ]
    gallery(tiles, "latents", size=92, label=f"latents of {there.unit.space}")


def channel_asked(at: Here, layer: str) -> int:
    """The channel of the address, with the widget that changes it.

    Raises:
        UploadError: there is no such channel.
    """
    count = at.model.layers[layer].channels
    said = links.asked("channel", 20) or str(_first(at, layer))
    if not (said.isdecimal() and int(said) < count):
        raise UploadError(f"{layer} has channels 0 to {count - 1}; asked for {said}")
    if st.session_state.get("channel_number") != int(said):
        st.session_state["channel_number"] = int(said)
    st.number_input(f"Channel of {plain(layer)} (0 to {count - 1})", 0, count - 1, key="channel_number",
                    on_change=_moved, width=260)  # fmt: skip
    return int(said)


def _first(at: Here, layer: str) -> int:
    return at.unit.index if at.unit.layer == layer and at.unit.basis is None and at.unit.index is not None else 0


def _moved() -> None:
    links.change(channel=int(st.session_state["channel_number"]))


def some_of(images: Images) -> Images:
    """The pictures that a channel is taken apart on: all of them, or so many drawn by lot."""
    if len(images) <= PICTURES:
        return images
    return images.subset(sorted(np.random.default_rng(SEED).permutation(len(images))[:PICTURES].tolist()))


def taken_apart(at: Here, there: Here, layer: str, name: str, channel: int) -> tuple[Dissection, bytes, Images] | None:
    """A channel against latents, and its figure; None while that is being worked out."""
    model, images = at.model, some_of(state.pictures_of(there))

    def work(progress: Progress) -> tuple[Dissection, bytes, Images]:
        found = dissect(model, f"{layer}:{channel}", name, images, n=EXAMPLES, progress=progress)
        figure = exports.figure_bytes(lambda: dissection_figure(found, images, model.input), "png")
        return found, figure, images

    key = ("dissect", model.digest, str(dict(at.settings.saes).get(name)), layer, name, channel, images.digest)
    made: tuple[Dissection, bytes, Images] | None = page_frame.settled(
        key, f"taking {layer}:{channel} apart", work, model=model
    )
    return made


def told(found: Dissection) -> list[dict[str, Any]]:
    """The latents that write to the channel, as rows."""
    return [
        {"latent": w.unit, "share of the response": round(w.share, 4), "weight": round(w.weight, 4),
         "gives most on": w.leads, "strongest": number(w.examples[0].value) if w.examples else ""}
        for w in found.writers
    ]  # fmt: skip
