"""A button that copies the address of the view."""

from __future__ import annotations

import streamlit as st

from apps.explorer.components import asset

_mount = st.components.v2.component(
    "explorer_link",
    html='<button type="button" class="link" aria-live="polite"></button>',
    css=asset("base.css") + asset("share.css"),
    js=asset("share.js"),
)


def copy_link(path: str) -> None:
    """The button; `path` is the view's address without the server's."""
    _mount(key="copy-link", data={"path": path}, width="content")
