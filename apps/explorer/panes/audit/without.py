"""The network without some suspects of an audit, in part or in full: classes, groups, confusion before and after."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st
from numpy.typing import NDArray

from apps.explorer import page_frame
from apps.explorer.components.choose import follow
from apps.explorer.panes import charts
from apps.explorer.panes.audit.suspects import VERDICTS
from apps.explorer.resources.audit import networks
from apps.explorer.resources.audit.audits import OpenAudit
from apps.explorer.server.security import UploadError, plain
from apps.explorer.session import links, state
from apps.explorer.session.state import Location
from circuits.dataset.accuracy import Accuracy
from circuits.dataset.audit.removal import removal
from circuits.dataset.audit.results import Audit, Suspect
from circuits.errors import shorten
from circuits.plot.drawing import palette
from circuits.plot.drawing.wording import counted, minus, short

MOST, RANDOM = 8, 8
"""Units that are removed together, and samples of other units."""
NUMBERS = 12
"""Classes up to which a confusion matrix has numbers in its cells."""


def removed(audit: Audit, selected: Suspect | None) -> dict[str, float]:
    """Short addresses of the units of the view's address, and their shares; without any, those of proven shortcuts.

    Raises:
        UploadError: too many, another form, or units that are no suspects.
    """
    text, known = links.param("remove", 2_000), {short(s.unit) for s in audit.suspects}
    if text is None:
        usual = [short(s.unit) for s in audit.claimed] or ([] if selected is None else [short(selected.unit)])
        return dict.fromkeys(usual[:MOST], 1.0)
    units: dict[str, float] = {}
    for part in () if text == "none" else text.split(","):
        name, _, share = part.rpartition("@")
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if name not in known or not 0 <= value <= 1:
            raise UploadError(
                f"units to remove are suspects with a share from 0 to 1, as {next(iter(known), 'layer:0')}@0.5; not "
                f"{shorten(part, 60)}"
            )
        units[name] = value
    if len(units) > MOST:
        raise UploadError(f"at most {MOST} units at a time, not {len(units)}")
    return units


def format_removed(units: Mapping[str, float]) -> str:
    """Units and shares as the address has them."""
    return ",".join(f"{name}@{share:g}" for name, share in units.items()) or "none"


def widgets(audit: Audit, units: Mapping[str, float]) -> None:
    """Which suspects are removed, and how much of each. They follow the address and change it."""
    names: dict[str, str] = {}
    for suspect in audit.suspects:
        names.setdefault(
            short(suspect.unit), f"{suspect.class_name}: {short(suspect.unit)}, {VERDICTS[suspect.verdict]}"
        )
    follow("remove_units", list(units))
    st.multiselect(
        "Suspects to remove", list(names), key="remove_units", format_func=names.__getitem__, max_selections=MOST,
        on_change=lambda: links.change(
            remove=format_removed({n: units.get(n, 1.0) for n in st.session_state["remove_units"]})
        ),
    )  # fmt: skip
    columns = st.columns(min(4, max(1, len(units))), gap="medium")
    for number, (name, share) in enumerate(units.items()):
        key = f"share-{name}"
        follow(key, share)

        def change(name: str = name, key: str = key) -> None:
            links.change(remove=format_removed({**units, name: st.session_state[key]}))

        columns[number % len(columns)].slider(
            f"Share of {plain(names[name].rpartition(',')[0])} removed", 0.0, 1.0, step=0.05, key=key, on_change=change
        )


def measured(at: Location, opened: OpenAudit, units: Mapping[str, float]) -> Accuracy | None:
    """The answers with and without the units, once somebody asked for them and they are computed."""
    images = opened.images
    if images is None:
        return None
    active = {name: share for name, share in units.items() if share > 0}
    if not active:
        st.caption("Choose a suspect and a share above 0.")
        return None
    text = format_removed(active)
    if links.param("measured", 2_000) != text:
        count = len(images.inputs.judging)
        st.caption(
            f"Measured on the {count:,} held-out images, with {RANDOM} samples of other units, when you ask for it."
        )
        if st.button("Measure", key="measure", type="primary"):
            links.change(measured=text, remove=format_removed(units))
            st.rerun()
        return None
    return page_frame.background_result(
        ("audit removal", *opened.key, text), "answers without the suspects",
        lambda report: removal(at.model, images, active, random=RANDOM, progress=report), model=at.model,
    )  # fmt: skip


def show(result: Accuracy) -> None:
    """Accuracy, the worst group, every class, and who is taken for whom."""
    assert result.edited is not None
    before, after = result.top1, float((result.edited == result.labels).mean())
    columns = st.columns(3, gap="medium")
    _metric(columns[0], "Right", before, after)
    what, rows = ("group", result.by_group) if result.by_group else ("class", result.by_class)
    worst = [min(rows, key=lambda row: row[key]) for key in ("top1", "edited")]
    _metric(columns[1], f"Worst {what}", worst[0]["top1"], worst[1]["edited"])
    before_after = [f"{row[what]} ({counted(row['images'], 'image')})" for row in worst]
    columns[1].caption(plain("; then ".join(dict.fromkeys(before_after))))
    changed = int((result.answers != result.edited).sum())
    columns[2].metric("Answers changed", f"{changed:,} of {len(result.labels):,}")
    if result.random_changes:
        low, high = (round(100 * f(result.random_changes)) for f in (min, max))
        st.caption(minus(
            f"Other units of the same layers, about as active, removed in the same way: {len(result.random_changes)} "
            f"samples change the share of right answers by {low:+d} to {high:+d} points."
        ))  # fmt: skip
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("###### Every class")
        rights = [np.array([row[key] for row in result.by_class]) for key in ("top1", "edited")]
        names = [html.escape(row["class"]) for row in result.by_class]
        figure = charts.class_bars(names, rights[0], rights[1], title="right, %")
        charts.show(figure, "right-by-class", "share of right answers of each class, before and after")
        st.dataframe(records(rows), hide_index=True, alt=f"share of right answers of each {what}")
    with right:
        for title, edited in (("as it is", False), ("without them", True)):
            st.markdown(f"###### Class of the image, and answer: {title}")
            charts.show(confusion(result, edited), f"confusion-{edited}", f"confusion matrix of the network {title}")


def records(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of classes or groups as a table, in percent; those of other units from least to most."""
    return [
        {
            "": row.get("group", row.get("class")), "images": row["images"], "right, %": round(100 * row["top1"]),
            "without, %": round(100 * row["edited"]),
            "other units, %": "{:.0f} to {:.0f}".format(*(100 * f(row["random"]) for f in (min, max))),
        }
        for row in rows
    ]  # fmt: skip


def _metric(column: Any, label: str, before: float, after: float) -> None:
    change = f"{100 * (after - before):+.1f} points"  # a hyphen: Streamlit's arrow points down for it alone
    none = not round(100 * (after - before), 1)
    column.metric(label, f"{100 * after:.1f} %", change, delta_color="off" if none else "normal")


def confusion(result: Accuracy, edited: bool) -> go.Figure:
    """Images by class and answer; answers that are the class of no image stand together as "other"."""
    counts, present = result.confusion(edited=edited), np.unique(result.labels)
    table: NDArray[np.int64] = counts[np.ix_(present, present)]
    columns = [html.escape(result.classes[i]) for i in present]
    names = list(columns)
    if len(present) < len(counts):
        table = np.column_stack([table, counts[present].sum(axis=1) - table.sum(axis=1)])
        columns.append("other")
    shares = table / table.sum(axis=1, keepdims=True)
    gray = [[0, palette.TILE], [1, "#5C5850"]]  # opaque: Plotly chooses the color of numbers by that of the cell alone
    heatmap = go.Heatmap(
        z=100 * shares, x=list(range(len(columns))), y=list(range(len(names))), customdata=table, zmin=0, zmax=100,
        text=table.astype(str), texttemplate="%{text}" if len(names) <= NUMBERS else None, colorscale=gray,
        showscale=False, xgap=1, ygap=1,
        hovertemplate="%{customdata} images, %{z:.0f} % of the class<extra></extra>",
    )  # fmt: skip
    axis = {"showgrid": False, "zeroline": False}
    layout = {
        "height": 90 + 24 * len(names), "margin": {"l": 4, "r": 30, "t": 6, "b": 4},
        "xaxis": {**axis, "tickvals": list(range(len(columns))), "ticktext": columns, "title": "answer"},
        "yaxis": {**axis, "tickvals": list(range(len(names))), "ticktext": names, "autorange": "reversed"},
    }  # fmt: skip
    return go.Figure(heatmap, layout)


def show_network(at: Location, opened: OpenAudit, units: Mapping[str, float]) -> None:
    """The network without the units, written out once somebody asked for it, and the button that saves it."""
    active = {name: share for name, share in units.items() if share > 0}
    if opened.images is None or not active:
        return
    text = format_removed(active)
    if links.param("written", 2_000) != text:
        if st.button("Write the network without them", key="write-network"):
            links.change(written=text)
            st.rerun()
        return
    written = page_frame.background_result(
        ("audit network", *opened.key, text), "writing the network without them",
        lambda _: networks.written(at.settings, at.model.name, opened.folder, active),
    )  # fmt: skip
    if written is None:
        return
    export = written.export
    st.download_button(
        "Save the network without them", written.content, "network.zip", "application/zip", key="save-network",
        icon=":material/download:", on_click="ignore",
    )  # fmt: skip
    why = f" No weights: {export.unfolded}." if export.unfolded else ""
    st.caption(plain(
        f"{', '.join(export.files)} and about.json, for a process that has only torch; outputs differ from those that "
        f"are measured here by at most {export.difference:.0e}.{why}", 1_000,
    ))  # fmt: skip


def script(at: Location, opened: OpenAudit, units: Mapping[str, float]) -> str:
    """Python code that gives the same numbers."""
    active = {name: share for name, share in units.items() if share > 0}
    return (
        "import circuits\nfrom circuits.dataset.audit.removal import audited_images, removal\n\n"
        f"{state.loading_code_of(at)}\n"
        f"audited = audited_images(model, {str(opened.folder)!r})\n"
        f"audit = audited.audit\nprint(audit.suspects[:1])\n"
        f"after = removal(model, audited, {active!r}, random={RANDOM})\nprint(after.by_class)\n"
    )
