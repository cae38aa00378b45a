"""The explorer's entry, which Streamlit runs: `circuits explore`. Its pages are the scripts of `views/`."""

from __future__ import annotations

import streamlit as st

from apps import memory
from apps.explorer import page_frame
from apps.explorer.components import ASSETS, asset
from apps.explorer.pages import PAGES
from apps.explorer.server import first_run
from apps.explorer.server.security import guarded
from apps.explorer.server.settings import settings
from apps.explorer.session import links, state, waiting
from zoo.weights.live_digest import weights_held

st.set_page_config(page_title="Circuits", page_icon=str(ASSETS / "icon.svg"), layout="wide")
st.html(f"<style>{asset('app.css')}</style>")
pages = {
    entry.name: st.Page(entry.file, title=entry.title, icon=entry.icon, url_path=entry.name, default=i == 0)
    for i, entry in enumerate(PAGES.values())
}
page = st.navigation(list(pages.values()), position="hidden")  # its menu would drop the unit from the address
name = next(name for name, candidate in pages.items() if candidate == page)
with weights_held():  # of a view, which asks for them many times: 10 ms each for GoogLeNet
    waiting.begin()
    links.update()
    with guarded():
        page_frame.follow_pickers(name)
    ready = False
    with guarded():
        ready = first_run.ready(settings())
    if ready:
        state.warm_up(str(settings().store))
        with st.sidebar, guarded():
            page_frame.menu(pages)
            page_frame.pickers(name)
        st.session_state["page"] = name
        with guarded():
            page.run()
        page_frame.refresh()
state.executor().keep(waiting.session(), waiting.shown_keys())
memory.settle()  # Streamlit looks for garbage after every run
