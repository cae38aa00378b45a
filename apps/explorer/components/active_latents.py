"""Latents that are active on a token: number, label, activation, and the tokens whose logits each raises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apps.explorer.components import component

_mount = component("active_latents")


def latent_row(
    latent: int, label: str, value: float, share: float, promoted: Sequence[str], *, chosen: bool
) -> dict[str, Any]:
    """One latent.

    Args:
        latent: its number; label: its name, or ""; value: its activation; share: of its maximum, from 0 to 1.
        promoted: tokens whose logits it raises most; chosen: whether it is the latent that the page shows.
    """
    return {
        "latent": latent, "name": label, "number": f"{value:.3g}", "share": max(0.0, min(1.0, share)),
        "promoted": [token.strip() or repr(token) for token in promoted], "chosen": chosen,
    }  # fmt: skip


def active_latents(rows: Sequence[dict[str, Any]], key: str, *, label: str) -> int | None:
    """Show the latents; the number of the one that was clicked, or None."""
    state = _mount(key=key, data={"rows": list(rows), "label": label}, on_pick_change=lambda: None)
    return None if state.pick is None else int(state.pick)
