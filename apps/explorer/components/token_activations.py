"""Texts whose tokens are colored by a latent's activation; a token can be clicked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apps.explorer.components import component

_mount = component("token_activations")


def token_row(
    tokens: Sequence[str], values: Sequence[float], maximum: float, *, at: int | None, note: str = ""
) -> dict[str, Any]:
    """One text.

    Args:
        tokens: of the text, as strings; values: activation of the latent on each; maximum: what has the full color.
        at: index of the token to mark, or None; note: shown before the text.
    """
    shares = [min(1.0, max(0.0, float(v) / maximum)) if maximum > 0 else 0.0 for v in values]
    titles = [f"{v:.3g}" if v > 0 else "" for v in values]
    return {"tokens": list(tokens), "shares": shares, "titles": titles, "at": at, "note": note}


def token_activations(
    rows: Sequence[dict[str, Any]], key: str, *, label: str, large: bool = False
) -> tuple[int, int] | None:
    """Show the texts; the index of the text that was clicked and of the token in it, or None.

    Args:
        rows: of `token_row`; key: of the element; label: a description for screen readers.
        large: for one text to be read.
    """
    state = _mount(key=key, data={"rows": list(rows), "label": label, "large": large}, on_token_change=lambda: None)
    if not state.token:
        return None
    row, token = (int(v) for v in state.token)
    return (row, token) if 0 <= row < len(rows) and 0 <= token < len(rows[row]["tokens"]) else None
