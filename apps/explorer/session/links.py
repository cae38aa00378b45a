"""Addresses of views: a page, and parameters behind the question mark. Every view has one."""

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
TOUR = ("tour", "step")
"""Parameters that a link inside of a tour keeps."""
RENAMED = {
    "picture": "image",
    "place": "position",
    "shown": "crop",
    "face": "tile",
    "like": "similar_to",
    "ins": "incoming",
    "outs": "outgoing",
    "chosen": "selected",
    "words": "query",
    "pattern": "query",
    "way": "search",
    "draw": "control",
}
"""Parameters of earlier versions, and their present names."""
RENAMED_VALUES = {
    ("section", "sum"): "contributions",
    ("section", "alike"): "similar",
    ("section", "parts"): "polysemanticity",
    ("section", "names"): "labels",
    ("section", "place"): "position",
    ("crop", "whole"): "image",
    ("crop", "heat"): "heatmap",
    ("tile", "made"): "visualization",
    ("tile", "photograph"): "example",
    ("sort", "likeness"): "similarity",
    ("sort", "lot"): "random",
    ("sort", "often"): "dense",
    ("sort", "seldom"): "sparse",
    ("sort", "strong"): "maximum",
    ("search", "name"): "label",
    ("panel", "keep"): "save",
}
"""Values of version 0.1 by present name of the parameter, and the present values."""


def param(name: str, limit: int = 1_000) -> str | None:
    """The parameter `name` of the address, or None.

    Raises:
        UploadError: it has more than `limit` characters.
    """
    value = st.query_params.get(name)
    return None if value is None or value == "" else checked_text(value, limit)


def updated(params: Mapping[str, str]) -> dict[str, str]:
    """Parameters of a link with their present names and values; a present name that is there already wins.

    >>> updated({"unit": "scenes/mixed4a:11", "section": "sum", "place": "2,4"})
    {'unit': 'scenes/mixed4a:11', 'section': 'contributions', 'position': '2,4'}
    """
    renamed = {RENAMED.get(name, name): value for name, value in params.items() if RENAMED.get(name) not in params}
    return {name: RENAMED_VALUES.get((name, value), value) for name, value in renamed.items()}


def update() -> None:
    """Rewrite an old link in the address, before a page reads it."""
    before = {name: st.query_params[name] for name in st.query_params}
    after = updated(before)
    if after != before:
        st.query_params.from_dict(after)


def path_of(page: str, params: Mapping[str, object]) -> str:
    """The address of a view, without the server's: `unit?unit=scenes/mixed4a:11`."""
    values = {k: str(v) for k, v in params.items() if v not in (None, "")}
    query = urlencode(values, quote_via=quote, safe="/:@,~")
    # the first page has no name of its own
    return ("" if page == next(iter(PAGES)) else page) + (f"?{query}" if query else "")


def go(page: str, /, *, keep: Sequence[str] = (), **params: Any) -> NoReturn:
    """Show another view; `keep` names parameters of this view's address that stay."""
    values = {name: st.query_params[name] for name in keep if name in st.query_params}
    values |= {k: str(v) for k, v in params.items() if v not in (None, "")}
    st.switch_page(PAGES[page].file, query_params=values)


def change(**params: object) -> None:
    """Change parameters of this view's address; None removes one."""
    for name, value in params.items():
        if value in (None, ""):
            st.query_params.pop(name, None)
        else:
            st.query_params[name] = str(value)


def unit_path(unit: str | Unit) -> str:
    """The address of a unit's page."""
    return path_of("unit", {"unit": unit})


def open_unit(unit: str | Unit | None) -> None:
    """Show a unit's page; None stays here."""
    if unit:
        go("unit", keep=TOUR, unit=unit)
