"""Labels as a file: export and import."""

from __future__ import annotations

import streamlit as st

from apps.explorer.server.security import MAX_UPLOAD, checked_json
from apps.explorer.session import state
from apps.explorer.session.state import Location


def show(at: Location) -> None:
    """Export of all labels of the store; import, where labels can be written."""
    with st.expander("All labels of this store, as a file"):
        export(at)
        if not at.settings.allow_write:
            st.caption("To import labels: circuits explore --allow-write")
            return
        file = st.file_uploader(
            "Import labels", ["json"], key="labels-import", max_upload_size=MAX_UPLOAD // 2**20,
            help="A file that Export wrote. Of two labels of one author for one unit the newer is used.",
        )  # fmt: skip
        if file is not None and st.button("Import", key="labels-merge", type="primary"):
            count = at.labels.merge(checked_json(file.getvalue()))
            st.success(f"{count:,} labels were new, or newer than those of the store.")


def export(at: Location) -> None:
    """The button that saves all labels of the store."""
    st.download_button(
        "Export labels", lambda: state.to_json(at.labels.describe()).encode("utf-8"), "labels.json", "application/json",
        key="labels-export", icon=":material/download:", on_click="ignore",
    )  # fmt: skip
