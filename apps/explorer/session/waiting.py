"""What the views of this session wait for: background work belongs to those who wait for it."""

from __future__ import annotations

from collections.abc import Hashable

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx


def session() -> str | None:
    """The session whose page runs."""
    context = get_script_run_ctx(suppress_warning=True)
    return None if context is None else context.session_id


def present(waiter: Hashable) -> bool:
    """Whether a session is still there: its tab is open, and connected."""
    return not runtime.exists() or bool(runtime.get_instance().is_active_session(str(waiter)))


def begin() -> None:
    """A page starts to run: it has asked for nothing yet."""
    st.session_state["asked"] = set()


def asks_for(key: Hashable) -> None:
    """The page shows the result of a task."""
    st.session_state.setdefault("asked", set()).add(key)


def shown_keys() -> set[Hashable]:
    """Keys of the tasks that the page shows."""
    keys: set[Hashable] = st.session_state.get("asked", set())
    return keys


def stopped() -> set[Hashable]:
    """Keys of the tasks that this session stopped; they are started again when it says so."""
    keys: set[Hashable] = st.session_state.setdefault("stopped", set())
    return keys
