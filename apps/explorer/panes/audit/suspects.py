"""The suspects of an audit: which, by their images; and one of them, with what its removal changes beside controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.gallery import gallery, tile
from apps.explorer.panes import charts
from apps.explorer.resources.audit.audits import OpenAudit
from apps.explorer.resources.thumbnails import jpeg, uri
from apps.explorer.server.security import UploadError, plain
from apps.explorer.session import links
from apps.explorer.session.state import Location
from circuits.common.examples import Example
from circuits.dataset.audit.results import Audit, Effect, Suspect
from circuits.errors import shorten
from circuits.plot.audit.page import label_sentences, sentences, strength_sentence, visualization
from circuits.plot.drawing import crops, palette
from circuits.plot.drawing.wording import short

FIRST, MOST, SIDE = 12, 240, 160
"""Suspects that are shown at first, and at most; and the largest side of an image."""
VERDICTS = {"shortcut": "shortcut", "possible": "possible shortcut", "no": "no shortcut"}


def key_of(suspect: Suspect) -> str:
    """A suspect in the address: its unit, and its class, since a unit may be suspected for several."""
    return f"{short(suspect.unit)}/{suspect.class_index}"


def title_of(suspect: Suspect) -> str:
    """Its class and unit."""
    return f"{suspect.class_name}: {short(suspect.unit)}"


def chosen(audit: Audit) -> Suspect | None:
    """The suspect of the address, or the first one; None where there is none.

    Raises:
        UploadError: the audit has no such suspect.
    """
    requested = links.param("suspect", 200)
    if requested is None:
        return next(iter(audit.suspects), None)
    for suspect in audit.suspects:
        if key_of(suspect) == requested:
            return suspect
    raise UploadError(f"this audit has no suspect {shorten(requested, 60)}; the first is {key_of(audit.suspects[0])}"
                      if audit.suspects else "this audit has no suspects")  # fmt: skip


def show_all(at: Location, opened: OpenAudit, selected: Suspect | None) -> None:
    """The suspects, the most suspicious first; a click selects one."""
    suspects = opened.audit.suspects
    rows = suspects[: MOST if links.param("suspects", 10) == "all" else FIRST]
    cut = _cut(at, f"{len(rows)} suspects", {key_of(s): s.with_images[:1] for s in rows}, opened)
    tiles = [
        tile(
            None, next(iter(cut.get(key_of(s), ())), None), alt=title_of(s), name=s.class_name, pick=key_of(s),
            note=", ".join([short(s.unit)] + [s.verdict] * (s.verdict != "no")),
            mark="here" if s is selected else "faint" if s.verdict == "no" else "",
        )
        for s in rows
    ]  # fmt: skip
    picked = gallery(tiles, "suspects", size=100, label="suspects, the most suspicious first")
    if picked and picked != (None if selected is None else key_of(selected)):
        links.change(suspect=picked, panel=None)
        st.rerun()
    if len(suspects) > len(rows):
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            st.caption(f"The first {len(rows)} of {len(suspects)}, the most suspicious first.", width="content")
            if len(rows) < MOST and st.button("More", key="more-suspects", type="tertiary"):
                links.change(suspects="all")
                st.rerun()


def show(at: Location, suspect: Suspect, opened: OpenAudit) -> None:
    """One suspect: sentences, effects beside their controls, images with it and without it."""
    st.markdown(f"##### {plain(title_of(suspect))}: {VERDICTS[suspect.verdict]}")
    left, right = st.columns([6, 5], gap="large")
    with left:
        st.markdown(plain(f"{suspect.reason[:1].upper()}{suspect.reason[1:]}."))
        for sentence in sentences(suspect):
            st.markdown(plain(sentence))
        if labels := label_sentences(suspect):
            st.markdown(plain(f"It {'; '.join(labels)}."))
        with st.container(horizontal=True, gap="small"):
            if st.button("Remove it", key="remove-it"):
                links.change(panel="without", remove=f"{short(suspect.unit)}@1", measured=None)
                st.rerun()
            if st.button("Open unit", key="open-unit"):
                links.go("unit", unit=suspect.unit)
    with right:
        rows = [("removed", suspect.removal), ("inserted", suspect.insertion)]
        if suspect.background is not None:
            rows.append(("removed, before backgrounds of the class", suspect.background))
        charts.show(effects(rows), "effects", f"changes by {title_of(suspect)} beside controls")
        st.caption(
            f"Held-out images. Orange: this unit, with its 95 % interval; gray: {len(suspect.removal.controls)} other "
            f"units. Removed: change of how many images of {plain(suspect.class_name)} are right; inserted: of how "
            "many images of other classes are called so."
        )
    optimized = visualization(suspect)
    if optimized is not None:
        st.markdown("###### Visualization")
        image = tile(None, uri(jpeg(optimized, SIDE)), alt=f"visualization of {title_of(suspect)}")
        gallery([image], "visualization", size=130, label="visualization")
        st.caption(plain(strength_sentence(suspect)))
    examples = {
        f"Images of {suspect.class_name} with it": suspect.with_images,
        f"Images of {suspect.class_name} without it": suspect.without_images,
        "Images of other classes with it": suspect.elsewhere_images,
    }
    cut = _cut(at, f"suspect {key_of(suspect)}", examples, opened)
    for number, (title, uris) in enumerate(cut.items()):
        if uris:
            st.markdown(f"###### {plain(title)}")
            gallery([tile(None, src, alt=title) for src in uris], f"images-{number}", size=88, label=title)


def show_classes(audit: Audit) -> None:
    """The audited classes, those that were not, and the groups."""
    rows = [
        {
            "class": c.class_name, "images": c.n_images + c.n_held_out, "right, %": round(100 * c.accuracy.value),
            "others called so, %": round(100 * c.called.value, 1), "suspects": len(c.suspects),
            "carried by": "; ".join(f"{len(u)} of {c.n_units[layer]} in {layer}" for layer, u in c.units.items()),
        }
        for c in audit.classes
    ]  # fmt: skip
    st.dataframe(rows, hide_index=True, alt="the audited classes")
    for name, reason in audit.omitted.items():
        st.caption(plain(f"{name}: not audited, {reason}"))
    if audit.groups:
        groups = [
            {"class": g.class_name, "group": g.group, "images": g.n_images, "right, %": round(100 * g.accuracy.value)}
            for g in audit.groups
        ]
        st.dataframe(groups, hide_index=True, alt="groups, the worst first")


def effects(rows: Sequence[tuple[str, Effect]]) -> go.Figure:
    """Changes in points beside those of controls, the first on top."""
    traces, names = [], [name for name, _ in rows]
    for name, effect in rows:
        values = 100 * np.array(effect.controls)
        traces.append(go.Scatter(
            x=values, y=[name] * len(values), mode="markers", marker={"color": palette.REST, "size": 7, "opacity": 0.6},
            hovertemplate="another unit: %{x:+.0f} points<extra></extra>",
        ))  # fmt: skip
        change = effect.change
        ends = {"array": [100 * (change.high - change.value)], "arrayminus": [100 * (change.value - change.low)]}
        traces.append(go.Scatter(
            x=[100 * change.value], y=[name], mode="markers", marker={"color": palette.EXCITES, "size": 11},
            error_x={"type": "data", "symmetric": False, "color": palette.EXCITES, **ends},
            hovertemplate="this unit: %{x:+.0f} points<extra></extra>",
        ))  # fmt: skip
    layout = {
        "height": 60 + 46 * len(rows), "margin": {"l": 4, "r": 8, "t": 6, "b": 4}, "showlegend": False,
        "xaxis": {"title": "change, points", "zeroline": True},
        "yaxis": {"categoryorder": "array", "categoryarray": names[::-1], "ticksuffix": "  "},
    }  # fmt: skip
    return go.Figure(traces, layout)


def _cut(
    at: Location, what: str, examples: Mapping[str, tuple[Example, ...]], opened: OpenAudit
) -> Mapping[str, tuple[str, ...]]:
    """Images of examples as data URIs, by name; nothing while they are made, or without the images."""
    if opened.images is None:
        return {}
    source, spec = opened.images.inputs.images, at.model.input

    def make(_report: object) -> dict[str, tuple[str, ...]]:
        cut = crops.cut_examples(examples, source, spec, limit=SIDE)
        return {name: tuple(uri(jpeg(crop, SIDE)) for crop in some) for name, some in cut.items()}

    with st.container():  # what follows keeps its place when the bar goes
        return page_frame.background_result(("audit images", *opened.key, what), "images of suspects", make) or {}
