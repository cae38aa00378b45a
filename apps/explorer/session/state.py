"""State that all sessions share: models, scans, images, and thumbnails of units, in caches of bounded size.

Everything here is read only. Edits of a model go through `circuits.edit`, which holds the model's lock.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from apps import memory
from apps.explorer.resources import prepared, rendered_units, thumbnails
from apps.explorer.resources.audit import audits
from apps.explorer.resources.renamed_scan import RenamedScan
from apps.explorer.server.background_work import Executor
from apps.explorer.server.byte_cache import cached
from apps.explorer.server.settings import BUILT_IN, Settings, settings
from apps.explorer.session import waiting
from apps.explorer.session.labels import FILE as LABELS, Labels
from circuits.common.kept_activations import KeptActivations
from circuits.dataset.labels.results import FILE as PART_LABELS
from circuits.dataset.scan_results import Scan
from circuits.dataset.scan_store import MANIFEST, StoreError, folder_of, models_in, own_card, own_model_options
from circuits.dataset.scan_targets import as_scanned
from circuits.errors import AddressError, CircuitsError, did_you_mean, shorten
from circuits.network.address import Unit, basis_name, split_class
from circuits.network.model import Model, load
from circuits.units.similarity import UnitSimilarity, by_weights, unit_names, unit_similarity
from zoo.common.results import plain
from zoo.images.sources import Images
from zoo.networks.own import command_line, loading_code, options_of
from zoo.registry import get_card


@dataclass(frozen=True)
class Location:
    """What an address names: a unit or a layer of a model, and the scan of it.

    Attributes:
        settings: of the server; model: loaded; unit: canonical address of a unit or a layer.
        scan: of the model, or None where the store has none; hint: why, and the command that makes one.
    """

    settings: Settings
    model: Model
    unit: Unit
    scan: Scan | None
    hint: str = ""

    @property
    def folder(self) -> Path:
        """The model's folder in the store."""
        return folder_of(self.settings.store, self.model.name)

    @property
    def results(self) -> Path | None:
        """Where results are kept beside the scan, under the digests of weights and images.

        Nowhere for what these do not tell: a latent, which an SAE may change, and a network of the user's own, whose
        code may.
        """
        return None if self.unit.basis is not None or own_card(self.model) is not None else self.folder

    def command(self, *words: object) -> str:
        """A command on the model, as a shell takes it; `words` are what follows `circuits`."""
        return _command(self.model, *words)

    @property
    def scanned(self) -> Scan:
        """The scan.

        Raises:
            StoreError: there is none, or not of this layer; the message has the command that makes one.
        """
        if self.scan is None:
            raise StoreError(self.hint)
        if self.unit.space not in self.scan.layers:
            raise StoreError(f"{self.unit.space} is not in the scan; it has {', '.join(list(self.scan.layers)[-6:])}")
        return self.scan

    @property
    def labels(self) -> Labels:
        """The labels of the store."""
        return Labels(self.settings.store)


def models(server: Settings) -> list[str]:
    """Names of the models that can be opened: those in the store, of audits, of the settings, and the built-in one."""
    stored = [name for name in (*models_in(server.store), *audits.models(server)) if is_known(name)]
    first = [server.model] if server.model else [BUILT_IN] if BUILT_IN in stored else []
    return list(dict.fromkeys([*first, *stored, BUILT_IN]))


def unknown_models(server: Settings) -> dict[str, str]:
    """Models of the store that cannot be opened, and why: the user's own, which this server was not given."""
    return {name: _how_to_open(server, name) for name in models_in(server.store) if not is_known(name)}


def _command(model: Model, *words: object) -> str:
    card = own_card(model)
    options = [] if card is None else options_of(card, json.loads(json.dumps(asdict(model.input))))
    return command_line(*words, *options)


def _how_to_open(server: Settings, name: str) -> str:
    options = own_model_options(server.store, name)
    if not options:
        return "no model of this name is known here"
    command = command_line("explore", "--store", server.store, *options)
    return f"a model of your own, which this explorer was not given: {command}"


def is_known(model: str) -> bool:
    """Whether a model can be loaded by its name. Code of a user's own is never looked for in a store."""
    try:
        get_card(model)
    except CircuitsError:
        return False
    return True


def locate(address: str | None) -> Location:
    """What an address from the browser names.

    Args:
        address: of a unit or a layer, in any form; None or empty for the unit that the explorer opens on.

    Raises:
        AddressError: no such unit, or a model that is not open here.
    """
    server = settings()
    open_models = models(server)
    requested = Unit.parse(split_class(address)[0]) if address else None
    name = open_models[0] if requested is None or requested.model is None else requested.model
    if name not in open_models:
        if name in (unknown := unknown_models(server)):
            raise AddressError(f"{shorten(name)} cannot be opened: {unknown[name]}")
        hint = did_you_mean(name, open_models)
        raise AddressError(f"no model {shorten(name)!r} is open here.{hint} There are {', '.join(open_models)}")
    model = open_model(name, server.saes)
    scan, why = _scan_of(server, model)
    unit = model.resolve(address or _default_unit(model, scan))
    unit = unit if scan is None else as_scanned(model, unit, scan.layers)
    folder = dict(server.saes).get(unit.basis or "")
    if folder is not None and (scan is None or unit.space not in scan.layers):
        beside = scan_beside(folder, model, unit.space)
        if beside is not None and unit.space in beside.layers:
            return Location(server, model, unit, beside)
    return Location(server, model, unit, scan, why)


def scan_beside(sae: Path, model: Model, space: str) -> Scan | None:
    """The scan that `circuits sae features` writes beside an SAE's files, or None where it is of another model.

    It names the latents after the folder; here they get the name `space` that they have on this server.
    """
    folder = folder_of(sae / "scan", model.name)
    try:
        scan = open_scan(str(folder), (folder / MANIFEST).stat().st_mtime_ns)
    except (OSError, CircuitsError):
        return None
    if scan.manifest["weights"] != model.digest:
        return None
    own = f"{space.partition('~')[0]}~{basis_name(sae)}"
    return scan if own == space or own not in scan.layers else RenamedScan(scan, own, space)


def _default_unit(model: Model, scan: Scan | None) -> Unit:
    """The unit that a model opens on: the most selective one of the second-to-last layer of its trunk with a map."""
    maps = [name for name in model.trunk if model.layers[name].size is not None]
    layer = maps[-2] if len(maps) > 1 else maps[-1] if maps else model.trunk[-1]
    if scan is None or layer not in scan.layers:
        return Unit(layer, 0, model.name)
    return Unit(layer, scan.layer(layer).most_selective, model.name)


@dataclass(frozen=True)
class Attached:
    """A model with the latents of the SAEs that fit it; `refused` has the reasons of the others, by name."""

    model: Model
    refused: Mapping[str, str]


@st.cache_resource(max_entries=3, show_spinner=False)
def attached(name: str, saes: tuple[tuple[str, Path], ...] = (), weights: str | None = None) -> Attached:
    """A model, with the latents of the server's SAEs."""
    model, refused = load(name, weights=weights), {}
    model.check_images("the explorer")
    for label, folder in saes:
        from sae.data.attach import attach_folder
        from sae.formats import load as load_sae

        try:
            metadata = load_sae(folder).metadata
            of = str(metadata.get("model") or metadata.get("model_name") or "")
            if metadata.get("site") == "language":
                refused[label] = "it is of a language model: see the Language page"
            elif of not in ("", name):
                refused[label] = f"it is of {of}"
            else:
                attach_folder(model, folder, label)
        except CircuitsError as error:  # a damaged SAE must not hide the others
            refused[label] = str(error)
    return Attached(model, refused)


def open_model(name: str, saes: tuple[tuple[str, Path], ...] = ()) -> Model:
    """The model of `attached`."""
    return attached(name, saes, settings().weights_of(name)).model


def _scan_of(server: Settings, model: Model) -> tuple[Scan | None, str]:
    folder = folder_of(server.store, model.name)
    source = "scenes:500" if model.name == BUILT_IN else "FOLDER"
    command = _command(model, "scan", model.name, "--images", source, "--store", server.store)
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
    """A finished scan; `stamp` is the time of its manifest."""
    return Scan(Path(folder))


@st.cache_resource(max_entries=4, show_spinner=False)
def _open_images(folder: str, stamp: str, elsewhere: str) -> Images:
    scan = open_scan(folder, (Path(folder) / MANIFEST).stat().st_mtime_ns)
    try:
        return scan.images(check=False)
    except StoreError:
        if not elsewhere:
            raise
        return scan.images(elsewhere, check=False)


def images_of(at: Location) -> Images:
    """The images that were scanned.

    Raises:
        StoreError: they are neither where they were nor in the server's image folder.
    """
    scan = at.scan if at.scan is not None else at.scanned
    return _open_images(str(scan.folder), scan.manifest["digest"], str(at.settings.images or ""))


def kept_activations(at: Location) -> KeptActivations | None:
    """Where activations of the scanned images are kept between circuits; None where the store keeps no results."""
    if at.results is None or at.scan is None or at.scan.folder != at.folder:
        return None
    return prepared.kept_activations(at.model, at.scan)


# -- units ------------------------------------------------------------------------------------------------------------


SWITCH = 0.001
"""Seconds after which a thread that wants the interpreter gets it. Background work gives it up at every operation of a
network, and waits that long to have it back while pages run: with three busy pages, 1,500 products of small matrices
take 1.3 s at Python's 5 ms, and 0.3 s at this."""


@st.cache_resource(show_spinner=False)
def executor() -> Executor:
    """The threads of the server's background work."""
    memory.reuse()
    sys.setswitchinterval(SWITCH)
    return Executor(workers=2, present=waiting.present)


@cached
def _stored_thumbs(folder: str, digest: str, layer: str, stamp: int, count: int) -> thumbnails.Thumbs | None:
    return thumbnails.stored(open_scan(folder, (Path(folder) / MANIFEST).stat().st_mtime_ns), layer, count)


def thumbs_of(at: Location, layer: str, count: int = 1) -> thumbnails.Thumbs | None:
    """The thumbnails of a layer's units; None while they are made, which this call starts.

    Args:
        at: the model; layer: of the scan; count: images of a unit, 1 or 4.
    """
    if at.scan is None or layer not in at.scan.layers:  # the scan beside an SAE has no other layers
        scan = _scan_of(at.settings, at.model)[0]
        if scan is None or layer not in scan.layers:
            return ()
        at = replace(at, scan=scan)
    assert at.scan is not None
    scan, path = at.scan, thumbnails.path_of(at.scan, layer, count)
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    stored = _stored_thumbs(str(scan.folder), scan.manifest["digest"], layer, stamp, count) if stamp else None
    if stored is not None:
        return stored
    key = ("thumbs", str(scan.folder), scan.manifest["digest"], layer, count)
    task = executor().submit(
        key,
        f"thumbnails of {layer}",
        lambda report: thumbnails.make(scan, images_of(at), [layer], report, count=count)[layer],
        waiting.session(),
    )
    waiting.asks_for(key)
    if not task.wait(0.15):
        st.session_state.setdefault("awaited", []).append(task)
        return None
    try:
        return task.result()
    except CircuitsError:
        return ()  # the images are gone: units are shown by name


def thumb_of(at: Location, unit: Unit) -> str | None:
    """The thumbnail of one unit, or None where it is missing or not ready."""
    thumbs = thumbs_of(at, unit.space)
    return thumbs[unit.index] if thumbs and unit.index is not None and unit.index < len(thumbs) else None


@cached
def _read_visualizations(
    folders: tuple[tuple[str, int], ...], weights: str
) -> Mapping[str, Sequence[rendered_units.StoredVisualization]]:
    return rendered_units.read_visualizations(folders, weights)


def visualizations_of(at: Location) -> Mapping[str, Sequence[rendered_units.StoredVisualization]]:
    """Feature visualizations of the store, by unit."""
    return _read_visualizations(rendered_units.sweeps(at.folder), at.model.digest)


@cached
def _png_uri(png: str, stamp: int) -> str:
    """The PNG file of a visualization as a data URI."""
    return thumbnails.uri(Path(png).read_bytes(), "png")


def visualization_uri(visualization: rendered_units.StoredVisualization) -> str | None:
    """A visualization as a data URI, or None for a unit that no image activates."""
    if visualization.result.status != "ok" or not visualization.png.is_file():
        return None
    return _png_uri(str(visualization.png), visualization.png.stat().st_mtime_ns)


@cached
def _similarity(
    model: str, digest: str, folder: str, stamp: str, layer: str, by: str, _model: Model, _scan: Scan | None
) -> UnitSimilarity:
    if by == "weights" or _scan is None:
        return by_weights(_model, layer)
    samples = _scan.samples(layer)
    activations = np.maximum(samples.values, 0) if _scan.layer(layer).signed else samples.values
    measure = f"activations at {len(activations)} positions of the images"
    return unit_similarity(activations.T, unit_names(_model, layer), measure=measure, centered=True)


def compares_active_parts(at: Location) -> bool:
    """Whether the units of this layer are compared by what is above zero: where they were read before their ReLU."""
    return at.scan is not None and at.unit.space in at.scan.layers and at.scan.layer(at.unit.space).signed


def similarity_in(at: Location, by: str) -> UnitSimilarity:
    """Similarities of the units of this layer, by "weights" or by "activations".

    Raises:
        CircuitsError: there is nothing to compare.
    """
    if len(unit_names(at.model, at.unit.space)) < 2:
        raise CircuitsError(f"{at.unit.space} has no other unit")
    scan = at.scanned if by == "activations" else at.scan
    folder, stamp = ("", "") if scan is None else (str(scan.folder), scan.manifest["digest"])
    return _similarity(at.model.name, at.model.digest, folder, stamp, at.unit.space, by, at.model, scan)


@cached
def _names(path: str, stamp: tuple[int, ...], model: str) -> dict[str, str]:
    return Labels(Path(path).parent).names(model)


def labels_of(at: Location) -> dict[str, str]:
    """The newest label of each unit of this model, by address; read again after a label was saved."""
    path = at.settings.store / LABELS
    files = (path, path.with_name(path.name + "-wal"), folder_of(at.settings.store, at.model.name) / PART_LABELS)
    stamps = tuple(p.stat().st_mtime_ns if p.exists() else 0 for p in files)
    return _names(str(path), stamps, at.model.name) if any(stamps) else {}


@cached
def _class_names(layer: str, classes: tuple[str, ...]) -> dict[str, str]:
    return {f"{layer}:{i}": name for i, name in enumerate(classes)}


def names_of(at: Location) -> dict[str, str]:
    """Labels of units by address, and the names of the classes by that of their scores."""
    model, scores = at.model, at.model.class_scores
    if scores is None:
        return labels_of(at)
    return _class_names(f"{model.name}/{scores}", tuple(model.classes)) | labels_of(at)


@st.cache_resource(show_spinner=False)
def warm_up(chosen: str) -> threading.Thread:
    """Open the model and its images in a thread, so that the first click does not wait for them."""

    def warm() -> None:
        try:
            at = locate(None)
            if at.scan is not None:
                images_of(at)
        except CircuitsError:
            pass  # the pages show the error

    thread = threading.Thread(target=warm, name="explorer-warm", daemon=True)
    thread.start()
    return thread


def loading_code_of(at: Location) -> str:
    """Python that loads the model."""
    return loading_code(at.model.name, at.settings.weights_of(at.model.name))


def to_json(value: Any) -> str:
    """A value as the text of an exported JSON file."""
    return json.dumps(plain(value), indent=1, allow_nan=False, ensure_ascii=False)


def default_unit_of(name: str) -> Unit:
    """The unit that a model opens on, by the name of the model."""
    model = open_model(name, settings().saes)
    return _default_unit(model, _scan_of(settings(), model)[0])
