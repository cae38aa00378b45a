"""How results are drawn: the figure and the page of each type of result, registered by the room that draws it.

Results come before plots and know nothing of them. Here are two generic functions over the type of a result; the rooms
that draw register what they draw for a type, and the package that gathers a floor (`circuits`, `sae`) names its room,
which is loaded when something is drawn for the first time::

    drawn_by("circuits.plot.results")            # in circuits/__init__.py, which stands above both rooms

    @figure_of.register                          # in circuits/plot/results.py
    def _(result: Circuit, given: Given, **options: Any) -> Figure: ...
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Mapping
from typing import Any

from zoo.errors import CircuitsError

Given = Mapping[str, Any]
"""What a result was made from, by the name of the argument: model, images, scan."""

_ROOMS: dict[str, bool] = {}
_LOCK = threading.RLock()


def drawn_by(module: str) -> None:
    """Name a module that registers drawings when it is imported; it is imported when one is looked for."""
    _ROOMS.setdefault(module, False)


def load_drawings() -> None:
    """Import the modules that were named, once."""
    with _LOCK:
        for module, loaded in list(_ROOMS.items()):
            if not loaded:
                _ROOMS[module] = True
                importlib.import_module(module)


@functools.singledispatch
def figure_of(result: object, given: Given, **options: Any) -> Any:
    """The matplotlib figure of a result.

    Args:
        result: what is drawn.
        given: what it was made from.
        options: of the figure.

    Raises:
        CircuitsError: nothing is registered for its type.
    """
    raise CircuitsError(f"nothing draws a {type(result).__name__}")


@functools.singledispatch
def page_of(result: object, given: Given, **options: Any) -> str:
    """The self-contained HTML page of a result; see `figure_of`."""
    raise CircuitsError(f"nothing makes a page of a {type(result).__name__}")


@functools.singledispatch
def html_of(result: object, given: Given) -> str:
    """What a notebook shows of a result: HTML in which every value is escaped; see `figure_of`."""
    raise CircuitsError(f"nothing shows a {type(result).__name__}")


def needs(given: Given, name: str, what: str) -> Any:
    """`given[name]`.

    Raises:
        CircuitsError: it is not there, as for a result that was loaded from a file.
    """
    if given.get(name) is None:
        raise CircuitsError(f"{what} needs {name}=: a result that was loaded does not hold what it was made from")
    return given[name]


@functools.singledispatch
def overlay_of(heat: object, image: Any, path: Any) -> Any:
    """A map over its image as pixels `(H, W, 3)` uint8, written to `path` where that is not None; see `figure_of`."""
    raise CircuitsError(f"nothing lays a {type(heat).__name__} over an image")


def overlay(heat: Any, image: Any, path: Any = None) -> Any:
    """`overlay_of`, with the rooms that draw."""
    load_drawings()
    return overlay_of(heat, image, path)
