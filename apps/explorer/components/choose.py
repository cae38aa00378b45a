"""Choices that are part of the view's address. A choice that the address does not name is its first option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import streamlit as st

from apps.explorer.server.security import UploadError
from apps.explorer.session import links


def choose(label: str, options: Mapping[str, str], key: str) -> str:
    """A row of buttons, one of which is selected; the selected option.

    Args:
        label: for screen readers; options: name in the address -> text of the button; key: in the address.
    """
    st.segmented_control(label, required=True, label_visibility="collapsed", **_widget(options, key))
    return _selected(options, key)


def pick(
    label: str, options: Mapping[str, str], key: str, column: Any = st, width: int | Literal["stretch"] = "stretch"
) -> str:
    """A drop-down list; the selected option. `column` is the container that it is drawn in, `width` in pixels."""
    column.selectbox(label, width=width, **_widget(options, key))
    return _selected(options, key)


def number(
    label: str, name: str, low: int, high: int, default: int, column: Any = st, clear: Sequence[str] = ()
) -> int:
    """A number of the address, with the widget that changes it.

    Args:
        label: of the widget; name: of the parameter; low, high: its range; default: where the address has none.
        column: container that the widget is drawn in; clear: parameters that a change removes.

    Raises:
        UploadError: the address has something else.
    """
    text = links.param(name, 20) or str(default)
    if not (text.isascii() and text.isdecimal() and low <= int(text) <= high):
        raise UploadError(f"{name} is a number from {low} to {high}; the address has {text}")
    key = f"{name}_number"
    follow(key, int(text))
    column.number_input(
        label, low, high, key=key,
        on_change=lambda: links.change(**{name: st.session_state[key]}, **dict.fromkeys(clear)),
    )  # fmt: skip
    return int(text)


def text(label: str, name: str, limit: int, placeholder: str = "") -> str:
    """A text of the address, with the box that changes it.

    Args:
        label: of the box; name: of the parameter; limit: characters; placeholder: what an empty box shows.

    Raises:
        UploadError: the address has a longer one.
    """
    value = links.param(name, limit) or ""
    key = f"{name}_text"
    follow(key, value)
    st.text_input(
        label, key=key, max_chars=limit, placeholder=placeholder,
        on_change=lambda: links.change(**{name: st.session_state[key]}),
    )  # fmt: skip
    return value


def follow(key: str, value: Any) -> None:
    """Set a widget to a value of the address."""
    if st.session_state.get(key) != value:
        st.session_state[key] = value


def _widget(options: Mapping[str, str], key: str) -> dict[str, Any]:
    """Arguments of the widget, which is set to the option that the address names, or to the first one."""
    default = next(iter(options))
    requested = st.query_params.get(key, "")
    follow(key, requested if requested in options else default)
    return {
        "options": list(options),
        "key": key,
        "format_func": options.__getitem__,
        "on_change": _changed,
        "args": (key, default),
    }


def _selected(options: Mapping[str, str], key: str) -> str:
    value = str(st.session_state.get(key))
    return value if value in options else next(iter(options))


def _changed(key: str, default: str) -> None:
    value = st.session_state.get(key)
    links.change(**{key: None if value == default else value})
