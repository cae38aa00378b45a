"""Labels as a file: taken along, and brought in."""

from __future__ import annotations

import streamlit as st

from apps.explorer.server.security import MAX_UPLOAD, checked_json
from apps.explorer.session import state
from apps.explorer.session.state import Here


def show(at: Here) -> None:
    """Export of all labels of the store; import, where labels can be written."""
    with st.expander("All labels of this store, as a file"):
        st.download_button(
            "Export", lambda: state.described(at.labels.describe()).encode("utf-8"), "labels.json", "application/json",
            key="labels-export", icon=":material/download:", on_click="ignore",
        )  # fmt: skip
        if not at.settings.allow_write:
            st.caption("To bring some in: circuits explore --allow-write")
            return
        given = st.file_uploader(
            "Bring labels in", ["json"], key="labels-import", max_upload_size=MAX_UPLOAD // 2**20,
            help="A file of this kind. Of two labels of one author for one unit the newer stays.",
        )  # fmt: skip
        if given is not None and st.button("Bring in", key="labels-merge", type="primary"):
            count = at.labels.merge(checked_json(given.getvalue()))
            st.success(f"{count:,} labels were new or newer.")
