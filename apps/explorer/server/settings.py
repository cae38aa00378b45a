"""What the explorer was started with. The browser can change none of it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = "CIRCUITS_EXPLORER"
"""Environment variable through which `circuits explore` tells the server its settings, as JSON."""
BUILT_IN = "scenes"
"""The model that needs nothing: what the explorer opens on."""


@dataclass(frozen=True)
class Settings:
    """What the explorer was started with.

    Attributes:
        store: folder of scans, pictures, labels and jobs; it may hold several models.
        model: name of the model to open on, or None.
        saes: name and folder of each sparse autoencoder; those that fit a model become units of it.
        lms: language models, besides `tales`, as `zoo.networks.language.load_language` takes them.
        images: folder of photographs, where scans can look and concepts be searched, or None.
        allow_write: whether labels can be written, circuits kept and jobs started from the browser.
    """

    store: Path = Path("store")
    model: str | None = None
    saes: tuple[tuple[str, Path], ...] = ()
    lms: tuple[str, ...] = ()
    images: Path | None = None
    allow_write: bool = False

    def to_environment(self) -> dict[str, str]:
        """The environment variable that `settings` reads."""
        plain = {k: str(v) if isinstance(v, Path) else v for k, v in vars(self).items()}
        plain["saes"] = [[name, str(folder)] for name, folder in self.saes]
        return {VARIABLE: json.dumps(plain)}


def settings() -> Settings:
    """The settings of this server; those of a fresh start where it was started by hand."""
    said: dict[str, Any] = json.loads(os.environ.get(VARIABLE, "{}"))
    paths: dict[str, Any] = {k: Path(said[k]).expanduser() for k in ("store", "images") if said.get(k)}
    saes = tuple((str(name), Path(folder).expanduser()) for name, folder in said.get("saes", ()))
    plain = {k: said[k] for k in ("model", "allow_write") if k in said}
    return Settings(**plain, **paths, saes=saes, lms=tuple(said.get("lms", ())))
