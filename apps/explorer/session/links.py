"""Addresses of views: every view is a page and what stands behind its question mark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

import streamlit as st

from apps.explorer.pages import PAGES
from apps.explorer.server.security import checked_text
from circuits.network.address import Unit

LONGEST = 4_000
"""Characters of a view's address."""


def asked(name: str, limit: int = 1_000) -> str | None:
    """What the address says of `name`, or None.

    Raises:
        UploadError: more than anybody would write.
    """
    found = st.query_params.get(name)
    return None if found is None or found == "" else checked_text(found, limit)


def path_of(page: str, params: Mapping[str, object]) -> str:
    """The address of a view, without the server's: `/unit?unit=scenes/mixed4a:11`."""
    said = {k: str(v) for k, v in params.items() if v not in (None, "")}
    query = urlencode(said, quote_via=quote, safe="/:@,~")
    # the first page has no name of its own
    return ("" if page == next(iter(PAGES)) else page) + (f"?{query}" if query else "")


def go(page: str, /, *, keep: Sequence[str] = (), **params: Any) -> NoReturn:
    """Show another view; `keep` are parts of this one's address that stay."""
    said = {name: st.query_params[name] for name in keep if name in st.query_params}
    said |= {k: str(v) for k, v in params.items() if v not in (None, "")}
    st.switch_page(PAGES[page].file, query_params=said)


def change(**params: object) -> None:
    """Change parts of this view's address; None takes one away."""
    for name, value in params.items():
        if value in (None, ""):
            st.query_params.pop(name, None)
        else:
            st.query_params[name] = str(value)


def unit_path(unit: str | Unit) -> str:
    """The address of a unit's page."""
    return path_of("unit", {"unit": unit})
