"""The sparse autoencoders that the server was given: what their files say, and the scans that lie beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from apps.explorer.server.settings import Settings
from apps.explorer.session import state
from apps.explorer.session.state import Here
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from sae.architectures.base import SAE
from sae.formats import load

REPORTS, DENSITIES = "reports.jsonl", "sparsity.safetensors"


@dataclass(frozen=True, eq=False)
class Given:
    """An SAE as the server was given it.

    Attributes:
        folder: of its files; name: of its latents, in addresses; sae: itself.
        report: the last one of its training, empty where there is none.
        densities: share of inputs on which each latent fires, `(latents,)`, or None where that is not kept.
    """

    folder: Path
    name: str
    sae: SAE
    report: Mapping[str, Any] = field(default_factory=dict)
    densities: NDArray[np.float64] | None = None

    @property
    def model(self) -> str:
        """The model that it was trained on, as its metadata say."""
        return str(self.sae.metadata.get("model") or self.sae.metadata.get("model_name") or "")

    @property
    def layer(self) -> str:
        """The layer or site, as its metadata say."""
        return str(self.sae.metadata.get("layer") or self.sae.metadata.get("hook_name") or "")

    @property
    def of_language(self) -> bool:
        """Whether it reads a language model."""
        return self.sae.metadata.get("site") == "language"

    def row(self) -> dict[str, Any]:
        """What a table says of it; empty where its files say nothing."""
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


def given(chosen: Settings) -> tuple[tuple[Given, ...], dict[str, str]]:
    """The SAEs that the server was given; and, by name, why some of them cannot be read."""
    found, broken = [], {}
    for name, folder in chosen.saes:
        try:
            found.append(opened(name, folder))
        except CircuitsError as error:
            broken[name] = str(error)
    return tuple(found), broken


def opened(name: str, folder: Path) -> Given:
    """The SAE of a folder.

    Raises:
        FormatError: there is none in it.
    """
    stamps = tuple(int(p.stat().st_mtime_ns) if p.is_file() else 0 for p in (folder / REPORTS, folder / DENSITIES))
    return _given(name, str(folder), stamps)


@st.cache_resource(max_entries=16, show_spinner=False)
def _given(name: str, folder: str, stamps: tuple[int, ...]) -> Given:
    path = Path(folder)
    return Given(path, name, load(path), _report(path / REPORTS), _densities(path / DENSITIES))


def _report(path: Path) -> dict[str, Any]:
    """The last whole line of a training's reports; a killed training may have left half of one behind it."""
    if not path.is_file():
        return {}
    for line in reversed(path.read_text("utf-8", "replace").splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return {}


def _densities(path: Path) -> NDArray[np.float64] | None:
    if not path.is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = load_file(path).get("sparsity")
    except (SafetensorError, OSError):
        return None  # a damaged table of densities makes the SAE no worse
    return None if found is None else 10.0 ** found.astype(np.float64)


def space_of(at: Here, one: Given) -> str | None:
    """The space of its latents in this model, `layer~name`, or None where they are not attached to it."""
    return next((f"{layer}~{name}" for layer, name in at.model.bases if name == one.name), None)


def refused(at: Here, one: Given) -> str:
    """Why its latents are no units of this model; empty where they are."""
    if space_of(at, one) is not None:
        return ""
    why = state.attached(at.model.name, at.settings.saes).refused.get(one.name, "")
    return why or f"it reads {one.model or 'a model that its files do not name'}"


def scanned(at: Here, one: Given, space: str) -> Here | None:
    """Where the latents were scanned: in the store, or beside the SAE's files; None where they were not."""
    layer, _, name = space.partition("~")
    there = replace(at, unit=Unit(layer, None, at.model.name, name))
    if at.scan is not None and space in at.scan.layers:
        return there
    scan = state.scan_beside(one.folder, at.model, space)
    return replace(there, scan=scan) if scan is not None and space in scan.layers else None
