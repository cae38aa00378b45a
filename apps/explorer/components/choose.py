"""Choices that are part of the view's address, by short names; what is not in it is at its first choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from apps.explorer.session import links


def choose(label: str, options: Mapping[str, str], key: str) -> str:
    """A row of choices, one of which is taken.

    Args:
        label: for those who do not see it; options: name in the address -> what stands on it; key: in the address.
    """
    followed(key, options)
    st.segmented_control(
        label,
        list(options),
        key=key,
        format_func=options.__getitem__,
        required=True,
        label_visibility="collapsed",
        on_change=_changed,
        args=(key, next(iter(options))),
    )
    return _taken(key, options)


def pick(label: str, options: Mapping[str, str], key: str, place: Any = st) -> str:
    """A list of choices to pick from; `place` is where it is drawn."""
    followed(key, options)
    place.selectbox(
        label,
        list(options),
        key=key,
        format_func=options.__getitem__,
        on_change=_changed,
        args=(key, next(iter(options))),
    )
    return _taken(key, options)


def followed(key: str, options: Mapping[str, str]) -> str:
    """What the address says, put into the widget; the first choice where it says none that there is."""
    said = st.query_params.get(key, "")
    wanted = said if said in options else next(iter(options))
    if st.session_state.get(key) != wanted:
        st.session_state[key] = wanted
    return wanted


def _taken(key: str, options: Mapping[str, str]) -> str:
    found = str(st.session_state.get(key))
    return found if found in options else next(iter(options))


def _changed(key: str, default: str) -> None:
    value = st.session_state.get(key)
    links.change(**{key: None if value == default else value})
