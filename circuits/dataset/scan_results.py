"""Results of a scan: for each unit how often and how strongly it is active, and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from circuits.common.examples import Example
from circuits.dataset.reservoir import NO_IMAGE, Arrays, Ints, KeepByStrength
from circuits.dataset.scan_store import (
    IMAGES,
    LAYERS,
    MANIFEST,
    SAMPLES,
    SCANS,
    StoreError,
    check_file,
    folder_of,
    models_in,
    read_manifest,
)
from circuits.dataset.streaming_statistics import Plan, edges, images_and_draws, sampled_positions
from circuits.errors import AddressError, ImageError, did_you_mean, in_shell, shorten
from circuits.network.address import Unit
from zoo.common.reading import Expected, fits
from zoo.common.results import HIDDEN, Drawable, Result, called, plain
from zoo.common.stored import named
from zoo.images.sources import Images, open_images, reopen
from zoo.networks.own import input_spec

KINDS = ("top", "lowest", "near", "random")
"""Prefixes of the arrays that hold the examples of a unit."""
QUANTILES = (0.5, 0.75, 0.9, 0.99, 0.999)
"""Shares of the positions where a unit is active, that separate the bands."""


class _Names(TypedDict):
    ids: list[str]
    labels: list[str] | None


@dataclass(frozen=True)
class Band:
    """A range of responses, and positions where the unit responds that strongly.

    Attributes:
        low, high: from `low` up to, not with, `high` (the last band: with it).
        share: of the positions where the unit is active, how many lie in it.
        examples: sampled at random among one firing position and the strongest position of every image.
    """

    low: float
    high: float
    share: float
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class UnitScan(Result):
    """Statistics and examples of one unit. A unit is active where its response is above zero.

    Attributes:
        unit: address.
        positions: how many there were; images: in so many images.
        density: share of the positions where it is active; active_images: number of images with any such position.
        maximum, minimum: of its response, before the ReLU where the layer ends in one.
        mean: of the response after the ReLU; mean_if_on: over the positions where it is active.
        edges: `(bins + 1,)` of the histogram, from the most negative response to the strongest.
        counts: `(bins,)` positions in each bin.
        zeros: positions of a response smaller than any bin: zero, but for rounding.
        quantiles: share of the firing positions -> response (from the histogram: off by less than its bins are wide).
        bands: ranges between these quantiles, rounded to powers of two and once and a half these.
        top: images with the strongest responses; random: positions where it is active; near_zero, most_negative.
        classes: label -> how many of the top images bear it, most first; empty without labels.
        signed: whether responses were read before the ReLU, so that there are negative ones.
    """

    unit: str
    positions: int
    images: int
    density: float
    active_images: int = field(metadata=called("fires_on"))
    maximum: float
    minimum: float
    mean: float
    mean_if_on: float
    edges: NDArray[np.float64] = field(metadata=HIDDEN)
    counts: Ints = field(metadata=HIDDEN)
    zeros: int
    quantiles: Mapping[float, float]
    bands: tuple[Band, ...]
    top: tuple[Example, ...]
    random: tuple[Example, ...]
    near_zero: tuple[Example, ...]
    most_negative: tuple[Example, ...]
    classes: Mapping[str, int]
    signed: bool

    def over_range(self, count: int) -> tuple[Example, ...]:
        """Examples of the whole range of activation, strongest first: from each band in turn, an image once.

        The top activating images show what a unit is at its best; what it is at middling strength may be another thing.

        Args:
            count: at most so many.
        """
        chosen: dict[int, Example] = {}
        for row in zip_longest(*(band.examples for band in reversed(self.bands))):
            for example in row:
                if example is not None and len(chosen) < count:
                    chosen.setdefault(example.image, example)
        return tuple(sorted(chosen.values(), key=lambda example: -example.value))

    def describe(self, examples: int | None = None) -> dict[str, Any]:
        """Ready for JSON, with at most so many examples of a kind."""
        kinds = ("top", "random", "near_zero", "most_negative")
        bands = [plain(replace(band, examples=band.examples[:examples])) for band in self.bands]
        histogram = {"edges": self.edges.tolist(), "counts": self.counts.tolist()}
        cut = {kind: plain(getattr(self, kind)[:examples]) for kind in kinds}
        return super().describe() | {"histogram": histogram, "bands": bands} | cut


@dataclass(frozen=True)
class Samples:
    """Responses of all units of a layer at the same positions, sampled at random.

    Two scans of the same images with the same seed drew the same positions, as shares of the image: rows of one
    layer belong to rows of the other, also where they are layers of two models.

    Attributes:
        values: `(samples, units)` responses, before the ReLU where the layer ends in one.
        images: index of each sample's image; down, across: its position, as shares of height and width.
    """

    values: NDArray[np.float32]
    images: Ints
    down: NDArray[np.float64]
    across: NDArray[np.float64]


@dataclass(frozen=True)
class LayerScan:
    """Statistics of all units of a layer; `unit` gives one.

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
        """How many positions of each unit were counted."""
        return int(self.arrays["images"][0]) * self.size[0] * self.size[1]

    @cached_property
    def density(self) -> NDArray[np.float64]:
        """Share of the positions where each unit is active, `(units,)`."""
        return np.asarray(self._firing / self.positions)

    @cached_property
    def _firing(self) -> Ints:
        return np.asarray(self.arrays["counts"][:, 0].sum(axis=1))

    @property
    def maximum(self) -> NDArray[np.float32]:
        """Strongest response of each unit, `(units,)`."""
        return self.arrays["top.value"][:, 0]

    @property
    def active_images(self) -> Ints:
        """Number of images on which each unit is active, `(units,)`."""
        return self.arrays["fires_on"]

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """Mean response of each unit after its ReLU, `(units,)`."""
        return np.asarray(self.arrays["total"] / self.positions)

    @cached_property
    def mean_if_on(self) -> NDArray[np.float64]:
        """Mean response of each unit where it is active, `(units,)`; zero for one that never does."""
        return np.asarray(self.arrays["total"] / np.maximum(self._firing, 1))

    @cached_property
    def selectivity(self) -> NDArray[np.float64]:
        """Selectivity of each unit, `(units,)` in [0, 1].

        With class labels: the largest share of one class among its top activating images. Without: 1 minus the ratio of
        its mean activation where active to its maximum; near 1 for a unit that rarely comes close to its maximum.
        """
        images, values = self.arrays["top.image"], self.arrays["top.value"]
        valid = (images != NO_IMAGE) & (values > 0)
        if self.labels is None:
            strongest = np.maximum(self.maximum.astype(np.float64), 1e-30)
            return np.where(valid[:, 0], 1 - np.clip(self.mean_if_on / strongest, 0, 1), 0.0)
        classes, codes = np.unique(np.asarray(self.labels), return_inverse=True)
        counts = np.zeros((len(images), len(classes)))
        rows, columns = np.nonzero(valid)
        np.add.at(counts, (rows, codes[images[rows, columns]]), 1)
        return np.asarray(counts.max(axis=1) / np.maximum(counts.sum(axis=1), 1))

    @property
    def most_selective(self) -> int:
        """The most selective unit among those that are active on at least ten images, or on as many as any unit is."""
        often = self.active_images >= min(10, int(self.active_images.max(initial=0)))
        return int(np.where(often, self.selectivity, -1.0).argmax())

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
            active_images=int(self.active_images[index]),
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
        bands = []
        for begin, end in zip(parts, parts[1:], strict=False):
            inside = int(counts[(step_of_bin >= begin) & (step_of_bin < end)].sum())
            if inside:
                top = float(steps[end]) if end < last else high
                share = inside / int(counts.sum())
                value, image, position = self._by_strength.between(begin, end, index, self.plan.per_band)
                bands.append(Band(float(steps[begin]), top, share, self._as_examples(index, image, value, position)))
        return tuple(bands)

    @cached_property
    def _by_strength(self) -> KeepByStrength:
        reservoir = KeepByStrength(0, self.plan.per_band)
        reservoir.load("bands", self.arrays)
        return reservoir

    def _examples(
        self, index: int, name: str, *, above: float | None = None, below: float | None = None
    ) -> tuple[Example, ...]:
        image, value, position = (self.arrays[f"{name}.{n}"][index] for n in ("image", "value", "place"))
        filled = image != NO_IMAGE
        if above is not None:
            filled &= value > above
        if below is not None:
            filled &= value < below
        return self._as_examples(index, image[filled], value[filled], position[filled])

    def _as_examples(self, index: int, images: Ints, values: NDArray[Any], positions: Ints) -> tuple[Example, ...]:
        fields = self.arrays["field"][self.arrays["field_of"][index]]
        rows = zip(images.tolist(), values.tolist(), positions.tolist(), strict=True)
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
    rank = share * cumulated[-1]
    at = int(np.searchsorted(cumulated, rank))
    before = cumulated[at - 1] if at else 0
    within = (rank - before) / max(int(counts[at]), 1)
    return float(ends[at] + (ends[at + 1] - ends[at]) * within)


class Scan(Drawable):
    """A finished scan, read from its store on demand; every file is checked against the manifest's digests.

    Attributes:
        folder: where it lies; manifest: its description: settings, digests.
        model: name; count: of images; ids: their names; labels: class names, one per image, or None.
        layers: layer name -> number of units; input_spec: how the model was fed.
        waited, seconds: of the scan just made, how long it waited for images, and how long it took in all.
    """

    def __init__(self, folder: Path, *, waited: float = 0.0, seconds: float = 0.0) -> None:
        manifest = read_manifest(folder)
        if manifest is None:
            raise StoreError(f"{named(folder)} holds no finished scan; make one with circuits scan")
        self.folder, self.manifest = folder, manifest
        self.waited, self.seconds = waited, seconds
        self.model, self.count = str(manifest["model"]), int(manifest["count"])
        self.layers: dict[str, int] = {name: about["units"] for name, about in manifest["layers"].items()}
        path = check_file(folder, IMAGES, manifest["files"])
        images = SCANS.read_json(path)
        with SCANS.parsing(folder / MANIFEST):
            self.plan, self.input_spec = Plan(**manifest["plan"]), input_spec(manifest["input"], "the scan")
        with SCANS.parsing(path):
            fits(images, _Names)
            self.ids: tuple[str, ...] = tuple(images["ids"])
            self.labels: tuple[str, ...] | None = None if images["labels"] is None else tuple(images["labels"])
            if {len(self.ids), len(self.labels or self.ids)} != {self.count}:
                raise ValueError(f"{len(self.ids)} names of {self.count} images")
        self._read: dict[str, LayerScan] = {}

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: one for each layer."""
        rows = []
        for name, units in self.layers.items():
            density = self.layer(name).density
            silent, median = int((density == 0).sum()), float(np.median(density))
            rows.append({"layer": name, "units": units, "silent": silent, "median_density": median})
        return rows

    def __repr__(self) -> str:
        return f"Scan({self.model!r}, {len(self.layers)} layers, {self.count} images of {self.image_source!r})"

    @property
    def image_source(self) -> str:
        """Name of the set of images."""
        return str(self.manifest["images"]["name"])

    def images(self, images: Any = None, *, check: bool = True) -> Images:
        """The images that were scanned, opened again; `images` where they lie elsewhere by now.

        Args:
            images: where they are, if not where they were.
            check: read them all, to see whether they are the same; else their names must do.

        Raises:
            StoreError: they are not where they were, were changed, or were only in memory; or `images` are others.
        """
        origin = self.manifest["images"].get("origin")
        if images is None and origin is None:
            raise StoreError(f"the images of {named(self.folder)} were given in memory: give them again (images=)")
        try:
            dataset = reopen(origin) if images is None else open_images(images)
            same = tuple(dataset.ids) == self.ids
            same = same and (not check or dataset.digest == self.manifest["images"]["digest"])
        except ImageError as error:
            raise StoreError(f"the images of {named(self.folder)} cannot be opened: {error}") from error
        if not same:
            raise StoreError(
                f"{shorten(dataset.name)} does not hold the images of {named(self.folder)}, or not as they were "
                f"({len(dataset)} now, {self.count} then)"
            )
        return dataset

    def layer(self, name: str) -> LayerScan:
        """Statistics of all units of a layer.

        Raises:
            AddressError: it was not scanned. StoreError: its file is missing or damaged.
        """
        if name not in self._read:
            about = self._about(name)
            path = check_file(self.folder, f"{LAYERS}/{name}.safetensors", self.manifest["files"])
            self._read[name] = LayerScan(
                name=name,
                model=self.model,
                size=(about["size"][0], about["size"][1]),
                signed=about["signed"],
                input=self.input_spec.hw,
                arrays=self._arrays(path, about),
                ids=self.ids,
                labels=self.labels,
                plan=self.plan,
            )
        return self._read[name]

    def _arrays(self, path: Path, about: Mapping[str, Any]) -> Arrays:
        units, positions = about["units"], about["size"][0] * about["size"][1]
        expected = {
            **{f"{name}.value": Expected("real", (units, f"slots of {name}")) for name in KINDS},
            **{f"{name}.place": Expected("whole", (units, f"slots of {name}"), 0, positions - 1) for name in KINDS},
            **{
                f"{name}.image": Expected("whole", (units, f"slots of {name}"), NO_IMAGE, self.count - 1)
                for name in KINDS
            },
            **KeepByStrength.expected("bands", units, self.count, positions),
            **{name: Expected("whole", (units,), 0) for name in ("tiny", "fires_on", "field_of")},
            "counts": Expected("whole", (units, 2, "bins"), 0),
            "first_bin": Expected("whole", (1,), 0, len(edges()) - 2),
            "total": Expected("real", (units,), 0),
            "images": Expected("whole", (1,), 1, self.count),
            "field": Expected("whole", ("fields", 6)),
        }
        arrays = SCANS.read_tensors(path, framework="numpy", expected=expected)
        with SCANS.parsing(path):
            bins, fields = arrays["counts"].shape[2], len(arrays["field"])
            if arrays["first_bin"][0] + bins >= len(edges()) or (units and arrays["field_of"].max() >= fields):
                raise ValueError(f"it has {bins} bins and {fields} receptive fields")
        return arrays

    def _about(self, name: str) -> Mapping[str, Any]:
        if name not in self.layers:
            hint = did_you_mean(name, self.layers)
            if "~" in name:
                hint = " `circuits sae features SAE` scans its latents, into the store SAE/scan"
            raise AddressError(f"the scan in {named(self.folder)} has no layer {shorten(name)!r}.{hint}")
        about: Mapping[str, Any] = self.manifest["layers"][name]
        return about

    def unit(self, address: str | Unit) -> UnitScan:
        """Statistics and examples of a unit, by its canonical address (`Model.unit` gives it).

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
        """Responses of all units of a layer at positions sampled at random.

        Raises:
            AddressError: it was not scanned. StoreError: its file is missing or damaged.
        """
        self._about(layer)
        arrays = SCANS.read_tensors(
            check_file(self.folder, f"{SAMPLES}/{layer}.safetensors", self.manifest["files"]),
            framework="numpy",
            expected={
                "ticket": Expected("int64", ("samples",), 0),
                "values": Expected("real", ("samples", self.layers[layer])),
            },
        )
        images, draws = images_and_draws(self.plan, arrays["ticket"])
        down, across = (v[np.arange(len(draws)), draws] for v in sampled_positions(self.plan, images))
        return Samples(arrays["values"], images, down, across)


def read_scan(store: str | Path, model: str) -> Scan:
    """The finished scan of a model in a store.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    folder = folder_of(store, model)
    if read_manifest(folder) is None:
        models = models_in(store)
        command = in_shell("circuits", "scan", shorten(model), "--images", "FOLDER", "--store", named(Path(store)))
        others = f"; it has scans of {', '.join(models)}" if models else ""
        raise StoreError(
            f"the store {named(Path(store))} holds no finished scan of {shorten(model)}{others}. Make one: {command}"
        )
    return Scan(folder)
