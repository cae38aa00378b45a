"""The files of an atlas: `index.json`, `samples.safetensors`, and icons batch by batch, each whole or not there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypedDict

import torch
from msgspec import Meta
from torch import Tensor

from circuits.activations.atlas import Atlas, Cell
from circuits.activations.layout import NeighborSimilarity
from circuits.common.stored_keys import with_current_keys
from circuits.errors import CircuitsError, shorten
from zoo.common.files import tidy
from zoo.common.reading import Count, Expected, Positive, fits
from zoo.common.stored import Stored, named

SCHEMA = 1
INDEX, ARRAYS = "index.json", "samples.safetensors"
_STATUSES = ("ok", "dead", "not finite")


class _Settings(TypedDict):
    size: Annotated[int, Meta(ge=1, le=4096)]
    batch_size: Positive


class _Similarity(TypedDict):
    what: str
    pairs: Count
    random: float
    shuffled: float | None


class _Document(TypedDict):
    model: str
    layer: str
    grid: Annotated[int, Meta(ge=1, le=10_000)]
    channels: Annotated[int, Meta(ge=1, le=64)]
    cells: list[Cell]
    likeness: list[_Similarity]
    settings: _Settings
    provenance: dict[str, Any]


_ARRAYS = {
    "xy": Expected("real", ("samples", 2), 0, 1),
    "images": Expected("whole", ("samples",), 0),
    "positions": Expected("whole", ("samples", 2), 0),
    "numbers": Expected("whole", ("samples",), 0),
    "directions": Expected("real", ("cells", "units")),
    "drawn": Expected("real", ("cells", "units")),
}
_MOST_VALUES = 1 << 29
"""Values of all icons together: 2 GB. They are allocated before their files are read."""
_ATLASES = Stored(
    "an atlas",
    "Delete it and make the atlas again, or give another folder",
    schema=SCHEMA,
    mark={"what": "activation atlas"},
    shape=_Document,
)


def load_atlas(store: str | os.PathLike[str]) -> Atlas:
    """The atlas that `activation_atlas(..., store=...)` or `save_atlas` wrote; icons of a stopped run are "missing".

    Raises:
        CircuitsError: no atlas there, of another schema, or damaged; says which file.
    """
    folder = Path(store)
    atlas = _read(folder)
    if atlas is None:
        raise CircuitsError(f"{named(folder)} holds no atlas: there is no {INDEX}")
    return atlas


def save_atlas(atlas: Atlas, store: str | os.PathLike[str]) -> None:
    """Write an atlas into a folder, which is created if need be.

    Raises:
        CircuitsError: nothing can be written there, or another atlas lies there.
    """
    folder = Path(store)
    if reopened(folder, atlas.settings) is None:
        begin(folder, atlas)
    most = int(atlas.settings["batch_size"])
    for number, start in enumerate(range(0, len(atlas.cells), most)):
        statuses = atlas.statuses[start : start + most]
        if "missing" not in statuses:
            write_icons(folder, number, atlas.icons[start : start + most], statuses)


def reopened(folder: Path, settings: Mapping[str, Any]) -> Atlas | None:
    """The atlas of a folder that a call resumes; None where there is none.

    Raises:
        CircuitsError: it was made with other settings, is damaged, or nothing can be written there.
    """
    _ATLASES.check_writable(folder)
    atlas = _read(folder)
    if atlas is None:
        return None
    before = atlas.settings
    for name in [*settings, *before]:
        if before.get(name) != settings.get(name):
            raise CircuitsError(
                f"{named(folder)} holds an atlas with {name} {shorten(before.get(name), 60)}, not "
                f"{shorten(settings.get(name), 60)}: give what it was made with, or another folder, or begin "
                "anew (--replace)"
            )
    tidy(folder)
    return atlas


def begin(folder: Path, atlas: Atlas) -> None:
    """Write everything but the icons."""
    tensors = {
        "xy": torch.from_numpy(atlas.xy),
        "images": torch.from_numpy(atlas.images),
        "positions": torch.from_numpy(atlas.positions),
        "numbers": torch.from_numpy(atlas.numbers),
        "directions": atlas.directions.contiguous(),
        "drawn": atlas.icon_directions.contiguous(),
    }
    for old in folder.glob("icons-*.safetensors"):
        old.unlink()
    _ATLASES.write_tensors(folder / ARRAYS, tensors)
    document = {
        "schema": SCHEMA,
        "what": "activation atlas",
        "model": atlas.model,
        "layer": atlas.layer,
        "grid": atlas.grid,
        "channels": int(atlas.icons.shape[1]),
        "cells": [
            {**vars(c), "examples": [{**vars(e), "position": list(e.position), "box": list(e.box)} for e in c.examples]}
            for c in atlas.cells
        ],
        "likeness": [s.describe() for s in atlas.similarity],
        "settings": dict(atlas.settings),
        "provenance": dict(atlas.provenance),
    }
    # last: where the index is, all that it names is there too
    _ATLASES.write_json(folder / INDEX, document)


def files_of(folder: Path) -> list[str]:
    """Names of the files there that belong to an atlas; none where there is no atlas."""
    try:
        document = _ATLASES.read_document(folder / INDEX)
    except CircuitsError:
        return []  # what it is comes to light when it is read
    return [] if document is None else [INDEX, ARRAYS, *(path.name for path in folder.glob("icons-*.safetensors"))]


def write_icons(folder: Path, number: int, icons: Tensor, statuses: Sequence[str]) -> None:
    """Write a batch of icons."""
    tensors = {
        "icons": icons.detach().cpu().contiguous(),
        "statuses": torch.tensor([_STATUSES.index(s) for s in statuses], dtype=torch.int64),
    }
    _ATLASES.write_tensors(folder / f"icons-{number:05d}.safetensors", tensors)


def _read(folder: Path) -> Atlas | None:
    path = folder / INDEX
    document = _ATLASES.read_document(path)
    if document is None:
        return None
    data = with_current_keys(document)
    arrays = _ATLASES.read_tensors(folder / ARRAYS, expected=_ARRAYS, sizes={"cells": len(data["cells"])})
    with _ATLASES.parsing(path):
        cells: tuple[Cell, ...] = fits(data["cells"], tuple[Cell, ...])
        settings = dict(data["settings"])
        side, channels, grid = settings["size"], data["channels"], data["grid"]
        if len(cells) * channels * side * side > _MOST_VALUES:
            raise ValueError(f"{len(cells)} icons of {side} pixels a side")
        if any(max(cell.row, cell.column) >= grid for cell in cells) or (arrays["numbers"] >= grid * grid).any():
            raise ValueError(f"there are cells outside of a grid of {grid} a side")
        atlas = Atlas(
            model=str(data["model"]),
            layer=str(data["layer"]),
            grid=grid,
            xy=arrays["xy"].numpy(),
            images=arrays["images"].numpy(),
            positions=arrays["positions"].numpy(),
            numbers=arrays["numbers"].numpy(),
            cells=cells,
            directions=arrays["directions"],
            icon_directions=arrays["drawn"],
            icons=torch.zeros(len(cells), channels, side, side),
            statuses=("missing",) * len(cells),
            similarity=tuple(_similarity(entry) for entry in data["likeness"]),
            settings=settings,
            provenance=dict(data["provenance"]),
        )
        most = settings["batch_size"]
    return _with_icons(folder, atlas, most)


def _with_icons(folder: Path, atlas: Atlas, most: int) -> Atlas:
    icons, statuses = atlas.icons, list(atlas.statuses)
    for number, start in enumerate(range(0, len(atlas.cells), most)):
        path = folder / f"icons-{number:05d}.safetensors"
        if not path.is_file():
            continue
        shape = tuple(icons[start : start + most].shape)
        expected = {
            "icons": Expected("real", shape, 0, 1),
            "statuses": Expected("whole", shape[:1], 0, len(_STATUSES) - 1),
        }
        tensors = _ATLASES.read_tensors(path, expected=expected)
        icons[start : start + most] = tensors["icons"]
        statuses[start : start + most] = [_STATUSES[int(s)] for s in tensors["statuses"]]
    return replace(atlas, icons=icons, statuses=tuple(statuses))


def _similarity(data: Mapping[str, Any]) -> NeighborSimilarity:
    return NeighborSimilarity(
        str(data["what"]), data["neighbors"], data["random"], data["shuffled"], int(data["pairs"])
    )
