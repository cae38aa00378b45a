"""The collections that a unit is in, and the form that adds it to one."""

from __future__ import annotations

import streamlit as st

from apps.explorer.server.security import plain
from apps.explorer.session import links
from apps.explorer.session.collections import NOTE, Collections
from apps.explorer.session.state import Location
from circuits.errors import CircuitsError


def show(at: Location) -> None:
    """Show both."""
    store, unit, names = Collections(at.settings.store), str(at.unit.channel), []
    for name in store.names():
        try:
            if unit in dict(store.read(name).units):
                names.append(name)
        except CircuitsError:
            continue  # a damaged one must not hide the others; the page Collections says what is wrong
    for name in names:
        st.markdown(f"[{plain(name)}]({links.path_of('collections', {'unit': unit, 'collection': name})})")
    if not names:
        st.caption("It is in no collection.")
    if not at.settings.allow_write:
        return
    with st.form(f"collect-{unit}", width=620):
        left, right = st.columns(2)
        name = left.text_input("Collection", max_chars=80, placeholder="wheels")
        note = right.text_input("Note", max_chars=NOTE)
        if st.form_submit_button("Add"):
            store.add(name, unit, note)
            st.rerun()
