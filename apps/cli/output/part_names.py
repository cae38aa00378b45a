"""Labels for units, from the annotations of the images: parts by their masks, concepts by label or part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuits.dataset.labels.results import PartLabels
    from circuits.network.model import Model
    from circuits.tracing.circuit import Circuit
    from zoo.images.sources import Images

SURE = 0.9
"""AUC from which a unit is named after a part."""
ENOUGH = 260
"""Images that parts are judged on: each has dozens of positions, so more would only take longer."""


def some(images: Images) -> Images:
    """At most `ENOUGH` images, spread over all."""
    return images.spread(ENOUGH)


def knows_parts(images: Images) -> bool:
    """Whether the images come with masks or boxes of their parts (drawn scenes do)."""
    return images.annotations is not None and any(annotation.parts for annotation in images.annotations)


def label_parts(model: Model, circuit: Circuit, images: Images, store: Path | None = None) -> Circuit:
    """The circuit with each unit labeled by the part that activates it, where that is known.

    It is by the part labels of a store, where one is given, and else by the parts that the images show.

    Raises:
        StoreError: the store holds no part labels of the model, or of other weights.
    """
    if store is not None:
        return circuit.label(stored_labels(store, model.name, model.digest).names())
    if not knows_parts(images):
        return circuit
    from circuits.dataset.part_labels import part_labels

    units = {node.unit for node in circuit.nodes if node.role != "target"}
    names: dict[str, str] = {}
    sample = some(images)
    for layer in circuit.layers[1:]:
        at = model.layers[model.resolve(layer).layer]
        if at.size is None or at.receptive_field is None:
            continue
        for label in part_labels(model, layer, sample, at_least=SURE):
            if label.unit in units:
                names[label.unit] = label.part
    return circuit.label(names)


def stored_labels(store: Path, model: str, weights: str | None = None) -> PartLabels:
    """The part labels that a store holds of a model.

    Raises:
        StoreError: it holds none, or damaged ones, or of other weights.
    """
    from circuits.dataset.labels.results import read_labels
    from circuits.dataset.scan_store import StoreError
    from circuits.errors import shorten
    from zoo.networks.own import command_line

    labels = read_labels(store, model, weights)
    if labels is None:
        label = ("label", shorten(model), "--images", "DIR", "--annotations", "FILE", "--store", shorten(store, 200))
        raise StoreError(
            f"the store {shorten(store, 200)} holds no part labels of {shorten(model)}. "
            f"Make some: {command_line(*label, model=model)}"
        )
    return labels


def concept(images: Images, name: str) -> tuple[Images, Images]:
    """Images that are labeled `name` or show a part of that name, and the others.

    Raises:
        ImageError: the images have no labels, or none, or only such.
    """
    from zoo.errors import ImageError, did_you_mean, shorten

    names, holds = _concepts(images)
    if not names:
        raise ImageError(f"the images of {images.name} have no labels: give two folders, --positive and --negative")
    if name not in names:
        raise ImageError(f"no image shows {shorten(name)!r}.{did_you_mean(name, names)} There are {', '.join(names)}")
    positive = [i for i, there in enumerate(holds) if name in there]
    negative = [i for i, there in enumerate(holds) if name not in there]
    if not negative:
        raise ImageError(f"all {len(images)} images show {name}; there are no others to compare with")
    return images.subset(positive), images.subset(negative)


def _concepts(images: Images) -> tuple[list[str], Sequence[set[str]]]:
    holds: list[set[str]] = [set() for _ in range(len(images))]
    if images.labels is not None and images.classes is not None:
        for there, label in zip(holds, images.labels, strict=True):
            there.add(images.classes[label])
    if images.annotations is not None:
        for there, annotation in zip(holds, images.annotations, strict=True):
            there.update(part.name for part in annotation.parts)
    return sorted(set().union(*holds)) if holds else [], holds
