"""The files of a sweep: an index, and for each image a PNG and a safetensors file, each whole or not there."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as File
from typing import Annotated, Any, TypedDict

import torch
from msgspec import Meta

from circuits.common.examples import Example
from circuits.common.stored_keys import with_current_keys
from circuits.errors import VisualizationError
from circuits.network.address import Unit
from circuits.visualization.result import PNG_CHANNELS, Evidence, Path, Visualization
from zoo.common.files import write_atomically
from zoo.common.reading import Count, Expected, Positive, check_arrays
from zoo.common.results import plain
from zoo.common.stored import Stored

Pixels = Annotated[int, Meta(ge=1, le=1 << 15)]
"""Height or width of an image."""
SCHEMA = 1
INDEX = "index.json"


class _Example(TypedDict):
    image: Count
    id: str
    position: tuple[Count, Count]
    value: float | None
    box: tuple[int, int, int, int]


_Response = TypedDict("_Response", {"picture": float | None})  # noqa: UP013 - a key of files, which is no name here


_InputSize = TypedDict("_InputSize", {"shown": tuple[Pixels, Pixels]})  # noqa: UP013 - a key of files, which is no name here


class _Step(_Response):
    layer: str
    natural: float | None
    others: float | None


class _Evidence(TypedDict):
    images: str
    count: Count
    percentile: float | None
    strongest: float | None
    examples: list[_Example]
    path: list[_Step]


class _Entry(_InputSize):
    unit: str
    variant: Count
    size: tuple[Pixels, Pixels]
    response: float | None
    peak: float | None
    transformed: float | None
    history: list[float | None]
    status: str
    optimum: str
    channels: Annotated[int, Meta(ge=1, le=64)]
    steps: Count
    seed: Count
    weights: str
    evidence: _Evidence | None


class _Index(TypedDict):
    model: str
    weights: str
    settings: dict[str, Any]
    provenance: dict[str, Any]
    evidence: dict[str, Any] | None
    batch_size: Positive
    results: list[_Entry]


SWEEPS = Stored(
    "the index of a sweep",
    "Delete it and run the sweep again, or give another folder",
    VisualizationError,
    SCHEMA,
    shape=_Index,
)
_LONGEST = 180
"""Bytes of a file's name before its number: file systems take 255 bytes, temporary names need some."""


def file_name(unit: str | Unit, variant: int = 0) -> str:
    """The name, without its suffix, of the files of a unit: of any two different units and variants different ones.

    No part of it needs quoting in a shell or a URL where layers and bases do not. The model is not part of it.

    >>> file_name("scenes/mixed4a:11", 1), file_name("scenes/mixed4a~sae:7"), file_name("mixed4a:11@3,5")
    ('mixed4a-39.1', 'mixed4a+sae-7', 'mixed4a-39@3,5')
    """
    unit = unit if isinstance(unit, Unit) else Unit.parse(unit)
    if unit.index is None:
        raise VisualizationError(f"{unit} is a layer; a file holds one of its units, for example {unit.short}:0")
    # "+", "@" and "," are in no layer's and no basis's name, and after the last "-" there are numbers only
    name = unit.layer if unit.basis is None else f"{unit.layer}+{unit.basis}"
    name += f"-{unit.index}"
    if unit.at is not None:
        name += f"@{unit.at[0]},{unit.at[1]}"
    if len(name.encode()) > _LONGEST:
        name = f"{name.encode()[:120].decode(errors='ignore')}={hashlib.sha256(name.encode()).hexdigest()[:32]}"
    return f"{name}.{variant}" if variant else name


@dataclass
class Index:
    """The index of a store.

    Attributes:
        head: schema, model, weights, settings, batch_size, evidence (of which images) and provenance.
        results: those finished, in the order of the call; without pixels when they were read.
    """

    head: dict[str, Any]
    results: list[Visualization] = field(default_factory=list)

    def write(self, folder: File) -> None:
        """Write it into the store."""
        entries = [{**plain(r.describe()), "file": f"{file_name(r.unit, r.variant)}.safetensors"} for r in self.results]
        SWEEPS.write_json(folder / INDEX, {**self.head, "results": entries})


def read_index(folder: File) -> Index | None:
    """The index of a store; None where there is none.

    Raises:
        VisualizationError: it is damaged, or of something else.
    """
    path = folder / INDEX
    document = SWEEPS.read_document(path)
    if document is None:
        return None
    with SWEEPS.parsing(path):
        data = with_current_keys(document)
        head = {k: data[k] for k in ("schema", "model", "weights", "settings", "evidence", "provenance", "batch_size")}
        return Index(head, [_read_entry(entry) for entry in data["results"]])


def files_of(folder: File) -> list[str]:
    """Names of the files there that belong to a sweep; none where there is no sweep."""
    try:
        index = read_index(folder)
    except VisualizationError:
        return []  # what it is comes to light when it is read
    names = [] if index is None else [file_name(result.unit, result.variant) for result in index.results]
    return [] if index is None else [INDEX, *(f"{name}{end}" for name in names for end in (".safetensors", ".png"))]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _pair(value: Any) -> tuple[int, int]:
    first, second = value
    return int(first), int(second)


def _read_entry(entry: Mapping[str, Any]) -> Visualization:
    file_name(str(entry["unit"]))  # an address, else no file can be named after it
    return Visualization(
        unit=str(entry["unit"]),
        variant=int(entry["variant"]),
        image=torch.empty(0, *_pair(entry["size"])),
        response=_number(entry["response"]),
        peak=_number(entry["peak"]),
        transformed=_number(entry["transformed"]),
        history=tuple(_number(v) for v in entry["history"]),
        status=str(entry["status"]),
        optimum=str(entry["optimum"]),
        channels=int(entry["channels"]),
        steps=int(entry["steps"]),
        input_size=_pair(entry["shown"]),
        seed=int(entry["seed"]),
        digest=str(entry["weights"]),
        evidence=None if entry["evidence"] is None else _read_evidence(entry["evidence"]),
    )


def _read_evidence(entry: Mapping[str, Any]) -> Evidence:
    examples = (
        Example(int(e["image"]), str(e["id"]), _pair(e["position"]), _number(e["value"]), _box(e["box"]))
        for e in entry["examples"]
    )
    path = (
        Path(str(p["layer"]), _number(p["picture"]), _number(p["natural"]), _number(p["others"])) for p in entry["path"]
    )
    numbers = (_number(entry["percentile"]), _number(entry["strongest"]))
    return Evidence(str(entry["images"]), int(entry["count"]), *numbers, tuple(examples), tuple(path))


def _box(value: Any) -> tuple[int, int, int, int]:
    top, left, bottom, right = (int(v) for v in value)
    return top, left, bottom, right


# -- the files of an image ------------------------------------------------------------------------------------------


def write_files(folder: File, result: Visualization, channels: int) -> None:
    """Write the files of an image; the PNG only where the model's `channels` are gray or colors."""
    name = file_name(result.unit, result.variant)
    tensors = {
        "picture": result.image,
        "history": torch.tensor(result.history, dtype=torch.float64),
        **{f"frame.{step}": frame for step, frame in result.frames.items()},
    }
    about = {k: v for k, v in plain(result.describe()).items() if k not in ("history", "evidence", "warning")}
    SWEEPS.write_tensors(folder / f"{name}.safetensors", tensors, {"schema": SCHEMA, **about})
    if (channels, len(result.image)) in PNG_CHANNELS:
        write_atomically(folder / f"{name}.png", lambda path: result.pil().save(path, format="PNG"))


def with_pixels(folder: File, result: Visualization) -> Visualization:
    """A result of the index with its image, history and frames.

    Raises:
        VisualizationError: the file is missing or damaged.
    """
    path = folder / f"{file_name(result.unit, result.variant)}.safetensors"
    pixels = Expected("real", ("channels", *result.image.shape[1:]), 0, 1, gaps=True)
    steps = Expected("real", (len(result.history),), gaps=True)
    tensors = SWEEPS.read_tensors(path, expected={"picture": pixels, "history": steps})
    with SWEEPS.parsing(path):
        image, history = tensors["picture"], tensors["history"]
        frames = {int(n.removeprefix("frame.")): t for n, t in tensors.items() if n.startswith("frame.")}
        check_arrays(tensors, {f"frame.{step}": replace(pixels, shape=tuple(image.shape)) for step in frames})
    ordered = dict(sorted(frames.items()))
    return replace(result, image=image, history=tuple(history.tolist()), frames=ordered)
