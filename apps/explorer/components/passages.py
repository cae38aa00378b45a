"""Texts whose tokens are colored by how strongly a latent fires on them; a token can be clicked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from apps.explorer.components import asset

_mount = st.components.v2.component(
    "explorer_passages",
    html='<div class="passages"></div>',
    css=asset("base.css") + asset("passages.css"),
    js=asset("made.js") + asset("passages.js"),
)


def passage(
    words: Sequence[str], values: Sequence[float], most: float, *, at: int | None, note: str = ""
) -> dict[str, Any]:
    """One text.

    Args:
        words: its tokens, as stretches of text; values: of the latent on each; most: what is fully colored.
        at: the token that is meant, or None; note: what stands before it.
    """
    shares = [min(1.0, max(0.0, float(v) / most)) if most > 0 else 0.0 for v in values]
    titles = [f"{v:.3g}" if v > 0 else "" for v in values]
    return {"words": list(words), "shares": shares, "titles": titles, "at": at, "note": note}


def passages(rows: Sequence[dict[str, Any]], key: str, *, label: str, large: bool = False) -> tuple[int, int] | None:
    """The texts; the number of the one that was clicked, and the token in it.

    Args:
        rows: of `passage`; key: of the element; label: what they are, for those who do not see them.
        large: for one text to be read.
    """
    found = _mount(key=key, data={"rows": list(rows), "label": label, "large": large}, on_token_change=lambda: None)
    if not found.token:
        return None
    row, token = (int(v) for v in found.token)
    return (row, token) if 0 <= row < len(rows) and 0 <= token < len(rows[row]["words"]) else None
