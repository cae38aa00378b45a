"""The frame around every page: address, pickers, title, link, Python code and exports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import streamlit as st

from apps.explorer import scan_tours, tours
from apps.explorer.components.choose import follow
from apps.explorer.components.copy_link import copy_link
from apps.explorer.pages import PAGES
from apps.explorer.resources.stored_results import stored
from apps.explorer.server.background_work import Task
from apps.explorer.server.security import guarded, plain
from apps.explorer.server.settings import settings
from apps.explorer.session import exports, links, state, waiting
from apps.explorer.session.state import Location
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.graph import ReceptiveField
from circuits.network.model import Model
from zoo.images.sources import Images
from zoo.progress import Progress, check_stopped

T = TypeVar("T")
WITHOUT_PICKERS = ("language", "superposition")
"""Pages whose models are not those of the pickers."""


def location() -> Location:
    """What the page's address names.

    Raises:
        AddressError: no model, layer or unit of this server.
    """
    return state.locate(_address())


def unit_location() -> Location:
    """Like `location`, of one unit: the first unit where the address names a layer."""
    at = location()
    return at if at.unit.index is not None else replace(at, unit=replace(at.unit, index=0))


def _address() -> str | None:
    """The unit in the URL, or else the one that this session showed last."""
    last: str | None = st.session_state.get("last_unit")
    return links.param("unit", 100_000) or last


# -- the side ---------------------------------------------------------------------------------------------------------


def _example(at: Location | None) -> str:
    """What may be typed as an address, of the model that is open."""
    if at is None:
        return "model/layer:unit"
    return f"{replace(at.unit, index=at.unit.index or 0, at=None).short} or {at.model.name}/{at.model.trunk[0]}"


def menu(pages: Mapping[str, Any]) -> None:
    """Links to the pages, by name; each opens on the unit that this view shows, or that the session showed last."""
    at = _located()
    params = None if at is None else {"unit": str(at.unit)}
    with st.container(gap=None, key="menu"):
        for page in pages.values():
            st.page_link(page, query_params=params, width="stretch")


def _located() -> Location | None:
    """What the address names, which the session remembers; None where there is no such thing."""
    try:
        at = location()
    except CircuitsError:
        return None
    st.session_state["last_unit"] = str(at.unit)
    return at


def pickers(page: str) -> None:
    """The address box, and pickers of model, layer and unit. They follow the URL and change it.

    Args:
        page: where they are shown; pages about other models have pickers of their own.
    """
    server = settings()
    at = _located()
    st.text_input(
        "Open",
        key="address_box",
        placeholder=_example(at),
        on_change=_open_typed,
        max_chars=400,
        help="Any address: model/layer:unit. Branch names, dots and upper case are accepted. Other words are searched: "
        "classes, labels and parts.",
    )
    if page in WITHOUT_PICKERS:
        return
    if at is None:
        at = state.locate(None)
    models = state.models(server)
    with st.container(gap="small"):
        follow("pick_model", at.model.name)
        st.selectbox("Model", models, key="pick_model", on_change=_pick_model)
        layers = _layers(at)
        follow("pick_layer", at.unit.space)
        st.selectbox("Layer", layers, key="pick_layer", on_change=_pick_layer, args=(at.model.name,))
        follow("pick_unit", 0 if at.unit.index is None else at.unit.index)
        count = _count(at)
        label = f"Unit (0 to {count - 1})"
        st.number_input(label, 0, count - 1, key="pick_unit", step=1, on_change=_pick_unit, args=(str(at.unit),))
    about = f"{at.scan.count:,} images of {at.scan.image_source}" if at.scan is not None else "not scanned"
    mode = "labels and jobs allowed" if server.allow_write else "read only"
    st.caption(plain(f"{at.model.name}: {about}; {at.model.device.type}; {mode}"))


def _layers(at: Location) -> list[str]:
    scanned = [] if at.scan is None else list(at.scan.layers)
    bases = [f"{layer}~{name}" for layer, name in at.model.bases]
    return list(dict.fromkeys([*(scanned or at.model.trunk), *bases, at.unit.space]))


def _count(at: Location) -> int:
    if at.unit.basis is not None:
        return len(at.model.basis(at.unit.layer, at.unit.basis).read)
    return at.model.layers[at.unit.layer].channels


def _open_typed() -> None:
    typed = st.session_state.get("address_box", "").strip()
    if typed:
        at = _last_model()
        complete = "/" in typed or at is None
        st.session_state["go_to"] = typed if complete else f"{at}/{typed}"
        st.session_state["address_box"] = ""
        if not complete and not _is_address(f"{at}/{typed}"):
            st.session_state["search_for"] = typed


def _is_address(text: str) -> bool:
    """Whether a text names a unit or a layer here, or is written as one that does: `mixed4x:11` is a wrong address."""
    try:
        state.locate(text)
    except CircuitsError:
        return ":" in text or "~" in text
    return True


def _last_model() -> str | None:
    last = st.session_state.get("last_unit")
    return None if last is None else Unit.parse(last).model


def _pick_model() -> None:
    st.session_state["go_to"] = str(state.default_unit_of(st.session_state["pick_model"]))


def _pick_layer(model: str) -> None:
    st.session_state["go_to"] = f"{model}/{st.session_state['pick_layer']}"


def _pick_unit(address: str) -> None:
    st.session_state["go_to"] = str(replace(Unit.parse(address), index=int(st.session_state["pick_unit"]), at=None))


def follow_pickers(page: str) -> None:
    """Show the address of a picker or of the address box, on a page for such an address."""
    address = st.session_state.pop("go_to", None)
    words = st.session_state.pop("search_for", None)
    if words is not None:
        links.go("search", unit=st.session_state.get("last_unit"), query=words)
    if address is None:
        return
    is_layer = ":" not in address.rpartition("/")[2]
    if page in ("unit", "circuit", "layer", "image", "why", "steering", "compare", "atlas"):
        same = (
            page
            if page in ("image", "why", "circuit", "steering", "compare", "atlas") or is_layer == (page == "layer")
            else ""
        )
    else:
        same = ""
    links.go(same or ("layer" if is_layer else "unit"), unit=address)


# -- the top ----------------------------------------------------------------------------------------------------------


def header(
    page: str,
    title: str,
    *,
    about: str = "",
    view: dict[str, Any] | None = None,
    python: str = "",
    export: exports.Export | None = None,
    neighbors: Sequence[str] = (),
) -> None:
    """The top of a page.

    Args:
        page: its name; title: its heading, as text; about: a line under it, as text.
        view: parameters of its link; python: code that gives the same results; export: its files.
        neighbors: addresses of the units before and after, for "Previous" and "Next" (keys P and N).
    """
    st.set_page_config(page_title=_tab(page, title, view or {}))
    tours.banner(_scan_tours)
    left, right = st.columns([5, 6], vertical_alignment="bottom", gap="small")
    with left:
        st.subheader(plain(title, 120), anchor=False)
        if about:
            st.caption(plain(about))
    with right, st.container(horizontal=True, horizontal_alignment="right", gap="small"):
        if neighbors:
            before, after = neighbors
            for text, key, unit in (("Previous", "P", before), ("Next", "N", after)):
                if st.button(text, key=text.lower(), shortcut=key, type="tertiary", disabled=not unit):
                    links.go(page, keep=("examples", "crop", "by", *links.TOUR), unit=unit)
        if page in ("unit", "circuit") and view and st.button("Steer", key="steer", type="tertiary"):
            links.go("steering", unit=view["unit"])
        if page == "unit" and view and st.button("Compare", key="compare", type="tertiary"):
            links.go("compare", unit=view["unit"])
        if page in ("unit", "compare", "image") and view and st.button("Why", key="why", type="tertiary"):
            if page == "image":
                links.go("why", keep=("image", "class"), unit=view["unit"])
            links.go("why", unit=view["unit"], image=_top_image(), **{"class": "unit"})
        copy_link(links.path_of(page, st.query_params.to_dict() | (view or {})))
        if python:
            with st.popover("Python", icon=":material/code:"):
                st.caption("The same results in Python")
                st.code(python, language="python")
        if export is not None:
            with st.popover("Export", icon=":material/download:"):
                exports.buttons(export)


def _top_image() -> int | None:
    """The image on which the page's unit is most active; None without a scan of it."""
    at = _located()
    if at is None or at.scan is None or at.unit.index is None or at.unit.space not in at.scan.layers:
        return None
    top = at.scan.unit(at.unit.channel).top
    return top[0].image if top else None


def _scan_tours() -> Mapping[str, tours.Tour]:
    at = _located()
    return {} if at is None else scan_tours.tours_of(at)


def _tab(page: str, title: str, view: Mapping[str, Any]) -> str:
    """The title of the browser's tab: what is shown, the page, and the model."""
    model = Unit.parse(str(view["unit"])).model if view.get("unit") else None
    return " · ".join(dict.fromkeys(part for part in (" ".join(title.split()), PAGES[page].title, model) if part))


def receptive_field(field: ReceptiveField | None) -> str:
    """A receptive field in words; None is one without bounds."""
    return "receptive field: the whole image" if field is None else "receptive field {} x {} pixels".format(*field.size)


def neighbors(at: Location) -> tuple[str, str]:
    """Addresses of the units before and after; empty at the end of a layer."""
    index, count = at.unit.index or 0, _count(at)
    return (
        str(replace(at.unit, index=index - 1, at=None)) if index else "",
        str(replace(at.unit, index=index + 1, at=None)) if index + 1 < count else "",
    )


# -- background work --------------------------------------------------------------------------------------------------


def background_result(
    key: tuple[Any, ...],
    description: str,
    function: Callable[[Progress], T],
    patience: float = 0.4,
    *,
    model: Model | None = None,
    folder: Path | None = None,
    images: Images | None = None,
) -> T | None:
    """The result of a task; while it runs, show its progress and return None.

    It is stopped when no session shows a view any more that asks for it.

    Args:
        key: everything that the result depends on; description: of the task; function: computes it, given `progress`.
        patience: seconds to wait before progress is shown.
        model: whose lock the task holds. Not every function of the library takes it, and the edits of one task must
            not be active in the forward pass of another.
        folder: of the model in the store, where the result is kept beside the scan, for a key with the model's digest.
        images: that it also depends on; they are digested when it is looked for.

    Raises:
        CircuitsError: the task's own.
    """
    if key in waiting.stopped():
        st.caption(plain(f"Stopped: {description}."))
        if not st.button("Start again", key=f"again-{hash(key)}", type="tertiary"):
            return None
        waiting.stopped().discard(key)
    work = function if model is None else _with_lock(function, model)
    run = work if folder is None else _with_file(work, folder, key, images)
    waiting.asks_for(key)
    task = state.executor().submit(key, description, run, waiting.session())
    if task.wait(patience):
        try:
            return task.result()
        except CircuitsError:
            state.executor().forget(key)
            raise
    _working(task, key)
    return None


def _with_file(
    work: Callable[[Progress], T], folder: Path, key: tuple[Any, ...], images: Images | None
) -> Callable[[Progress], T]:
    def run(report: Progress) -> T:
        return stored(folder, (*key, "" if images is None else images.digest), lambda: work(report))

    return run


def _with_lock(function: Callable[[Progress], T], model: Model) -> Callable[[Progress], T]:
    def run(report: Progress) -> T:
        while not model.lock.acquire(timeout=0.2):
            check_stopped()  # waiting for another task is no reason to go on when nobody waits for this one
        try:
            return function(report)
        finally:
            model.lock.release()

    return run


def _working(task: Task[Any], key: tuple[Any, ...]) -> None:
    """The progress of a task, and the page again once it has ended; never again within this run of the page.

    The browser would draw both runs as one and lose the values that this one gave its widgets: it would then show, and
    send back, their first options.
    """
    drawn: list[bool] = []

    @st.fragment(run_every=1.0)
    def watch() -> None:
        with guarded():
            if task.finished and drawn:
                st.rerun()
            drawn.append(True)
            share = task.done / task.total if task.total else 0.0
            count = f" {task.done:,} of {task.total:,}" if task.total else ""
            left, right = st.columns([6, 1], vertical_alignment="center")
            left.progress(min(1.0, share), text=plain(f"{task.description}{count}"))
            if right.button("Stop", key=f"stop-{hash(key)}", type="tertiary"):
                waiting.stopped().add(key)
                state.executor().forget(key, waiting.session())
                st.rerun()

    watch()


def refresh() -> None:
    """Run the page again once its missing thumbnails are ready."""
    awaited = st.session_state.pop("awaited", [])
    if awaited:
        _await(awaited)


@st.fragment(run_every=0.8)
def _await(tasks: list[Task[Any]]) -> None:
    with guarded():
        if all(task.finished for task in tasks):
            st.rerun()
        done, total = sum(t.done for t in tasks), sum(t.total for t in tasks)
        st.caption(f"Making thumbnails: {done:,} of {total:,}" if total else "Making thumbnails")
