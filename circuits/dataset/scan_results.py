"""What a scan found: for each unit how often and how strongly it fires, and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuits.common.examples import Example
from circuits.dataset.reservoir import NO_IMAGE, Arrays, Ints, KeepByStrength
from circuits.dataset.scan_store import (
    IMAGES,
    LAYERS,
    SAMPLES,
    SCANS,
    StoreError,
    check_file,
    folder_of,
    models_in,
    read_manifest,
)
from circuits.dataset.streaming_statistics import Plan, drawn_places, edges, whose
from circuits.errors import AddressError, ImageError, did_you_mean, shorten
from circuits.network.address import Unit
from zoo.common.stored import named
from zoo.images.sources import Images, open_images, reopen
from zoo.inputs import InputSpec

QUANTILES = (0.5, 0.75, 0.9, 0.99, 0.999)
"""Shares of the positions where a unit fires, at which bands part."""


@dataclass(frozen=True)
class Band:
    """A range of responses, and places where the unit responds that strongly.

    Attributes:
        low, high: from `low` up to, not with, `high` (the last band: with it).
        share: of the positions where the unit fires, how many lie in it.
        examples: drawn by lot among one firing place and the strongest place of every picture.
    """

    low: float
    high: float
    share: float
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class UnitScan:
    """What a scan found of one unit. A unit fires where its response is above zero.

    Attributes:
        unit: address.
        positions: how many were looked at; images: in so many pictures.
        density: share of the positions where it fires; fires_on: number of pictures on which it does anywhere.
        maximum, minimum: of its response, before the rectifier where the layer ends in one.
        mean: of the response behind the rectifier; mean_if_on: over the positions where it fires.
        edges: `(bins + 1,)` of the histogram, from the most negative response to the strongest.
        counts: `(bins,)` positions in each bin.
        zeros: positions of a response smaller than any bin: zero, but for rounding.
        quantiles: share of the firing positions -> response (from the histogram: off by less than its bins are wide).
        bands: ranges between these quantiles, rounded to powers of two and once and a half these.
        top: pictures with the strongest responses; random: places where it fires; near_zero, most_negative.
        classes: label -> how many of the top pictures bear it, most first; empty without labels.
        signed: whether responses were read before the rectifier, so that there are negative ones.
    """

    unit: str
    positions: int
    images: int
    density: float
    fires_on: int
    maximum: float
    minimum: float
    mean: float
    mean_if_on: float
    edges: NDArray[np.float64]
    counts: Ints
    zeros: int
    quantiles: Mapping[float, float]
    bands: tuple[Band, ...]
    top: tuple[Example, ...]
    random: tuple[Example, ...]
    near_zero: tuple[Example, ...]
    most_negative: tuple[Example, ...]
    classes: Mapping[str, int]
    signed: bool

    def describe(self, examples: int | None = None) -> dict[str, Any]:
        """Ready for JSON, with at most so many examples of a kind."""
        numbers = ("unit", "positions", "images", "density", "fires_on", "maximum", "minimum", "mean", "mean_if_on")
        return {
            **{name: getattr(self, name) for name in numbers},
            "zeros": self.zeros,
            "signed": self.signed,
            "histogram": {"edges": self.edges.tolist(), "counts": self.counts.tolist()},
            "quantiles": {str(q): v for q, v in self.quantiles.items()},
            "bands": [
                {"low": b.low, "high": b.high, "share": b.share, "examples": _plain(b.examples[:examples])}
                for b in self.bands
            ],
            **{
                name: _plain(getattr(self, name)[:examples]) for name in ("top", "random", "near_zero", "most_negative")
            },
            "classes": dict(self.classes),
        }


def _plain(examples: tuple[Example, ...]) -> list[dict[str, Any]]:
    return [
        {"image": e.image, "id": e.id, "position": list(e.position), "value": e.value, "box": list(e.box)}
        for e in examples
    ]


@dataclass(frozen=True)
class Samples:
    """Responses of all units of a layer at the same places, drawn by lot.

    Two scans of the same pictures with the same seed drew the same places, as shares of the picture: rows of one
    layer belong to rows of the other, also where they are layers of two models.

    Attributes:
        values: `(samples, units)` responses, before the rectifier where the layer ends in one.
        images: index of each sample's picture; down, across: its place, as shares of height and width.
    """

    values: NDArray[np.float32]
    images: Ints
    down: NDArray[np.float64]
    across: NDArray[np.float64]


@dataclass(frozen=True)
class LayerScan:
    """What a scan found of all units of a layer; `unit` gives one.

    Attributes:
        name: of the layer; model: of its model; size: height and width of its map.
        signed: see `UnitScan`.
    """

    name: str
    model: str
    size: tuple[int, int]
    signed: bool
    input: tuple[int, int]
    arrays: Arrays = field(repr=False)
    ids: tuple[str, ...] = field(repr=False)
    labels: tuple[str, ...] | None = field(repr=False)
    plan: Plan = field(repr=False)

    def __len__(self) -> int:
        return len(self.arrays["fires_on"])

    @property
    def positions(self) -> int:
        """How many positions of each unit were looked at."""
        return int(self.arrays["images"][0]) * self.size[0] * self.size[1]

    @cached_property
    def density(self) -> NDArray[np.float64]:
        """Share of the positions where each unit fires, `(units,)`."""
        return np.asarray(self._firing / self.positions)

    @cached_property
    def _firing(self) -> Ints:
        return np.asarray(self.arrays["counts"][:, 0].sum(axis=1))

    @property
    def maximum(self) -> NDArray[np.float32]:
        """Strongest response of each unit, `(units,)`."""
        return self.arrays["top.value"][:, 0]

    @property
    def fires_on(self) -> Ints:
        """Number of pictures on which each unit fires, `(units,)`."""
        return self.arrays["fires_on"]

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """Mean response of each unit behind its rectifier, `(units,)`."""
        return np.asarray(self.arrays["total"] / self.positions)

    @cached_property
    def mean_if_on(self) -> NDArray[np.float64]:
        """Mean response of each unit where it fires, `(units,)`; zero for one that never does."""
        return np.asarray(self.arrays["total"] / np.maximum(self._firing, 1))

    def unit(self, index: int) -> UnitScan:
        """One unit.

        Raises:
            AddressError: there is none of that number.
        """
        if not 0 <= index < len(self):
            raise AddressError(f"{self.model}/{self.name} has {len(self)} units (0 to {len(self) - 1}), no {index}")
        positive, negative = self.arrays["counts"][index]
        first = int(self.arrays["first_bin"][0])
        ends = edges()[first : first + len(positive) + 1]
        firing = int(positive.sum())
        maximum, minimum = float(self.maximum[index]), float(self.arrays["lowest.value"][index, 0])
        quantiles = {q: _quantile(positive, np.minimum(ends, maximum), q) for q in QUANTILES} if firing else {}
        tiny = int(self.arrays["tiny"][index])
        top = self._examples(index, "top", above=0.0 if self.size != (1, 1) else None)
        return UnitScan(
            unit=str(Unit(self.name.partition("~")[0], index, self.model, self.name.partition("~")[2] or None)),
            positions=self.positions,
            images=int(self.arrays["images"][0]),
            density=firing / self.positions,
            fires_on=int(self.fires_on[index]),
            maximum=maximum,
            minimum=minimum,
            mean=float(self.mean[index]),
            mean_if_on=float(self.mean_if_on[index]),
            edges=np.concatenate([-ends[::-1], ends]),
            counts=np.concatenate([negative[::-1], [tiny], positive]),
            zeros=tiny,
            quantiles=quantiles,
            bands=self._bands(index, positive, ends, quantiles, maximum),
            top=top,
            random=self._examples(index, "random"),
            near_zero=self._examples(index, "near"),
            most_negative=self._examples(index, "lowest", below=0.0),
            classes={} if self.labels is None else dict(Counter(self.labels[e.image] for e in top).most_common()),
            signed=self.signed,
        )

    def _bands(
        self, index: int, counts: Ints, ends: NDArray[Any], quantiles: Mapping[float, float], high: float
    ) -> tuple[Band, ...]:
        """Bands between quantiles, each of them moved to the nearest step of `KeepByStrength`."""
        steps = KeepByStrength.edges()
        inner = [int(np.abs(np.log2(steps[1:]) - np.log2(v)).argmin()) + 1 for v in quantiles.values()]
        last = int(KeepByStrength.step(np.array(high))) + 1
        parts = [0, *sorted({step for step in inner if step < last}), last]
        step_of_bin = KeepByStrength.step(ends[:-1])
        made = []
        for begin, end in zip(parts, parts[1:], strict=False):
            inside = int(counts[(step_of_bin >= begin) & (step_of_bin < end)].sum())
            if inside:
                top = float(steps[end]) if end < last else high
                share = inside / int(counts.sum())
                value, image, place = self._by_strength.between(begin, end, index, self.plan.per_band)
                made.append(Band(float(steps[begin]), top, share, self._made(index, image, value, place)))
        return tuple(made)

    @cached_property
    def _by_strength(self) -> KeepByStrength:
        kept = KeepByStrength(0, self.plan.per_band)
        kept.load("bands", self.arrays)
        return kept

    def _examples(
        self, index: int, name: str, *, above: float | None = None, below: float | None = None
    ) -> tuple[Example, ...]:
        image, value, place = (self.arrays[f"{name}.{n}"][index] for n in ("image", "value", "place"))
        there = image != NO_IMAGE
        if above is not None:
            there &= value > above
        if below is not None:
            there &= value < below
        return self._made(index, image[there], value[there], place[there])

    def _made(self, index: int, images: Ints, values: NDArray[Any], places: Ints) -> tuple[Example, ...]:
        fields = self.arrays["field"][self.arrays["field_of"][index]]
        rows = zip(images.tolist(), values.tolist(), places.tolist(), strict=True)
        return tuple(
            Example(i, self.ids[i], divmod(p, self.size[1]), v, self._box(fields, *divmod(p, self.size[1])))
            for i, v, p in rows
        )

    def _box(self, field: Ints, y: int, x: int) -> tuple[int, int, int, int]:
        from circuits.network.graph import ReceptiveField

        if field[0] < 0:
            return (0, 0, *self.input)
        a, b, c, d, e, f = (int(v) for v in field)
        return ReceptiveField((a, b), (c, d), (e, f)).box(y, x, within=self.input)


def _quantile(counts: Ints, ends: NDArray[Any], share: float) -> float:
    """The response below which a share of the positions lies, straight within its bin."""
    cumulated = counts.cumsum()
    wanted = share * cumulated[-1]
    at = int(np.searchsorted(cumulated, wanted))
    before = cumulated[at - 1] if at else 0
    within = (wanted - before) / max(int(counts[at]), 1)
    return float(ends[at] + (ends[at + 1] - ends[at]) * within)


class Scan:
    """A finished scan, read from its store as it is asked; every file is checked against the manifest's digests.

    Attributes:
        folder: where it lies; manifest: what it says of itself.
        model: name; count: of pictures; ids: their names; labels: class names, one per picture, or None.
        layers: layer name -> number of units.
        waited, seconds: of the scan just made, how long it waited for pictures, and how long it took in all.
    """

    def __init__(self, folder: Path, *, waited: float = 0.0, seconds: float = 0.0) -> None:
        manifest = read_manifest(folder)
        if manifest is None:
            raise StoreError(f"{named(folder)} holds no finished scan; make one with circuits scan")
        self.folder, self.manifest = folder, manifest
        self.waited, self.seconds = waited, seconds
        self.model, self.count = str(manifest["model"]), int(manifest["count"])
        try:
            self.plan = Plan(**manifest["plan"])
            self.layers = {str(name): int(about["units"]) for name, about in manifest["layers"].items()}
        except (TypeError, KeyError, ValueError) as error:
            raise SCANS.damaged(folder, str(error)) from error
        pictures = SCANS.read_json(check_file(folder, IMAGES, manifest["files"]))
        self.ids = tuple(pictures["ids"])
        self.labels = None if pictures["labels"] is None else tuple(pictures["labels"])
        self._read: dict[str, LayerScan] = {}

    def __repr__(self) -> str:
        return f"Scan({self.model!r}, {len(self.layers)} layers, {self.count} pictures of {self.images!r})"

    @property
    def images(self) -> str:
        """Name of the set of pictures."""
        return str(self.manifest["images"]["name"])

    @property
    def input_spec(self) -> InputSpec:
        """How the model was fed."""
        said: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in self.manifest["input"].items()}
        return InputSpec(**said)

    def pictures(self, images: Any = None, *, check: bool = True) -> Images:
        """The pictures that were scanned, opened again; `images` where they lie elsewhere by now.

        Args:
            images: where they are, if not where they were.
            check: read them all, to see whether they are the same; else their names must do.

        Raises:
            StoreError: they are not where they were, were changed, or were only in memory; or `images` are others.
        """
        origin = self.manifest["images"].get("origin")
        if images is None and origin is None:
            raise StoreError(f"the pictures of {named(self.folder)} were given in memory: give them again (images=)")
        try:
            found = reopen(origin) if images is None else open_images(images)
            same = tuple(found.ids) == self.ids
            same = same and (not check or found.digest == self.manifest["images"]["digest"])
        except ImageError as error:
            raise StoreError(f"the pictures of {named(self.folder)} cannot be opened: {error}") from error
        if not same:
            raise StoreError(
                f"{shorten(found.name)} does not hold the pictures of {named(self.folder)}, or not as they were "
                f"({len(found)} now, {self.count} then)"
            )
        return found

    def layer(self, name: str) -> LayerScan:
        """What was found of a layer.

        Raises:
            AddressError: it was not scanned. StoreError: its file is missing or damaged.
        """
        if name not in self._read:
            about = self._about(name)
            path = check_file(self.folder, f"{LAYERS}/{name}.safetensors", self.manifest["files"])
            self._read[name] = LayerScan(
                name=name,
                model=self.model,
                size=(int(about["size"][0]), int(about["size"][1])),
                signed=bool(about["signed"]),
                input=self.input_spec.hw,
                arrays=SCANS.read_tensors(path, framework="numpy"),
                ids=self.ids,
                labels=self.labels,
                plan=self.plan,
            )
        return self._read[name]

    def _about(self, name: str) -> Mapping[str, Any]:
        if name not in self.layers:
            hint = did_you_mean(name, self.layers)
            raise AddressError(f"the scan in {named(self.folder)} has no layer {shorten(name)!r}.{hint}")
        about: Mapping[str, Any] = self.manifest["layers"][name]
        return about

    def unit(self, address: str | Unit) -> UnitScan:
        """What was found of a unit, by its canonical address (`Model.unit` gives it).

        Raises:
            AddressError: of another model, of a layer that was not scanned, or a whole layer.
        """
        unit = address if isinstance(address, Unit) else Unit.parse(address)
        if unit.model not in (None, self.model):
            raise AddressError(f"{shorten(unit)} is a unit of {shorten(unit.model)}; this scan is of {self.model}")
        if unit.index is None:
            raise AddressError(f"{shorten(unit)} is a layer; name one of its units, for example {unit.short}:0")
        return self.layer(unit.space).unit(unit.index)

    def samples(self, layer: str) -> Samples:
        """Responses of all units of a layer at places drawn by lot.

        Raises:
            AddressError: it was not scanned. StoreError: its file is missing or damaged.
        """
        self._about(layer)
        arrays = SCANS.read_tensors(
            check_file(self.folder, f"{SAMPLES}/{layer}.safetensors", self.manifest["files"]), framework="numpy"
        )
        images, draws = whose(self.plan, arrays["ticket"])
        down, across = (v[np.arange(len(draws)), draws] for v in drawn_places(self.plan, images))
        return Samples(arrays["values"], images, down, across)


def read_scan(store: str | Path, model: str) -> Scan:
    """The finished scan of a model in a store.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    folder = folder_of(store, model)
    if read_manifest(folder) is None:
        there = models_in(store)
        known = f"; it has scans of {', '.join(there)}" if there else ""
        raise StoreError(
            f"the store {named(Path(store))} holds no finished scan of {shorten(model)}{known}. "
            f"Make one: circuits scan {shorten(model)} --images FOLDER --store {named(Path(store))}"
        )
    return Scan(folder)
