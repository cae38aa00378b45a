"""Latents that fire on a token: their numbers, names, how strongly, and what they make the model say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from apps.explorer.components import asset

_mount = st.components.v2.component(
    "explorer_firing",
    html='<div class="firing"></div>',
    css=asset("base.css") + asset("firing.css"),
    js=asset("made.js") + asset("firing.js"),
)


def firing_row(
    latent: int, name: str, value: float, share: float, words: Sequence[str], *, chosen: bool
) -> dict[str, Any]:
    """One latent.

    Args:
        latent: its number; name: what it is called; value: of it there; share: of its maximum, from 0 to 1.
        words: that it makes the model say; chosen: whether it is the one that is looked at.
    """
    return {
        "latent": latent, "name": name, "number": f"{value:.3g}", "share": max(0.0, min(1.0, share)),
        "words": [word.strip() or repr(word) for word in words], "chosen": chosen,
    }  # fmt: skip


def firing(rows: Sequence[dict[str, Any]], key: str, *, label: str) -> int | None:
    """The latents; the number of the one that was clicked."""
    found = _mount(key=key, data={"rows": list(rows), "label": label}, on_pick_change=lambda: None)
    return None if found.pick is None else int(found.pick)
