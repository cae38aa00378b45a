"""Units by what they mean: names of classes, labels, addresses, and the images that activate them most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from apps.explorer.session.labels import Label
from apps.explorer.session.state import Location
from circuits.dataset.reservoir import NO_IMAGE
from circuits.errors import AddressError

TOP, LEAST = 9, 5
"""Top activating images that are looked at, and how many of them have to be of one class."""


@dataclass(frozen=True)
class ClassUnit:
    """A unit whose top activating images are mostly of one class.

    Attributes:
        unit: full address; name: of the class; count: of its `TOP` images of that class.
    """

    unit: str
    name: str
    count: int


def matches(text: str, query: str) -> bool:
    """Whether all words of a query are in a text, in any case; an empty query is in none.

    >>> matches("sports car, sport car", "Sport CAR"), matches("oscar", "")
    (True, False)
    """
    words = query.casefold().split()
    return bool(words) and all(word in text.casefold() for word in words)


def by_class_name(at: Location, query: str) -> dict[str, str]:
    """Units of class scores whose class has such a name: address -> name."""
    layer = at.model.class_scores
    if layer is None:
        return {}
    names = enumerate(at.model.classes)
    return {f"{at.model.name}/{layer}:{i}": name for i, name in names if matches(name, query)}


def by_label(at: Location, query: str) -> list[Label]:
    """Labels with all words of the query in name, family, author or evidence; all labels without a query."""
    texts = ((label, f"{label.name} {label.family} {label.author} {label.evidence}") for label in _labels(at))
    return [label for label, text in texts if not query.strip() or matches(text, query)]


def _labels(at: Location) -> list[Label]:
    return at.labels.all(at.model.name)


def by_address(at: Location, query: str) -> list[str]:
    """Full addresses of scanned units that match a pattern (`mixed4a:1*`), or of the unit that a name resolves to."""
    pattern = query.strip()
    if ":" not in pattern:
        return []
    every = (f"{layer}:{i}" for layer, count in at.scanned.layers.items() for i in range(count))
    short = pattern.removeprefix(f"{at.model.name}/").lower()
    units = [f"{at.model.name}/{address}" for address in every if fnmatchcase(address.lower(), short)]
    if not units:
        try:
            units = [str(at.model.unit(pattern).channel)]
        except AddressError:
            pass  # words with a colon
    return units


def by_top_images(at: Location, query: str) -> tuple[list[ClassUnit], float]:
    """Units whose top activating images are mostly of a class of such a name, and the share of these classes' images.

    Of the `TOP` images at least `LEAST` are of one class. Without class labels of the scanned images there are none.
    """
    scan = at.scanned
    names = sorted({name for name in scan.labels or () if matches(name, query)})
    if not names:
        return [], 0.0
    labels = np.asarray(scan.labels)
    units = []
    for space, count in scan.layers.items():
        layer = scan.layer(space)
        images, values = layer.arrays["top.image"][:, :TOP], layer.arrays["top.value"][:, :TOP]
        valid = (images != NO_IMAGE) & (values > 0)
        for name in names:
            counts = (valid & (labels[np.where(valid, images, 0)] == name)).sum(axis=1)
            units += [ClassUnit(f"{at.model.name}/{space}:{i}", name, int(counts[i])) for i in range(count)]
    best = sorted((unit for unit in units if unit.count >= LEAST), key=lambda unit: -unit.count)
    return best, float(np.isin(labels, names).mean())


def concepts_named(names: Sequence[str], query: str) -> list[str]:
    """Names of concepts with all words of the query."""
    return [name for name in names if matches(name, query)]
