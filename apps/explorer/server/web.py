"""The explorer's server, behind the gate: `python -m apps.explorer.server.web PORT`. `circuits explore` runs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from streamlit import config, file_util

from apps import memory
from apps.explorer.server.gate import Gate
from apps.explorer.server.security import OPTIONS
from apps.explorer.server.settings import settings
from apps.explorer.server.theme import THEME

PAGES = Path(__file__).parents[1] / "app.py"


def main() -> None:
    """Serve until stopped."""
    # `.streamlit` in the current folder may be a stranger's: its settings move the pages, or have a theme fetched
    vars(config)["get_config_files"] = lambda name: [file_util.get_streamlit_file_path(name)]
    memory.reuse()  # before there are threads: each that is there already has an arena of its own
    app = st.App(PAGES, middleware=[Middleware(Gate, allowed=settings().allow_hosts)])
    try:
        app.run(config={**OPTIONS, **THEME, "server.port": int(sys.argv[1])})
    except KeyboardInterrupt:
        # how the server ends. Threads may be at work, some in C++, which aborts when the interpreter goes away below
        # it; what they write is whole or absent
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
