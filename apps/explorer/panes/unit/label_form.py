"""What people call a unit, and the form to say so."""

from __future__ import annotations

import streamlit as st

from apps.explorer.server.security import plain
from apps.explorer.session.labels import Label
from apps.explorer.session.state import Here


def show(at: Here) -> None:
    """All labels of the unit, and the form where labels can be written."""
    unit = str(at.unit.channel)
    known = at.labels.of(unit)
    for label in known:
        other = "" if label.weights in ("", at.model.digest) else "; said of other weights"
        kind = f"; family {label.family}" if label.family else ""
        many = "; several things" if label.polysemantic else ""
        st.markdown(f"**{plain(label.name) or 'no name'}**{plain(kind + many + other)}")
        st.caption(plain(f"{label.author}, {label.saved[:16].replace('T', ' ')} UTC. {label.evidence}", 700))
    if not known:
        st.caption("Nobody has named it yet.")
    if not at.settings.allow_write:
        st.caption("Labels are read only here. To write some: circuits explore --allow-write")
        return
    author = st.session_state.get("author", "")
    own = next((label for label in known if label.author == author), None)
    with st.form(f"label-{unit}", width=620):
        left, right = st.columns(2)
        name = left.text_input("Name", own.name if own else "", max_chars=120, placeholder="wheel")
        family = right.text_input("Family", own.family if own else "", max_chars=80, placeholder="object parts")
        evidence = st.text_area(
            "Evidence", own.evidence if own else "", max_chars=2000, height=80,
            placeholder="what speaks for it: pictures, circuits, links",
        )  # fmt: skip
        several = st.checkbox("It answers to several unrelated things", own.polysemantic if own else False)
        who = st.text_input("Author", author, max_chars=80, placeholder="your name")
        if st.form_submit_button("Save", type="primary"):
            said = Label(unit, who, name, family, several, evidence, at.model.digest)
            at.labels.save(said)
            st.session_state["author"] = said.checked().author
            st.rerun()
    if own is not None and st.button("Remove mine", key="remove-label", type="tertiary"):
        at.labels.remove(unit, author)
        st.rerun()
