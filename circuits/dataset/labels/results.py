"""What units detect by the masks of parts: scores, intervals, controls; kept beside the scan of the model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from circuits.dataset.scan_store import StoreError, folder_of
from circuits.errors import AddressError, CircuitsError, did_you_mean, shorten
from circuits.network.address import Unit
from zoo.common.reading import Count, Expected
from zoo.common.results import HIDDEN, Result, plain
from zoo.common.stored import Stored, named

FILE = "labels.safetensors"
KIND = "vision-circuits part labels"


class _About(TypedDict):
    model: str
    weights: str
    parts: list[str]
    layers: list[str]
    image_counts: dict[str, tuple[Count, Count]]
    omitted: dict[str, str]
    images: dict[str, Any]
    provenance: dict[str, Any]


LABELS = Stored(
    "part labels", "Label again (circuits label), or give another store", StoreError, mark={"kind": KIND},
    shape=_About,
)  # fmt: skip
CONTROLS = ("random directions", "untrained network", "shuffled masks")
"""What each part's best unit is held against: as many directions in the same layer, the same units of the network with
random weights, and the same units against the masks of other images. Of each the best is chosen and reported alike."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class UnitLabel(Result):
    """How well one unit detects one part; chosen on one half of the images, measured on the other.

    Attributes:
        unit: address; part: name of the part.
        auc: over pixels, in [0, 1], 0.5 is chance; low, high: its 95 % bootstrap interval over images (None where it
            was not computed).
        iou: pixels active and in the part, by those in either; iou_low, iou_high: its interval.
        threshold: above which the unit is active, for the IoU; chosen on the other half.
        chosen_auc: on the half that chose.
        control: largest AUC that any of `CONTROLS` reaches for this part in the same layer.
    """

    unit: str
    part: str
    auc: float
    low: float | None
    high: float | None
    iou: float
    iou_low: float | None
    iou_high: float | None
    threshold: float
    chosen_auc: float
    control: float

    described = ("above_controls",)

    @property
    def above_controls(self) -> bool:
        """Whether the whole interval of the AUC lies above every control: the unit is then named after the part."""
        return self.low is not None and self.low > self.control


@dataclass(frozen=True, eq=False)
class LayerLabels:
    """Scores of all units of a layer or basis for all parts; the first of two is of the half that chose.

    Attributes:
        auc, iou: `(2, P, units)`; threshold: `(P, units)`.
        auc_interval, iou_interval: `(2, P, units)` low and high on the reporting half; NaN where not computed.
        control_auc, control_iou: `(3, P)` of each of `CONTROLS`, the unit that is best on the half that chose,
            measured on the other.
    """

    auc: Floats
    iou: Floats
    threshold: Floats
    auc_interval: Floats
    iou_interval: Floats
    control_auc: Floats
    control_iou: Floats


@dataclass(frozen=True, eq=False)
class PartLabels(Result):
    """Part labels of the units of some layers.

    Attributes:
        model: name; weights: digest of its weights.
        parts: names, sorted.
        image_counts: part -> number of images that show it, in the half that chose and in the other.
        omitted: part -> why it was not judged.
        images: name, digest and count of the images.
        layers: layer or basis -> scores of its units.
    """

    model: str
    weights: str = field(metadata=HIDDEN)
    parts: tuple[str, ...]
    image_counts: Mapping[str, tuple[int, int]]
    omitted: Mapping[str, str]
    images: Mapping[str, Any]
    layers: Mapping[str, LayerLabels] = field(metadata=HIDDEN)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        """A row for each part: the unit that detects it best."""
        return [self.best(part, top=1)[0].scalars() for part in self.parts]

    def of(self, unit: str | Unit) -> list[UnitLabel]:
        """A unit's score for every part, best first by the half that chose.

        Raises:
            AddressError: its layer was not labeled, or no such unit.
        """
        at = unit if isinstance(unit, Unit) else Unit.parse(unit)
        if at.index is None or at.space not in self.layers or at.index >= self.layers[at.space].auc.shape[2]:
            raise AddressError(
                f"{shorten(at)} has no part labels; those of {', '.join(self.layers)} are known "
                f"(circuits label {self.model} --layers {shorten(at.space)})"
            )
        order = np.argsort(-self.layers[at.space].auc[0, :, at.index], kind="stable")
        return [self._label(at.space, int(k), at.index) for k in order]

    def best(self, part: str, *, layers: Sequence[str] | None = None, top: int = 10) -> list[UnitLabel]:
        """The units that detect a part best, by the half that chose; their scores are of the other.

        Raises:
            CircuitsError: no such part. AddressError: a layer that was not labeled.
        """
        if part not in self.parts:
            raise CircuitsError(
                f"no part {shorten(part)!r} is labeled.{did_you_mean(part, self.parts)} "
                f"There are {', '.join(self.parts)}"
            )
        names = list(self.layers) if layers is None else list(layers)
        for name in names:
            if name not in self.layers:
                raise AddressError(f"{shorten(name)} has no part labels; there are those of {', '.join(self.layers)}")
        k = self.parts.index(part)
        chosen = [(-float(a), name, i) for name in names for i, a in enumerate(self.layers[name].auc[0, k])]
        return [self._label(name, k, i) for _, name, i in sorted(chosen, key=lambda row: row[0])[:top]]

    def names(self) -> dict[str, str]:
        """Unit -> the part that it detects best, for the units whose interval lies above every control."""
        names = {}
        for space, scores in self.layers.items():
            best = scores.auc[0].argmax(axis=0)
            low, control = scores.auc_interval[0], scores.control_auc.max(axis=0)
            for i, k in enumerate(best.tolist()):
                if low[k, i] > control[k]:  # False where the interval is NaN
                    names[self._address(space, i)] = self.parts[k]
        return names

    def controls(self, part: str, layer: str) -> dict[str, tuple[float, float]]:
        """Control -> AUC and IoU of its best for a part in a layer."""
        k, scores = self.parts.index(part), self.layers[layer]
        return {c: (float(scores.control_auc[i, k]), float(scores.control_iou[i, k])) for i, c in enumerate(CONTROLS)}

    def describe(self, top: int = 10) -> dict[str, Any]:
        """Ready for JSON: the best units for each part in each layer, and the named units."""
        rows = {
            part: {
                layer: {
                    "units": [label.describe() for label in self.best(part, layers=[layer], top=top)],
                    "controls": {c: {"auc": a, "iou": i} for c, (a, i) in self.controls(part, layer).items()},
                }
                for layer in self.layers
            }
            for part in self.parts
        }
        return {**super().describe(), "best": plain(rows), "names": self.names()}

    def _label(self, space: str, k: int, i: int) -> UnitLabel:
        s = self.layers[space]
        low, high, iou_low, iou_high = (
            None if np.isnan(v) else float(v) for v in (*s.auc_interval[:, k, i], *s.iou_interval[:, k, i])
        )
        return UnitLabel(
            self._address(space, i), self.parts[k], float(s.auc[1, k, i]), low, high, float(s.iou[1, k, i]), iou_low,
            iou_high, float(s.threshold[k, i]), float(s.auc[0, k, i]), float(s.control_auc[:, k].max()),
        )  # fmt: skip

    def _address(self, space: str, index: int) -> str:
        return f"{self.model}/{space}:{index}"

    def save(self, store: str | Path) -> Path:
        """Write the labels into a store, beside the scan of the model where there is one.

        Raises:
            StoreError: the store cannot be written.
        """
        folder = folder_of(store, self.model)
        LABELS.check_writable(folder)
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "kind": KIND, "schema": LABELS.schema, "model": self.model, "weights": self.weights,
            "parts": list(self.parts), "image_counts": plain(self.image_counts), "omitted": dict(self.omitted),
            "images": plain(self.images), "layers": list(self.layers), "provenance": plain(self.provenance),
        }  # fmt: skip
        arrays = {f"{name}/{key}": values for name, s in self.layers.items() for key, values in vars(s).items()}
        LABELS.write_tensors(folder / FILE, arrays, json.loads(json.dumps(about)))
        return folder / FILE


def read_labels(store: str | Path, model: str, weights: str | None = None) -> PartLabels | None:
    """The part labels that a store holds of a model; None where it holds none.

    Args:
        store: a folder, as `circuits.scan` and `PartLabels.save` take it.
        model: name of the model.
        weights: digest of the weights that the labels must be of; any by default.

    Raises:
        StoreError: they are damaged, or of other weights.
    """
    path = folder_of(store, model) / FILE
    if not path.exists():
        return None
    about = LABELS.check(path, LABELS.read_about(path))
    if weights is not None and about["weights"] != weights:
        raise StoreError(f"{named(path)} holds part labels of other weights: label {shorten(model)} again")
    expected = {
        f"{name}/{key}": Expected("real", shape, bounds[0], bounds[1], gaps=True)
        for name in about["layers"]
        for keys, shape, bounds in (
            (("auc", "iou", "auc_interval", "iou_interval"), (2, "parts", f"units of {name}"), (0, 1)),
            (("threshold",), ("parts", f"units of {name}"), (None, None)),
            (("control_auc", "control_iou"), (len(CONTROLS), "parts"), (0, 1)),
        )
        for key in keys
    }
    arrays = LABELS.read_tensors(path, framework="numpy", expected=expected, sizes={"parts": len(about["parts"])})
    with LABELS.parsing(path):
        keys = list(LayerLabels.__dataclass_fields__)
        layers = {name: LayerLabels(*(arrays[f"{name}/{key}"] for key in keys)) for name in about["layers"]}
        image_counts = {part: (int(n), int(m)) for part, (n, m) in about["image_counts"].items()}
        return PartLabels(
            about["model"], about["weights"], tuple(about["parts"]), image_counts, about["omitted"], about["images"],
            layers, about["provenance"],
        )  # fmt: skip
