"""Class names, and the class that an image shows by the name of its file or folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import PurePosixPath

_WORDNET = re.compile(r"n\d{8}")


@cache
def names_in(file: str) -> tuple[str, ...]:
    """Class names in output order, from a file of `zoo/labels`, one a line."""
    return tuple(resources.files("zoo").joinpath("labels", file).read_text(encoding="utf-8").splitlines())


def imagenet_classes() -> list[str]:
    """The 1,000 class names of ILSVRC-2012, in the order of their WordNet ids (as BVLC and torchvision use)."""
    return list(names_in("imagenet.txt"))


def labels_by_name(ids: Sequence[str], classes: Sequence[str]) -> list[int] | None:
    """Class indices of images whose folder or file is called after a class; -1 where the class is unknown.

    `tench/0001.jpg`, `n01440764_tench.jpg` and `great_white_shark.png` are understood, in any case. Two classes of
    one name (ImageNet has two cranes) are distinguished by their WordNet ids, whose order is that of the classes, if
    images of all of them are there.

    Args:
        ids: names of images, as `Images.ids` has them.
        classes: names in output order.

    Returns:
        An index per image, or None when fewer than half of them are known.

    >>> labels_by_name(["n01440764_tench.jpg", "dog/7.png"], ["tench", "dog"])
    [0, 1]
    """
    indices: dict[str, list[int]] = {}
    for index, class_name in enumerate(classes):
        indices.setdefault(_plain(class_name), []).append(index)
    if not indices:
        return None
    parsed = [_parse(identity, indices) for identity in ids]
    wordnet: dict[str, list[str]] = {}
    for name, number in parsed:
        if name is not None and number is not None:
            wordnet.setdefault(name, []).append(number)
    labels = []
    for name, number in parsed:
        candidates = indices.get(name or "", [])
        if len(candidates) > 1:
            numbers = sorted(set(wordnet.get(name or "", [])))
            distinguishable = number is not None and len(numbers) == len(candidates)
            candidates = [candidates[numbers.index(number)]] if distinguishable and number is not None else []
        labels.append(candidates[0] if candidates else -1)
    return labels if sum(label >= 0 for label in labels) * 2 >= max(1, len(labels)) else None


def labels_counted_as(labels: Sequence[int], names: Sequence[str] | None, classes: Sequence[str]) -> list[int]:
    """Labels of a data set as a model counts its classes; -1 where the model has no class of that name, or several.

    Args:
        labels: as the data set counts its own classes.
        names: of these; None: they are counted as the model's already.
        classes: of the model, in output order; empty where they are not known, and labels stay as they are.

    >>> labels_counted_as([0, 1, -1], ["Dog", "boat"], ["boat", "cat", "dog, hound"])
    [2, 0, -1]
    """
    if names is None or not classes or list(names) == list(classes):
        return list(labels)
    indices: dict[str, list[int]] = {}
    for index, class_name in enumerate(classes):
        for name in {_plain(class_name), _plain(class_name.split(",")[0])}:
            indices.setdefault(name, []).append(index)
    mapped = []
    for name in names:
        candidates = indices.get(_plain(name)) or indices.get(_plain(name.split(",")[0])) or []
        mapped.append(candidates[0] if len(candidates) == 1 else -1)
    return [mapped[label] if label >= 0 else -1 for label in labels]


def _parse(identity: str, indices: dict[str, list[int]]) -> tuple[str | None, str | None]:
    """The class name in an image's name, and a WordNet id beside it."""
    path = PurePosixPath(identity)
    for part in (path.stem, *reversed(path.parts[:-1])):
        wordnet = _WORDNET.match(part)
        name = _plain(part[wordnet.end() :] if wordnet else part)
        if name in indices:
            return name, wordnet[0] if wordnet else None
    return None, None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()
