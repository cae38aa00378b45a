"""Settings of the server. The browser cannot change them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = "CIRCUITS_EXPLORER"
"""Environment variable through which `circuits explore` passes the settings to the server, as JSON."""
BUILT_IN = "scenes"
"""The built-in model, which the explorer opens on by default."""


@dataclass(frozen=True)
class Settings:
    """Settings of the server.

    Attributes:
        store: folder of scans, visualizations, labels and jobs, of one or several models.
        model: name of the model to open on, or None.
        saes: name and folder of each sparse autoencoder; those that fit a model become units of it.
        lms: language models, besides `tales`, as `zoo.networks.language.load_language` takes them.
        images: folder with folders of images, for scans and concepts, or None.
        allow_write: whether the browser can write labels, save circuits and start jobs.
        allow_hosts: names of this server, besides those of this machine.
        audits: name and folder of each finished audit.
        weights: file of the weights of `model`, "random", or None for where its card looks.
    """

    store: Path = Path("store")
    model: str | None = None
    saes: tuple[tuple[str, Path], ...] = ()
    lms: tuple[str, ...] = ()
    images: Path | None = None
    allow_write: bool = False
    allow_hosts: tuple[str, ...] = ()
    weights: str | None = None
    audits: tuple[tuple[str, Path], ...] = ()

    def weights_of(self, model: str) -> str | None:
        """The weights to load `model` with: those of the settings are of the model to open on."""
        return self.weights if model == self.model else None

    def to_environment(self) -> dict[str, str]:
        """The environment variable that `settings` reads."""
        values = {k: str(v) if isinstance(v, Path) else v for k, v in vars(self).items()}
        values |= {k: [[name, str(folder)] for name, folder in getattr(self, k)] for k in ("saes", "audits")}
        return {VARIABLE: json.dumps(values)}


def settings() -> Settings:
    """The settings of this server; the defaults where it was not started by `circuits explore`."""
    document: dict[str, Any] = json.loads(os.environ.get(VARIABLE, "{}"))
    paths: dict[str, Any] = {k: Path(document[k]).expanduser() for k in ("store", "images") if document.get(k)}
    paths |= {
        k: tuple((str(name), Path(folder).expanduser()) for name, folder in document.get(k, ()))
        for k in ("saes", "audits")
    }
    plain: dict[str, Any] = {k: document[k] for k in ("model", "weights", "allow_write") if k in document}
    plain.update({k: tuple(document[k]) for k in ("lms", "allow_hosts") if k in document})
    return Settings(**plain, **paths)
