"""Labels of a unit, and the form to write one."""

from __future__ import annotations

import streamlit as st

from apps.explorer.panes import label_files
from apps.explorer.server.security import plain
from apps.explorer.session.labels import Label
from apps.explorer.session.state import Location


def show(at: Location) -> None:
    """All labels of the unit, and the form where labels can be written."""
    unit = str(at.unit.channel)
    labels = at.labels.of(unit)
    for label in labels:
        other = "" if label.weights in ("", at.model.digest) else "; written for other weights"
        kind = f"; family {label.family}" if label.family else ""
        many = "; polysemantic" if label.polysemantic else ""
        st.markdown(f"**{plain(label.name) or 'no label'}**{plain(kind + many + other)}")
        st.caption(plain(f"{label.author}, {label.saved[:16].replace('T', ' ')} UTC. {label.evidence}", 700))
    if not labels:
        st.caption("It has no label yet.")
    if not at.settings.allow_write:
        st.caption("Labels are read only here. To write labels: circuits explore --allow-write")
        return
    author = st.session_state.get("author", "")
    own = next((label for label in labels if label.author == author), None)
    with st.form(f"label-{unit}", width=620):
        left, right = st.columns(2)
        name = left.text_input("Label", own.name if own else "", max_chars=120, placeholder="wheel")
        family = right.text_input("Family", own.family if own else "", max_chars=80, placeholder="object parts")
        evidence = st.text_area(
            "Evidence", own.evidence if own else "", max_chars=2000, height=80,
            placeholder="why: image ids, circuits, links to views",
        )  # fmt: skip
        several = st.checkbox("It is polysemantic: active on unrelated features", own.polysemantic if own else False)
        writer = st.text_input("Author", author, max_chars=80, placeholder="your name")
        if st.form_submit_button("Save", type="primary"):
            entry = Label(unit, writer, name, family, several, evidence, at.model.digest)
            at.labels.save(entry)
            st.session_state["author"] = entry.checked().author
            st.rerun()
    if own is not None and st.button("Remove my label", key="remove-label", type="tertiary"):
        at.labels.remove(unit, author)
        st.rerun()
    if labels:
        label_files.export(at)
