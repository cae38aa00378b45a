"""What all sessions share: models, scans, pictures, and what is known of a unit. All of it is kept within bounds.

Everything here is read only. What changes a model does so inside `circuits.edit`, which holds the model's lock.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from apps.explorer.resources import rendered_units, thumbnails
from apps.explorer.resources.renamed_scan import Renamed
from apps.explorer.server.background_work import Executor
from apps.explorer.server.settings import BUILT_IN, Settings, settings
from apps.explorer.session.labels import FILE as LABELS
from apps.explorer.session.labels import Labels
from apps.explorer.session.ordering import most_selective
from circuits.dataset.scan_results import Scan
from circuits.dataset.scan_store import MANIFEST, StoreError, folder_of, models_in
from circuits.errors import AddressError, CircuitsError, did_you_mean, shorten
from circuits.network.address import Unit
from circuits.network.model import Model, load
from circuits.units.similarity import Likeness, by_weights, likeness_of, unit_names
from zoo.images.sources import Images


@dataclass(frozen=True)
class Here:
    """What a page is about: a unit or a layer of a model, and the scan of it.

    Attributes:
        settings: of the server; model: loaded; unit: canonical address of a unit or a layer.
        scan: of the model, or None where the store has none; why: what to do about that.
    """

    settings: Settings
    model: Model
    unit: Unit
    scan: Scan | None
    why: str = ""

    @property
    def folder(self) -> Path:
        """The model's folder in the store."""
        return folder_of(self.settings.store, self.model.name)

    @property
    def scanned(self) -> Scan:
        """The scan.

        Raises:
            StoreError: there is none, or not of this layer; says what to do.
        """
        if self.scan is None:
            raise StoreError(self.why)
        if self.unit.space not in self.scan.layers:
            raise StoreError(
                f"the scan has not looked at {self.unit.space}; it has {', '.join(list(self.scan.layers)[-6:])}"
            )
        return self.scan

    @property
    def labels(self) -> Labels:
        """The labels of the store."""
        return Labels(self.settings.store)


def models(chosen: Settings) -> list[str]:
    """Names of the models that can be opened: those in the store, the one asked for, and the built-in one."""
    stored = models_in(chosen.store)
    first = [chosen.model] if chosen.model else [BUILT_IN] if BUILT_IN in stored else []
    return list(dict.fromkeys([*first, *stored, BUILT_IN]))


def here(address: str | None) -> Here:
    """What an address from the browser means.

    Args:
        address: of a unit or a layer, in any form; None or empty for where the explorer opens.

    Raises:
        AddressError: it means nothing, or a model that is not open here.
    """
    chosen = settings()
    known = models(chosen)
    asked = Unit.parse(address) if address else None
    name = known[0] if asked is None or asked.model is None else asked.model
    if name not in known:
        hint = did_you_mean(name, known)
        raise AddressError(f"no model {shorten(name)!r} is open here.{hint} There are {', '.join(known)}")
    model = open_model(name, chosen.saes)
    scan, why = _scan_of(chosen, model)
    unit = model.resolve(_first(model, scan) if asked is None else asked)
    folder = dict(chosen.saes).get(unit.basis or "")
    if folder is not None and (scan is None or unit.space not in scan.layers):
        beside = scan_beside(folder, model, unit.space)
        if beside is not None and unit.space in beside.layers:
            return Here(chosen, model, unit, beside)
    return Here(chosen, model, unit, scan, why)


def scan_beside(sae: Path, model: Model, space: str) -> Scan | None:
    """The scan that `circuits sae features` leaves beside an SAE's files, if it is of this model; it calls latents by
    the folder, which is changed here to `space`, as they are called on this server.
    """
    folder = folder_of(sae / "scan", model.name)
    try:
        scan = open_scan(str(folder), (folder / MANIFEST).stat().st_mtime_ns)
    except (OSError, CircuitsError):
        return None
    if scan.manifest["weights"] != model.digest:
        return None
    own = f"{space.partition('~')[0]}~{sae.resolve().name}"
    return scan if own == space or own not in scan.layers else Renamed(scan, own, space)


def _first(model: Model, scan: Scan | None) -> Unit:
    """Where a model opens: in the last layer but one of its trunk that is a map, the most selective unit that fires."""
    maps = [name for name in model.trunk if model.layers[name].size is not None]
    layer = maps[-2] if len(maps) > 1 else maps[-1] if maps else model.trunk[-1]
    if scan is None or layer not in scan.layers:
        return Unit(layer, 0, model.name)
    return Unit(layer, most_selective(scan.layer(layer)), model.name)


@dataclass(frozen=True)
class Attached:
    """A model with the latents of the dictionaries that fit it; why the others do not, by their names."""

    model: Model
    refused: Mapping[str, str]


@st.cache_resource(max_entries=3, show_spinner=False)
def attached(name: str, saes: tuple[tuple[str, Path], ...] = ()) -> Attached:
    """A model of the zoo, with the latents of the dictionaries that the server was given."""
    model, refused = load(name), {}
    for own, folder in saes:
        from sae.data.vision_site import attach_folder
        from sae.formats import load as load_sae

        try:
            said = load_sae(folder).metadata
            of = str(said.get("model") or said.get("model_name") or "")
            if said.get("site") == "language":
                refused[own] = "it reads a language model: see the Language page"
            elif of not in ("", name):
                refused[own] = f"it reads {of}"
            else:
                attach_folder(model, folder, own)
        except CircuitsError as error:  # one that is damaged, or of other weights, hides no other
            refused[own] = str(error)
    return Attached(model, refused)


def open_model(name: str, saes: tuple[tuple[str, Path], ...] = ()) -> Model:
    """The model of `attached`."""
    return attached(name, saes).model


def _scan_of(chosen: Settings, model: Model) -> tuple[Scan | None, str]:
    folder = folder_of(chosen.store, model.name)
    pictures = "scenes:500" if model.name == BUILT_IN else "FOLDER"
    command = f"circuits scan {model.name} --images {pictures} --store {chosen.store}"
    try:
        stamp = (folder / MANIFEST).stat().st_mtime_ns
    except OSError:
        return None, f"there is no scan of {model.name} yet; make one: {command}"
    try:
        scan = open_scan(str(folder), stamp)
    except CircuitsError as error:
        return None, str(error)
    if scan.manifest["weights"] != model.digest:
        return None, f"the scan of {model.name} is of other weights; make it again: {command} --replace"
    return scan, ""


@st.cache_resource(max_entries=4, show_spinner=False)
def open_scan(folder: str, stamp: int) -> Scan:
    """A finished scan; `stamp` is when it was written."""
    return Scan(Path(folder))


@st.cache_resource(max_entries=4, show_spinner=False)
def _open_pictures(folder: str, stamp: str, elsewhere: str) -> Images:
    scan = open_scan(folder, (Path(folder) / MANIFEST).stat().st_mtime_ns)
    try:
        return scan.pictures(check=False)
    except StoreError:
        if not elsewhere:
            raise
        return scan.pictures(elsewhere, check=False)


def pictures_of(at: Here) -> Images:
    """The pictures that were scanned.

    Raises:
        StoreError: they are not where they were, nor in the folder that the server was given.
    """
    scan = at.scan if at.scan is not None else at.scanned
    return _open_pictures(str(scan.folder), scan.manifest["digest"], str(at.settings.images or ""))


# -- what is known of units -------------------------------------------------------------------------------------------


@st.cache_resource(show_spinner=False)
def desk() -> Executor:
    """The one desk at which the server's work is done."""
    return Executor(workers=2)


@st.cache_resource(max_entries=48, show_spinner=False)
def _stored_thumbs(folder: str, digest: str, layer: str, stamp: int) -> thumbnails.Thumbs | None:
    return thumbnails.stored(open_scan(folder, (Path(folder) / MANIFEST).stat().st_mtime_ns), layer)


def thumbs_of(at: Here, layer: str) -> thumbnails.Thumbs | None:
    """The small pictures of a layer's units; None while they are being made, which this call sees to."""
    if at.scan is None or layer not in at.scan.layers:  # of latents the scan beside the SAE has no other layers
        scan = _scan_of(at.settings, at.model)[0]
        if scan is None or layer not in scan.layers:
            return ()
        at = replace(at, scan=scan)
    assert at.scan is not None
    scan, path = at.scan, at.scan.folder / thumbnails.FOLDER / f"{layer}.safetensors"
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    found = _stored_thumbs(str(scan.folder), scan.manifest["digest"], layer, stamp) if stamp else None
    if found is not None:
        return found
    task = desk().ask(
        ("thumbs", str(scan.folder), scan.manifest["digest"], layer),
        f"small pictures of {layer}",
        lambda report: thumbnails.make(scan, pictures_of(at), [layer], report)[layer],
    )
    if not task.wait(0.15):
        st.session_state.setdefault("awaited", []).append(task)
        return None
    try:
        return task.result()
    except CircuitsError:
        return ()  # the pictures are gone: units are shown by name


def thumb_of(at: Here, unit: Unit) -> str | None:
    """The small picture of one unit, where there is one by now."""
    found = thumbs_of(at, unit.space)
    return found[unit.index] if found and unit.index is not None and unit.index < len(found) else None


@st.cache_resource(max_entries=4, show_spinner=False)
def _read_looks(places: tuple[tuple[str, int], ...], weights: str) -> Mapping[str, Sequence[rendered_units.Look]]:
    return rendered_units.read_looks(places, weights)


def looks_of(at: Here) -> Mapping[str, Sequence[rendered_units.Look]]:
    """Pictures made by optimization that the store has, by unit."""
    return _read_looks(rendered_units.sweeps(at.folder), at.model.digest)


@st.cache_resource(max_entries=1024, show_spinner=False)
def look_uri(png: str, stamp: int) -> str:
    """A picture of a sweep as a data URI."""
    return thumbnails.uri(Path(png).read_bytes(), "png")


def shown(look: rendered_units.Look) -> str | None:
    """A picture of a sweep as a data URI, or None for a unit that none makes answer."""
    if look.result.status != "ok" or not look.png.is_file():
        return None
    return look_uri(str(look.png), look.png.stat().st_mtime_ns)


@st.cache_resource(max_entries=12, show_spinner=False)
def _likeness(
    model: str, digest: str, folder: str, stamp: str, layer: str, by: str, _model: Model, _scan: Scan | None
) -> Likeness:
    if by == "weights" or _scan is None:
        return by_weights(_model, layer)
    samples = _scan.samples(layer)
    fired = np.maximum(samples.values, 0) if _model.layers[layer.partition("~")[0]].size is not None else samples.values
    measure = f"responses at {len(fired)} places of the pictures"
    return likeness_of(fired.T, unit_names(_model, layer), measure=measure, centerd=True)


def likeness_in(at: Here, by: str) -> Likeness:
    """How alike the units of this layer are, by "weights" or by "activations".

    Raises:
        CircuitsError: there is nothing to compare.
    """
    if len(unit_names(at.model, at.unit.space)) < 2:
        raise CircuitsError(f"{at.unit.space} has no other unit")
    scan = at.scanned if by == "activations" else at.scan
    folder, stamp = ("", "") if scan is None else (str(scan.folder), scan.manifest["digest"])
    return _likeness(at.model.name, at.model.digest, folder, stamp, at.unit.space, by, at.model, scan)


@st.cache_resource(max_entries=4, show_spinner=False)
def _names(path: str, stamp: tuple[int, int], model: str) -> dict[str, str]:
    return Labels(Path(path).parent).names(model)


def names_of(at: Here) -> dict[str, str]:
    """What units of this model are called, by address; read again when a label was saved."""
    path = at.settings.store / LABELS
    stamps = [p.stat().st_mtime_ns if p.exists() else 0 for p in (path, path.with_name(path.name + "-wal"))]
    return _names(str(path), (stamps[0], stamps[1]), at.model.name) if stamps[0] else {}


@st.cache_resource(show_spinner=False)
def warmed(chosen: str) -> threading.Thread:
    """Opens the model and its pictures beside the first page, so that the first click does not wait for them."""

    def warm() -> None:
        try:
            at = here(None)
            if at.scan is not None:
                pictures_of(at)
        except CircuitsError:
            pass  # the pages say it

    thread = threading.Thread(target=warm, name="explorer-warm", daemon=True)
    thread.start()
    return thread


def described(value: Any) -> str:
    """A result as the JSON that is exported."""
    from apps.documents import plain

    return json.dumps(plain(value), indent=1, allow_nan=False, ensure_ascii=False)


def first_of(name: str) -> Unit:
    """Where a model opens, by its name."""
    model = open_model(name, settings().saes)
    return _first(model, _scan_of(settings(), model)[0])
