"""Guided tours of any scanned network, made of what its scan has: each step says why, with a number and its control."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apps.explorer.server.byte_cache import cached
from apps.explorer.session.state import Location
from apps.explorer.tours import Step, Tour
from circuits.dataset.reservoir import NO_IMAGE
from circuits.dataset.scan_results import LayerScan, Scan
from circuits.network.model import Model

_LEAST, _SECOND, _DRAWS = 10, 0.25, 200
"""Top activating images that a unit has to have; the least share of its second class; random draws of a control."""


def tours_of(at: Location) -> Mapping[str, Tour]:
    """The tours of a model by name; none where it is not scanned."""
    if at.scan is None:
        return {}
    return _tours(at.model.name, at.model.digest, str(at.scan.manifest["digest"]), at.model, at.scan)


@cached
def _tours(name: str, weights: str, digest: str, _model: Model, _scan: Scan) -> dict[str, Tour]:
    maps = [n for n in _model.trunk if n in _scan.layers and _model.layers[n].size is not None]
    if not maps:
        return {}
    layer = _scan.layer(maps[-2] if len(maps) > 1 else maps[-1])  # the layer that the explorer opens on
    unit = layer.most_selective
    if layer.active_images[unit] == 0:
        return {}
    tours = [_selective(name, layer, unit), _two_classes(name, map(_scan.layer, reversed(maps)), _model)]
    if _model.before(layer.name) is not None:
        tours.append(_circuit(name, layer, unit, _model))
    return {tour.name: tour for tour in tours if tour is not None}


@dataclass(frozen=True)
class _Classes:
    """Classes of the top activating images of the units of a layer, each sorted from the most frequent.

    Attributes:
        shares: `(units, 2)` of the two most frequent; names: of them; count: images of each unit, `(units,)`.
        codes: the class of each scanned image, as a number.
    """

    shares: NDArray[np.float64]
    names: list[tuple[str, str]]
    count: NDArray[np.int64]
    codes: NDArray[np.int64]

    def chance(self, unit: int) -> NDArray[np.float64]:
        """The same two shares of as many images as the unit has, sampled at random: their means, `(2,)`."""
        draw, size = np.random.default_rng(0), min(int(self.count[unit]), len(self.codes))
        samples = (draw.choice(self.codes, size, replace=False) for _ in range(_DRAWS))
        return np.mean([np.sort(np.bincount(sample, minlength=2))[::-1][:2] / size for sample in samples], axis=0)


def _classes(layer: LayerScan) -> _Classes | None:
    if layer.labels is None:
        return None
    names, codes = np.unique(np.asarray(layer.labels), return_inverse=True)
    if len(names) < 2:
        return None
    images, values = layer.arrays["top.image"], layer.arrays["top.value"]
    valid = (images != NO_IMAGE) & (values > 0)
    counts = np.zeros((len(images), len(names)))
    rows, columns = np.nonzero(valid)
    np.add.at(counts, (rows, codes[images[rows, columns]]), 1)
    order = np.argsort(-counts, axis=1, kind="stable")[:, :2]
    total = valid.sum(axis=1)
    shares = np.take_along_axis(counts, order, axis=1) / np.maximum(total, 1)[:, None]
    pairs = [(str(names[a]), str(names[b])) for a, b in order.tolist()]
    return _Classes(shares, pairs, total, codes)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _selective(name: str, layer: LayerScan, unit: int) -> Tour:
    address, classes = f"{name}/{layer.name}:{unit}", _classes(layer)
    active = layer.active_images > 0
    median = float(np.median(layer.selectivity[active]))
    if classes is None:
        why = (
            f"Selectivity {layer.selectivity[unit]:.2f}: its mean activation where active is that far below its "
            f"maximum. The median of the {active.sum()} active units of the layer is {median:.2f}."
        )
    else:
        why = (
            f"{_percent(classes.shares[unit, 0])} of its {classes.count[unit]} top activating images are of the class "
            f"{classes.names[unit][0]}. The median unit of the layer has {_percent(median)} of one class; as "
            f"many images sampled at random have {_percent(classes.chance(unit)[0])}."
        )
    own, usual = (f"{100 * float(v):.2g} %" for v in (layer.density[unit], np.median(layer.density[active])))
    weak = (
        f"It is active at {own} of positions, on {layer.active_images[unit]} images; the median unit at {usual}. "
        "Does what its top activating images show hold for the weaker ones?"
    )
    wall = f"All units of {layer.name}, the most selective first. Is it one of a kind, or one of many?"
    return Tour(
        "selective", f"The most selective unit of {layer.name}", why, name, address.partition("/")[2],
        (
            Step(f"What {layer.name}:{unit} detects", why, "unit", {"unit": address}),
            Step(f"{layer.name}:{unit} from strong to weak", weak, "unit", {"unit": address, "examples": "bands"}),
            Step("Its layer", wall, "layer", {"unit": f"{name}/{layer.name}", "sort": "selectivity"}),
        ),
    )  # fmt: skip


def _two_classes(name: str, layers: Iterable[LayerScan], model: Model) -> Tour | None:
    """A unit whose top activating images are of two classes: the most even one of the deepest layer that has one."""
    for layer in layers:
        classes = _classes(layer)
        if classes is None or model.before(layer.name) is None:
            continue
        second = np.where(classes.count >= _LEAST, classes.shares[:, 1], 0.0)
        unit = int(second.argmax())
        if second[unit] < _SECOND:
            continue
        chance = float(classes.chance(unit)[1])
        if second[unit] < 1.5 * chance:
            continue
        address = f"{name}/{layer.name}:{unit}"
        first, other = classes.names[unit]
        why = (
            f"{_percent(classes.shares[unit, 0])} of its {classes.count[unit]} top activating images are of {first}, "
            f"{_percent(second[unit])} of {other}. The second class of the median unit has "
            f"{_percent(float(np.median(second[classes.count >= _LEAST])))}; of as many images sampled at random it "
            f"has {_percent(chance)}."
        )
        cluster = (
            "Two classes may share one feature. Here its images are clustered by the units that contributed to each, "
            "beside two controls without clusters; computing it takes some seconds."
        )
        return Tour(
            "two-classes", f"A unit for {first} and {other}", why, name, address.partition("/")[2],
            (
                Step(f"Two classes in {layer.name}:{unit}", why, "unit", {"unit": address}),
                Step(
                    f"{layer.name}:{unit}: one feature, or two?",
                    cluster,
                    "unit",
                    {"unit": address, "section": "polysemanticity"},
                ),
            ),
        )  # fmt: skip
    return None


def _circuit(name: str, layer: LayerScan, unit: int, model: Model) -> Tour:
    address, before = f"{name}/{layer.name}:{unit}", model.before(layer.name)
    count = model.layers[str(before)].channels
    read = (
        f"Its kernels from the {count} units of {before}. Shares are of the squared weights; an even split would be "
        f"{100 / count:.2g} % each."
    )
    traced = (
        f"The units of {before} that its activation comes from, on its top activating images. The graph says what was "
        "left out; tracing takes some seconds."
    )
    check = "How much of it the circuit keeps when all else is ablated, beside 50 random circuits of its size."
    about = "Its weights, the units that it is traced to, and what they explain."
    return Tour(
        "circuit", f"The circuit of {layer.name}:{unit}", about, name, address.partition("/")[2],
        (
            Step(f"The weights of {layer.name}:{unit}", read, "unit", {"unit": address}),
            Step(f"{layer.name}:{unit} traced back", traced, "circuit", {"unit": address}),
            Step("Is it enough?", check, "circuit", {"unit": address, "panel": "score"}),
        ),
    )  # fmt: skip
