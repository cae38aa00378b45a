"""A button that copies the address of the view."""

from __future__ import annotations

from apps.explorer.components import component

_mount = component("copy_link", '<button type="button" class="link" aria-live="polite"></button>')


def copy_link(path: str) -> None:
    """Show the button; `path` is the view's address without the server's."""
    _mount(key="copy-link", data={"path": path}, width="content")
