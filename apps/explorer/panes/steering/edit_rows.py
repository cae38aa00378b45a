"""The edits of a view as rows of widgets, which follow its address and change it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from apps.explorer.components.choose import follow
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


def show(edits: Edits, count: int, label_of: Callable[[int], str], *, size: tuple[int, int] | None, text: bool) -> None:
    """The widgets, one row for each edit, and buttons to add and remove edits.

    Args:
        edits: of the view; count: number of units; label_of: gives the label of a unit, or "".
        size: of the map, None where there are no positions to select; text: whether the edits are of a text.
    """
    for i, edit in enumerate(edits):
        _row(i, edit, edits, count, label_of(edit.latent), size, text)
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        if len(edits) < edit_links.MOST and st.button("Add edit", key="edit-add", icon=":material/add:"):
            put(added(edits, edits[-1].latent if edits else 0))
        if edits and st.button("Remove all", key="edit-none", type="tertiary", help="The network without edits"):
            put(())
        st.caption("The browser's back button undoes the last change.", width="content")


def _row(
    i: int, edit: LatentEdit, edits: Edits, count: int, name: str, size: tuple[int, int] | None, text: bool
) -> None:
    columns = st.columns(WIDTHS, vertical_alignment="bottom", gap="small")
    visibility: Any = "visible" if i == 0 else "collapsed"
    changed: dict[str, Any] = {"on_change": _changed, "args": (i, edits, text)}
    follow(f"edit{i}-latent", edit.latent)
    columns[0].number_input(
        f"Unit (0 to {count - 1})", 0, count - 1, key=f"edit{i}-latent", label_visibility=visibility,
        help=plain(name) or None, **changed,
    )  # fmt: skip
    follow(f"edit{i}-kind", edit.kind)
    columns[1].selectbox(
        "Edit", list(KINDS), key=f"edit{i}-kind", format_func=KINDS.__getitem__, label_visibility=visibility, **changed
    )
    bare = edit.kind in ("scale", "ablate")
    follow(f"edit{i}-value", 0.0 if edit.value is None else float(edit.value))
    columns[2].number_input(
        "Value", -edit_links.LARGEST, edit_links.LARGEST, step=_STEP, key=f"edit{i}-value", format="%.4g",
        label_visibility=visibility, disabled=edit.kind == "ablate", **changed,
    )  # fmt: skip
    follow(f"edit{i}-unit", "absolute" if bare else edit.unit)
    bare_text = BARE.get(edit.kind)
    columns[3].selectbox(
        "In", list(UNITS), key=f"edit{i}-unit", format_func=lambda u: bare_text or UNITS[u],
        label_visibility=visibility, disabled=bare, **changed,
    )  # fmt: skip
    _where(columns[4], i, edit, size, text, visibility, changed)
    with columns[5].popover(_when_text(edit), width="stretch"):
        _when(i, edit, edits, count, text)
    if columns[6].button("", key=f"edit{i}-remove", icon=":material/close:", help="Remove this edit"):
        put(edits[:i] + edits[i + 1 :])


def _where(
    column: Any,
    i: int,
    edit: LatentEdit,
    size: tuple[int, int] | None,
    text: bool,
    visibility: Any,
    changed: dict[str, Any],
) -> None:
    options = {"all": "Everywhere"}
    if text:
        options["last"] = "At the last token"
    elif size is not None:
        options["some"] = f"At {len(edit.at)} of {size[0] * size[1]} positions" if edit.on_map else "At some positions"
    current = "some" if edit.on_map else "all" if isinstance(edit.at, tuple) else edit.at
    if isinstance(edit.at, tuple) and text:
        options["tokens"], current = f"At tokens {', '.join(map(str, edit.at))}"[:40], "tokens"
    follow(f"edit{i}-where", current)
    column.selectbox(
        "Where", list(options), key=f"edit{i}-where", format_func=options.__getitem__, label_visibility=visibility,
        disabled=len(options) == 1, **changed,
    )  # fmt: skip


def _when_text(edit: LatentEdit) -> str:
    if not edit.conditions:
        return "Always"
    conditions = [f"{c.latent} {_bound(c)}" for c in edit.conditions]
    return "When " + " and ".join(conditions)


def _bound(condition: When) -> str:
    unit = " × max" if condition.unit == "max" else ""
    parts = [
        f"{sign} {bound:g}{unit}"
        for sign, bound in ((">", condition.above), ("<", condition.below))
        if bound is not None
    ]
    return minus(" and ".join(parts)) + (" somewhere" if condition.anywhere else "")


def _when(i: int, edit: LatentEdit, edits: Edits, count: int, text: bool) -> None:
    st.caption("Edit only where the activation of a unit, before any edit, is above or below a value.")
    now = edit.conditions[0] if edit.conditions else None
    with st.form(f"when{i}", border=False):
        latent = st.number_input("Unit", 0, count - 1, now.latent if now else edit.latent, key=f"when{i}-latent")
        sides = ["above", "below"]
        side = st.selectbox("is", sides, 0 if now is None or now.above is not None else 1, key=f"when{i}-side")
        bound = (now.above if now.above is not None else now.below) if now else 0.1
        value = st.number_input(
            "Value", -edit_links.LARGEST, edit_links.LARGEST, bound, key=f"when{i}-value", format="%.4g"
        )
        unit = st.selectbox("In", list(UNITS), 0 if now is None or now.unit == "max" else 1, key=f"when{i}-unit",
                            format_func=UNITS.__getitem__)  # fmt: skip
        anywhere = not text and st.checkbox("Anywhere in the image is enough", now is not None and now.anywhere,
                                            key=f"when{i}-anywhere")  # fmt: skip
        if st.form_submit_button("Set condition"):
            bounds: dict[str, float] = {side: float(value or 0.0)}
            when = When(int(latent), unit=unit, anywhere=anywhere, **bounds)  # type: ignore[arg-type]
            put(_replaced(edits, i, replace(edit, when=when)))
    if edit.conditions and st.button("Always", key=f"when{i}-always", type="tertiary"):
        put(_replaced(edits, i, replace(edit, when=())))


def _changed(i: int, edits: Edits, text: bool) -> None:
    """Put the values of a row's widgets into the address."""
    if i >= len(edits):
        return
    values: dict[str, Any] = {k: st.session_state[f"edit{i}-{k}"] for k in ("latent", "kind", "value", "unit", "where")}
    before, kind = edits[i], values["kind"]
    unit = before.unit if before.kind in ("set", "add") else "max"
    if kind in ("set", "add") and before.kind in ("set", "add"):
        unit = values["unit"]
    value = None if kind == "ablate" else float(values["value"])
    if before.kind == "ablate" and kind != "ablate":
        value = 1.0 if kind != "scale" else 2.0
    at = before.at
    if values["where"] == "all" or (text and values["where"] == "last"):
        at = values["where"]
    elif values["where"] == "some" and not before.on_map:
        height, width = st.session_state.get("edit-map", (1, 1))
        at = tuple(edit_links.positions_in((height // 4, width // 4, (3 * height - 1) // 4, (3 * width - 1) // 4)))
    unit = unit if kind in ("set", "add") else "absolute"
    _put(_replaced(edits, i, LatentEdit(int(values["latent"]), kind, value, unit, at=at, when=before.when)))


def _replaced(edits: Edits, i: int, edit: LatentEdit) -> Edits:
    return (*edits[:i], edit, *edits[i + 1 :])


def added(edits: Edits, latent: int) -> Edits:
    """With one edit more: a unit set to its maximum, everywhere."""
    return (*edits, LatentEdit(latent, "set", 1.0, "max"))[: edit_links.MOST]


def _put(edits: Sequence[LatentEdit]) -> None:
    text = edit_links.format_edits(edits)
    if len(text) > links.LONGEST:
        st.toast("Too many separate positions for an address: select boxes.")
    else:
        links.change(edits=text or "none")


def put(edits: Sequence[LatentEdit]) -> None:
    """Show the view with other edits."""
    _put(edits)
    st.rerun()
