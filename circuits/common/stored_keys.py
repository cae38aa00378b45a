"""Keys of files that earlier versions wrote, in today's words."""

from __future__ import annotations

from typing import Any

_RENAMED = {"colours": "colors", "neighbours": "neighbors"}
"""Key in files of version 0.1 -> key now. Values are never touched."""


def with_current_keys(document: Any) -> Any:
    """A JSON document with the keys that version 0.1 spelled differently renamed, at any depth."""
    if isinstance(document, dict):
        return {_RENAMED.get(key, key): with_current_keys(value) for key, value in document.items()}
    if isinstance(document, list):
        return [with_current_keys(value) for value in document]
    return document
