"""What stands around every page: its address, pickers, title, link, Python and exports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from apps.explorer import tours
from apps.explorer.components.share import copy_link
from apps.explorer.server.background_work import Task
from apps.explorer.server.security import plain
from apps.explorer.server.settings import settings
from apps.explorer.session import exports, links, state
from apps.explorer.session.state import Here
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.model import Model
from zoo.progress import Progress

_ADDRESS = "unit"


def opened() -> Here:
    """What the page's address means.

    Raises:
        AddressError: nothing that is here.
    """
    return state.here(_wanted())


def unit_opened() -> Here:
    """Like `opened`, of one unit: the first where the address names a layer."""
    at = opened()
    return at if at.unit.index is not None else replace(at, unit=replace(at.unit, index=0))


def _wanted() -> str | None:
    """The address in the URL, or else the one that this session saw last."""
    found = links.asked(_ADDRESS, 100_000)
    if found is None:
        last: str | None = st.session_state.get("last_unit")
        return last
    return found


# -- the side ---------------------------------------------------------------------------------------------------------


def pickers() -> None:
    """The address box, and pickers of model, layer and unit; they follow the URL, and change it."""
    chosen = settings()
    try:
        at: Here | None = opened()
    except CircuitsError:
        at = None
    if at is not None:
        st.session_state["last_unit"] = str(at.unit)
    st.text_input(
        "Open",
        key="address_box",
        placeholder="mixed4a:11 or scenes/mixed3b",
        on_change=_open_typed,
        max_chars=400,
        help="Any address: model/layer:unit. Branches, dots and case are forgiven.",
    )
    if at is None:
        at = state.here(None)
    known = state.models(chosen)
    with st.container(gap="small"):
        _follow("pick_model", at.model.name)
        st.selectbox("Model", known, key="pick_model", on_change=_pick_model)
        layers = _layers(at)
        _follow("pick_layer", at.unit.space)
        st.selectbox("Layer", layers, key="pick_layer", on_change=_pick_layer, args=(at.model.name,))
        _follow("pick_unit", 0 if at.unit.index is None else at.unit.index)
        count = _count(at)
        label = f"Unit (0 to {count - 1})"
        st.number_input(label, 0, count - 1, key="pick_unit", step=1, on_change=_pick_unit, args=(str(at.unit),))
    about = f"{at.scan.count:,} pictures of {at.scan.images}" if at.scan is not None else "not scanned"
    st.caption(plain(f"{at.model.name}: {about}; {at.model.device.type}; {_mode(chosen.allow_write)}"))


def _mode(write: bool) -> str:
    return "labels and jobs allowed" if write else "read only"


def _follow(key: str, value: Any) -> None:
    if st.session_state.get(key) != value:
        st.session_state[key] = value


def _layers(at: Here) -> list[str]:
    scanned = [] if at.scan is None else list(at.scan.layers)
    bases = [f"{layer}~{name}" for layer, name in at.model.bases]
    return list(dict.fromkeys([*(scanned or at.model.trunk), *bases, at.unit.space]))


def _count(at: Here) -> int:
    if at.unit.basis is not None:
        return len(at.model.basis(at.unit.layer, at.unit.basis).read)
    return at.model.layers[at.unit.layer].channels


def _open_typed() -> None:
    typed = st.session_state.get("address_box", "").strip()
    if typed:
        at = _last_model()
        known = "/" in typed or at is None
        st.session_state["go_to"] = typed if known else f"{at}/{typed}"
        st.session_state["address_box"] = ""


def _last_model() -> str | None:
    last = st.session_state.get("last_unit")
    return None if last is None else Unit.parse(last).model


def _pick_model() -> None:
    st.session_state["go_to"] = str(state.first_of(st.session_state["pick_model"]))


def _pick_layer(model: str) -> None:
    st.session_state["go_to"] = f"{model}/{st.session_state['pick_layer']}"


def _pick_unit(address: str) -> None:
    st.session_state["go_to"] = str(replace(Unit.parse(address), index=int(st.session_state["pick_unit"]), at=None))


def follow_pickers(page: str) -> None:
    """Go where a picker or the address box said, on a page that shows such a thing."""
    wanted = st.session_state.pop("go_to", None)
    if wanted is None:
        return
    is_layer = ":" not in wanted.rpartition("/")[2]
    if page in ("unit", "circuit", "layer", "image", "steering"):
        same = page if page in ("image", "circuit", "steering") or is_layer == (page == "layer") else ""
    else:
        same = ""
    links.go(same or ("layer" if is_layer else "unit"), unit=wanted)


# -- the top ----------------------------------------------------------------------------------------------------------


def show(
    page: str,
    title: str,
    *,
    about: str = "",
    view: dict[str, Any] | None = None,
    python: str = "",
    export: exports.Export | None = None,
    beside: Sequence[str] = (),
) -> None:
    """The top of a page.

    Args:
        page: its name; title: its heading, as text; about: a line under it, as text.
        view: what its address says; python: the code that gives the same; export: what can be taken along.
        beside: addresses before and after this one, for "previous" and "next" (keys P and N).
    """
    tours.banner()
    left, right = st.columns([5, 6], vertical_alignment="bottom", gap="small")
    with left:
        st.subheader(plain(title, 120), anchor=False)
        if about:
            st.caption(plain(about))
    with right, st.container(horizontal=True, horizontal_alignment="right", gap="small"):
        if beside:
            before, after = beside
            if st.button("Previous", key="previous", shortcut="P", type="tertiary", disabled=not before):
                links.go(page, keep=("examples", "shown", "by", "tour", "step"), unit=before)
            if st.button("Next", key="next", shortcut="N", type="tertiary", disabled=not after):
                links.go(page, keep=("examples", "shown", "by", "tour", "step"), unit=after)
        if page in ("unit", "circuit") and view and st.button("Steer", key="steer", type="tertiary"):
            links.go("steering", unit=view["unit"])
        copy_link(links.path_of(page, {**{k: st.query_params[k] for k in st.query_params}, **(view or {})}))
        if python:
            with st.popover("Python", icon=":material/code:"):
                st.caption("The same in Python")
                st.code(python, language="python")
        if export is not None:
            with st.popover("Export", icon=":material/download:"):
                exports.buttons(export)


def neighbors(at: Here) -> tuple[str, str]:
    """Addresses of the units before and after; empty at an end."""
    index, count = at.unit.index or 0, _count(at)
    return (
        str(replace(at.unit, index=index - 1, at=None)) if index else "",
        str(replace(at.unit, index=index + 1, at=None)) if index + 1 < count else "",
    )


# -- work that is not done yet ----------------------------------------------------------------------------------------


def settled(
    key: tuple[Any, ...],
    what: str,
    function: Callable[[Progress], Any],
    patience: float = 0.4,
    *,
    model: Model | None = None,
) -> Any:
    """What a task gives; while it works, its progress instead, and None.

    Args:
        key: everything that the result depends on; what: in words; function: does it, given a `progress=`.
        patience: seconds to wait before progress is shown.
        model: that it runs. Its lock is held meanwhile: not all of the library takes it, and what one task edits
            must not be in what another one reads.

    Raises:
        CircuitsError: the task's own.
    """
    task = state.desk().ask(key, what, function if model is None else _alone(function, model))
    if task.wait(patience):
        try:
            return task.result()
        except CircuitsError:
            state.desk().forget(key)
            raise
    _working(task, key)
    return None


def _alone(function: Callable[[Progress], Any], model: Model) -> Callable[[Progress], Any]:
    def run(report: Progress) -> Any:
        with model.lock:
            return function(report)

    return run


@st.fragment(run_every=1.0)
def _working(task: Task[Any], key: tuple[Any, ...]) -> None:
    if task.finished:
        st.rerun()
    share = task.done / task.total if task.total else 0.0
    number = f" {task.done:,} of {task.total:,}" if task.total else ""
    left, right = st.columns([6, 1], vertical_alignment="center")
    left.progress(min(1.0, share), text=plain(f"{task.what}{number}"))
    if right.button("Stop", key=f"stop-{hash(key)}", type="tertiary"):
        state.desk().forget(key)
        st.session_state["stopped"] = True


def refresh() -> None:
    """Run the page again once the small pictures that it lacks are there."""
    awaited = st.session_state.pop("awaited", [])
    if awaited:
        _await(awaited)


@st.fragment(run_every=0.8)
def _await(tasks: list[Task[Any]]) -> None:
    if all(task.finished for task in tasks):
        st.rerun()
    done, total = sum(t.done for t in tasks), sum(t.total for t in tasks)
    st.caption(f"Cutting small pictures: {done:,} of {total:,}" if total else "Cutting small pictures")
