"""Class names, and the class that an image shows by the name of its file or folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import PurePosixPath

_WORDNET = re.compile(r"n\d{8}")


@cache
def class_names(file: str) -> tuple[str, ...]:
    """Class names in output order, from a file of `zoo/labels`, one a line."""
    return tuple(resources.files("zoo").joinpath("labels", file).read_text(encoding="utf-8").splitlines())


def imagenet_classes() -> list[str]:
    """The 1,000 class names of ILSVRC-2012, in the order of their WordNet ids (as BVLC and torchvision use)."""
    return list(class_names("imagenet.txt"))


def labels_by_name(ids: Sequence[str], classes: Sequence[str]) -> list[int] | None:
    """Class indices of pictures whose folder or file is called after a class; -1 where that cannot be told.

    `tench/0001.jpg`, `n01440764_tench.jpg` and `great_white_shark.png` are understood, in any case. Two classes of
    one name (ImageNet has two cranes) are told apart by their WordNet ids, whose order is that of the classes, if
    pictures of all of them are there.

    Args:
        ids: names of pictures, as `Images.ids` has them.
        classes: names in output order.

    Returns:
        An index per picture, or None when fewer than half of them can be told.

    >>> labels_by_name(["n01440764_tench.jpg", "dog/7.png"], ["tench", "dog"])
    [0, 1]
    """
    known: dict[str, list[int]] = {}
    for index, class_name in enumerate(classes):
        known.setdefault(_plain(class_name), []).append(index)
    if not known:
        return None
    told = [_told(one, known) for one in ids]
    wordnet: dict[str, list[str]] = {}
    for name, number in told:
        if name is not None and number is not None:
            wordnet.setdefault(name, []).append(number)
    labels = []
    for name, number in told:
        candidates = known.get(name or "", [])
        if len(candidates) > 1:
            numbers = sorted(set(wordnet.get(name or "", [])))
            apart = number is not None and len(numbers) == len(candidates)
            candidates = [candidates[numbers.index(number)]] if apart and number is not None else []
        labels.append(candidates[0] if candidates else -1)
    return labels if sum(label >= 0 for label in labels) * 2 >= max(1, len(labels)) else None


def _told(one: str, known: dict[str, list[int]]) -> tuple[str | None, str | None]:
    """The class name in a picture's name, and a WordNet id beside it."""
    path = PurePosixPath(one)
    for part in (path.stem, *reversed(path.parts[:-1])):
        found = _WORDNET.match(part)
        name = _plain(part[found.end() :] if found else part)
        if name in known:
            return name, found[0] if found else None
    return None, None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()
