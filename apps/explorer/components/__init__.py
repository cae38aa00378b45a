"""Elements of the pages. Their data is sent as JSON and inserted as text, never as markup."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

ASSETS = Path(__file__).parent.parent / "assets"


@cache
def asset(name: str) -> str:
    """A style sheet or script of the explorer."""
    return (ASSETS / name).read_text(encoding="utf-8")


def component(name: str, html: str = "") -> Any:
    """Register the element whose style and script are in `assets/NAME/`; the result puts the element on a page.

    Args:
        name: of the folder, and of the class of the element's outermost tag.
        html: that tag, where it is more than an empty `<div>`.
    """
    return st.components.v2.component(
        f"explorer_{name}",
        html=html or f'<div class="{name}"></div>',
        css=asset("base.css") + asset(f"{name}/style.css"),
        js=asset("elements.js") + asset(f"{name}/script.js"),
    )
