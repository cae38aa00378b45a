"""Networks without suspects of an audit, written out for a visitor to save: files that are removed with the server.

They are written in a process of their own: while torch.export traces a network its weights are no numbers, and other
pages read them.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from apps.explorer.resources.audit import audits
from apps.explorer.server.settings import Settings
from apps.explorer.session import state
from apps.processes import spread
from circuits.dataset.audit.removal import removal_edits
from circuits.dataset.audit.repair.export import Export, export
from circuits.errors import CircuitsError

MOST = 4
"""Networks that are kept; of more, the first written are removed."""


@dataclass(frozen=True)
class Written:
    """A network in a ZIP file."""

    path: Path
    export: Export

    def content(self) -> bytes:
        """The file.

        Raises:
            CircuitsError: it was removed meanwhile.
        """
        try:
            return self.path.read_bytes()
        except FileNotFoundError as error:
            raise CircuitsError("this file was removed, others were written since: reload the page") from error


@st.cache_resource(show_spinner=False)
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="explorer-networks-")


def written(server: Settings, model: str, audit: Path, units: Mapping[str, float]) -> Written:
    """Write a network without some suspects of an audit; see `circuits.export`.

    Args:
        server: its settings; model: name of the network; audit: folder of the audit; units: suspect -> share removed.

    Raises:
        CircuitsError: it cannot be traced, or does not give what the edited run gives.
    """
    root = Path(_folder().name)
    for old in sorted(root.iterdir(), key=lambda path: path.stat().st_mtime_ns)[: -MOST + 1 or None]:
        shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=root))
    _, result = next(spread(_write, [(server, model, audit, dict(units), folder)], 1))
    return Written(folder / "network.zip", result)


def _write(request: tuple[Settings, str, Path, dict[str, float], Path]) -> Export:
    server, name, audit, units, folder = request
    model = state.attached(name, server.saes, server.weights_of(name)).model
    images = audits.images_of(server, model, audit)
    result = export(model, removal_edits(model, images, units), folder / "network", images=images.held_out)
    with zipfile.ZipFile(folder / "network.zip", "w", zipfile.ZIP_STORED) as archive:
        for file in sorted((folder / "network").iterdir()):
            archive.write(file, file.name)
    shutil.rmtree(folder / "network")
    return result
