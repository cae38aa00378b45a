"""The edits of a view as rows of widgets. They say what its address says; what is changed goes into the address."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from apps.explorer.server.security import plain
from apps.explorer.session import edit_links, links
from apps.explorer.session.edit_links import Edits
from circuits.plot.drawing.wording import minus
from sae.steering import LatentEdit, When

KINDS = {"set": "Set to", "add": "Add", "scale": "Multiply by", "ablate": "Ablate"}
UNITS = {"max": "× its maximum", "absolute": "as a number"}
BARE = {"scale": "as a factor", "ablate": "to zero"}
WIDTHS = [2.1, 2, 1.7, 2.3, 2.7, 2.8, 0.8]
_STEP = 0.25


def rows(edits: Edits, count: int, names: Callable[[int], str], *, size: tuple[int, int] | None, text: bool) -> None:
    """The widgets, one row for each edit, and what adds one.

    Args:
        edits: of the view; count: how many units there are; names: what a unit is called, empty for nothing.
        size: of the map, None where there are no places to choose; text: whether the places are tokens.
    """
    for i, one in enumerate(edits):
        _row(i, one, edits, count, names(one.latent), size, text)
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        if len(edits) < edit_links.MOST and st.button("Another edit", key="edit-add", icon=":material/add:"):
            put(added(edits, edits[-1].latent if edits else 0))
        if edits and st.button("None", key="edit-none", type="tertiary", help="The network as it is"):
            put(())
        st.caption("The way back in the browser takes back the last change.", width="content")


def _row(
    i: int, one: LatentEdit, edits: Edits, count: int, name: str, size: tuple[int, int] | None, text: bool
) -> None:
    columns = st.columns(WIDTHS, vertical_alignment="bottom", gap="small")
    shown: Any = "visible" if i == 0 else "collapsed"
    changed: dict[str, Any] = {"on_change": _changed, "args": (i, edits, text)}
    follow(f"edit{i}-latent", one.latent)
    columns[0].number_input(
        f"Unit (0 to {count - 1})", 0, count - 1, key=f"edit{i}-latent", label_visibility=shown,
        help=plain(name) or None, **changed,
    )  # fmt: skip
    follow(f"edit{i}-kind", one.kind)
    columns[1].selectbox(
        "What", list(KINDS), key=f"edit{i}-kind", format_func=KINDS.__getitem__, label_visibility=shown, **changed
    )
    bare = one.kind in ("scale", "ablate")
    follow(f"edit{i}-value", 0.0 if one.value is None else float(one.value))
    columns[2].number_input(
        "Value", -edit_links.LARGEST, edit_links.LARGEST, step=_STEP, key=f"edit{i}-value", format="%.4g",
        label_visibility=shown, disabled=one.kind == "ablate", **changed,
    )  # fmt: skip
    follow(f"edit{i}-unit", "absolute" if bare else one.unit)
    words = BARE.get(one.kind)
    columns[3].selectbox(
        "In", list(UNITS), key=f"edit{i}-unit", format_func=lambda u: words or UNITS[u],
        label_visibility=shown, disabled=bare, **changed,
    )  # fmt: skip
    _where(columns[4], i, one, size, text, shown, changed)
    with columns[5].popover(_when_words(one), width="stretch", disabled=False):
        _when(i, one, edits, count, text)
    if columns[6].button("", key=f"edit{i}-remove", icon=":material/close:", help="Take this edit away"):
        put(edits[:i] + edits[i + 1 :])


def _where(
    place: Any, i: int, one: LatentEdit, size: tuple[int, int] | None, text: bool, shown: Any, changed: dict[str, Any]
) -> None:
    options = {"all": "Everywhere"}
    if text:
        options["last"] = "At the last token"
    elif size is not None:
        options["some"] = f"At {len(one.at)} of {size[0] * size[1]} places" if one.on_map else "At some places"
    here = "some" if one.on_map else "all" if isinstance(one.at, tuple) else one.at
    if isinstance(one.at, tuple) and text:
        options["tokens"], here = f"At tokens {', '.join(map(str, one.at))}"[:40], "tokens"
    follow(f"edit{i}-where", here)
    place.selectbox(
        "Where", list(options), key=f"edit{i}-where", format_func=options.__getitem__, label_visibility=shown,
        disabled=len(options) == 1, **changed,
    )  # fmt: skip


def _when_words(one: LatentEdit) -> str:
    if not one.conditions:
        return "Always"
    words = [f"{c.latent} {_bound(c)}" for c in one.conditions]
    return "When " + " and ".join(words)


def _bound(one: When) -> str:
    unit = " × max" if one.unit == "max" else ""
    parts = [f"{sign} {bound:g}{unit}" for sign, bound in ((">", one.above), ("<", one.below)) if bound is not None]
    return minus(" and ".join(parts)) + (" somewhere" if one.anywhere else "")


def _when(i: int, one: LatentEdit, edits: Edits, count: int, text: bool) -> None:
    st.caption("Only where another unit, as the network has it before any edit, is above or below a value.")
    now = one.conditions[0] if one.conditions else None
    with st.form(f"when{i}", border=False):
        latent = st.number_input("Unit", 0, count - 1, now.latent if now else one.latent, key=f"when{i}-latent")
        sides = ["above", "below"]
        side = st.selectbox("is", sides, 0 if now is None or now.above is not None else 1, key=f"when{i}-side")
        bound = (now.above if now.above is not None else now.below) if now else 0.1
        value = st.number_input(
            "Value", -edit_links.LARGEST, edit_links.LARGEST, bound, key=f"when{i}-value", format="%.4g"
        )
        unit = st.selectbox("In", list(UNITS), 0 if now is None or now.unit == "max" else 1, key=f"when{i}-unit",
                            format_func=UNITS.__getitem__)  # fmt: skip
        anywhere = not text and st.checkbox("Somewhere in the picture is enough", now is not None and now.anywhere,
                                            key=f"when{i}-anywhere")  # fmt: skip
        if st.form_submit_button("Only then"):
            bounds: dict[str, float] = {side: float(value or 0.0)}
            when = When(int(latent), unit=unit, anywhere=anywhere, **bounds)  # type: ignore[arg-type]
            put(_replaced(edits, i, replace(one, when=when)))
    if one.conditions and st.button("Always", key=f"when{i}-always", type="tertiary"):
        put(_replaced(edits, i, replace(one, when=())))


def _changed(i: int, edits: Edits, text: bool) -> None:
    """What the widgets of a row say goes into the address."""
    if i >= len(edits):
        return
    said: dict[str, Any] = {k: st.session_state[f"edit{i}-{k}"] for k in ("latent", "kind", "value", "unit", "where")}
    before, kind = edits[i], said["kind"]
    unit = before.unit if before.kind in ("set", "add") else "max"
    if kind in ("set", "add") and before.kind in ("set", "add"):
        unit = said["unit"]
    value = None if kind == "ablate" else float(said["value"])
    if before.kind == "ablate" and kind != "ablate":
        value = 1.0 if kind != "scale" else 2.0
    at = before.at
    if said["where"] == "all" or (text and said["where"] == "last"):
        at = said["where"]
    elif said["where"] == "some" and not before.on_map:
        height, width = st.session_state.get("edit-map", (1, 1))
        at = tuple(edit_links.filled((height // 4, width // 4, (3 * height - 1) // 4, (3 * width - 1) // 4)))
    unit = unit if kind in ("set", "add") else "absolute"
    _put(_replaced(edits, i, LatentEdit(int(said["latent"]), kind, value, unit, at=at, when=before.when)))


def _replaced(edits: Edits, i: int, one: LatentEdit) -> Edits:
    return (*edits[:i], one, *edits[i + 1 :])


def added(edits: Edits, latent: int) -> Edits:
    """One more edit: a unit set to its maximum, everywhere."""
    return (*edits, LatentEdit(latent, "set", 1.0, "max"))[: edit_links.MOST]


def _put(edits: Sequence[LatentEdit]) -> None:
    text = edit_links.written(edits)
    if len(text) > links.LONGEST:
        st.toast("So many separate places have no room in an address: choose boxes.")
    else:
        links.change(edits=text or "none")


def put(edits: Sequence[LatentEdit]) -> None:
    """Show the view with other edits."""
    _put(edits)
    st.rerun()


def follow(key: str, value: Any) -> None:
    """Let a widget say what the address says."""
    if st.session_state.get(key) != value:
        st.session_state[key] = value
