"""The sparse autoencoders of the server: their files, and the scans of their latents."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from apps.explorer.server.settings import Settings
from apps.explorer.session import state
from apps.explorer.session.state import Location
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from sae.architectures.base import SAE
from sae.formats import load
from zoo.common.reading import Count, fits, parse_json, read_text

REPORTS, DENSITIES = "reports.jsonl", "sparsity.safetensors"


class _Report(TypedDict, total=False):
    step: Count
    fvu: float
    l0: float
    dead: float


@dataclass(frozen=True, eq=False)
class LoadedSAE:
    """An SAE of the server.

    Attributes:
        folder: of its files; name: of its latents, in addresses; sae: itself.
        report: the last one of its training, or empty.
        densities: share of inputs on which each latent is active, `(latents,)`, or None where the files have none.
    """

    folder: Path
    name: str
    sae: SAE
    report: Mapping[str, Any] = field(default_factory=dict)
    densities: NDArray[np.float64] | None = None

    @property
    def model(self) -> str:
        """The model that it was trained on, from its metadata."""
        return str(self.sae.metadata.get("model") or self.sae.metadata.get("model_name") or "")

    @property
    def layer(self) -> str:
        """The layer or site, from its metadata."""
        return str(self.sae.metadata.get("layer") or self.sae.metadata.get("hook_name") or "")

    @property
    def of_language(self) -> bool:
        """Whether it is of a language model."""
        return self.sae.metadata.get("site") == "language"

    def row(self) -> dict[str, Any]:
        """Its row of a table; None where its files have no value."""
        config = self.sae.config
        dead = self.report.get("dead")
        return {
            "SAE": self.name,
            "model": self.model,
            "layer": self.layer,
            "architecture": config.architecture,
            "latents": self.sae.latents,
            "k": getattr(config, "k", None),
            "FVU": self.report.get("fvu"),
            "L0": self.report.get("l0"),
            "dead": None if dead is None else round(float(dead) * self.sae.latents),
            "steps": self.report.get("step"),
        }


def loaded_saes(server: Settings) -> tuple[tuple[LoadedSAE, ...], dict[str, str]]:
    """The SAEs of the server, and the errors of those that cannot be read, by name."""
    loaded, broken = [], {}
    for name, folder in server.saes:
        try:
            loaded.append(open_sae(name, folder))
        except CircuitsError as error:
            broken[name] = str(error)
    return tuple(loaded), broken


def open_sae(name: str, folder: Path) -> LoadedSAE:
    """The SAE of a folder.

    Raises:
        FormatError: it has none.
    """
    stamps = tuple(int(p.stat().st_mtime_ns) if p.is_file() else 0 for p in (folder / REPORTS, folder / DENSITIES))
    return _load(name, str(folder), stamps)


@st.cache_resource(max_entries=16, show_spinner=False)
def _load(name: str, folder: str, stamps: tuple[int, ...]) -> LoadedSAE:
    path = Path(folder)
    return LoadedSAE(path, name, load(path), _report(path / REPORTS), _densities(path / DENSITIES))


def _report(path: Path) -> dict[str, Any]:
    """The last complete line of a training's reports; a killed training may leave half a line after it."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in reversed(read_text(path).splitlines()):
            with contextlib.suppress(ValueError):
                report: dict[str, Any] = parse_json(line)
                fits(report, _Report)
                return report
    return {}


def _densities(path: Path) -> NDArray[np.float64] | None:
    if not path.is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        logarithms = load_file(path).get("sparsity")
    except (SafetensorError, OSError):
        return None  # the SAE can be used without its densities
    return None if logarithms is None else 10.0 ** logarithms.astype(np.float64)


def space_of(at: Location, sae: LoadedSAE) -> str | None:
    """The space of its latents in this model, `layer~name`, or None where they are not attached to it."""
    return next((f"{layer}~{name}" for layer, name in at.model.bases if name == sae.name), None)


def refused(at: Location, sae: LoadedSAE) -> str:
    """Why its latents are no units of this model; empty where they are."""
    if space_of(at, sae) is not None:
        return ""
    model = at.model.name
    refused = state.attached(model, at.settings.saes, at.settings.weights_of(model)).refused
    reason = refused.get(sae.name, "")
    return reason or f"it is of {sae.model or 'a model that its files do not name'}"


def scanned(at: Location, sae: LoadedSAE, space: str) -> Location | None:
    """The latents with their scan, of the store or beside the SAE's files; None where they were not scanned."""
    layer, _, name = space.partition("~")
    location = replace(at, unit=Unit(layer, None, at.model.name, name))
    if at.scan is not None and space in at.scan.layers:
        return location
    scan = state.scan_beside(sae.folder, at.model, space)
    return replace(location, scan=scan) if scan is not None and space in scan.layers else None
