"""Models and their layers, as completion knows them without loading a network.

They are those in `models.json`, which the package carries for models with a card, and those that were loaded before on
this machine, kept in the cache.
"""

from __future__ import annotations

import contextlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuits.network.model import Model

SHIPPED = Path(__file__).with_name("models.json")


@cache
def models() -> dict[str, list[str]]:
    """Model -> names of its layers, of the models that are known without loading any."""
    known: dict[str, list[str]] = json.loads(SHIPPED.read_text("utf-8"))
    from zoo.common.reading import fits, read_json

    with contextlib.suppress(OSError, ValueError):
        seen = read_json(_seen(), 1 << 24)
        fits(seen, dict[str, list[str]])
        known |= seen
    return known


def remember(model: Model) -> None:
    """Keep the names of a model's layers for completion; a cache that cannot be written is none."""
    from zoo.common.files import write_text_atomically
    from zoo.errors import FileError

    layers = list(model.layers)
    if models().get(model.name) == layers:
        return
    shipped = json.loads(SHIPPED.read_text("utf-8"))
    seen = {name: known for name, known in models().items() if name not in shipped} | {model.name: layers}
    with contextlib.suppress(FileError):
        write_text_atomically(_seen(), json.dumps(seen, ensure_ascii=False))
        models.cache_clear()


def _seen() -> Path:
    from zoo.common.files import home

    return home() / "completion.json"
