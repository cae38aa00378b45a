"""What an audit is made of: labeled images in two halves, the objects' masks, and groups. What does not fit is refused.

One half of the images finds suspects, the other judges them. Images of the same contents lie in the same half: a
suspect that is found on an image is not judged on its copy.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuits.attribution.class_scores import class_index, class_name
from circuits.dataset.accuracy import labels_of
from circuits.errors import CircuitsError, shorten
from circuits.network.model import Model
from zoo.common.reading import read_bytes
from zoo.images.classes import labels_counted_as
from zoo.images.coco import open_annotated
from zoo.images.sources import Images, open_images

FEWEST = 5
"""Images of a class in each half: with fewer, an accuracy moves by more than a fifth with one of them."""
FOLDERS = "folders"
"""Groups are named by the folder below that of the class: `class/group/image.png`."""


@dataclass(frozen=True)
class Inputs:
    """Labeled images and how they are split.

    Attributes:
        images: all of them, annotated where there are masks.
        labels: `(N,)` index of the class score; groups: name for each image, or None.
        finding, judging: indices of the two halves.
        classes: to audit; omitted: name -> why not.
    """

    images: Images
    labels: NDArray[np.int64]
    groups: tuple[str, ...] | None
    finding: NDArray[np.int64]
    judging: NDArray[np.int64]
    classes: tuple[int, ...]
    omitted: dict[str, str]

    @property
    def masks(self) -> bool:
        """Whether objects are outlined."""
        return self.images.annotations is not None

    def of(self, half: NDArray[np.int64], index: int) -> NDArray[np.int64]:
        """Images of a class in a half."""
        own: NDArray[np.int64] = half[self.labels[half] == index]
        return own

    def others(self, half: NDArray[np.int64], index: int, most: int, seed: int) -> NDArray[np.int64]:
        """At most so many images of the other classes in a half, as many of each as there are, sampled at random."""
        rng = np.random.default_rng([seed, index])
        pools = [rng.permutation(half[self.labels[half] == c]) for c in np.unique(self.labels[half]) if c != index]
        rounds = (pool[i] for i in range(max(map(len, pools))) for pool in pools if i < len(pool))
        return np.sort(np.array([image for image, _ in zip(rounds, range(most), strict=False)], dtype=np.int64))


def inputs_of(
    model: Model,
    images: Any,
    *,
    labels: Sequence[int | str] | None,
    classes: Sequence[int | str] | None,
    annotations: str | os.PathLike[str] | None,
    groups: str | os.PathLike[str] | Sequence[str] | None,
    seed: int,
) -> Inputs:
    """Check and split what was given; see `audit`.

    Raises:
        CircuitsError: images without classes, of classes that the model does not have, or all of one; groups that do
            not fit; too few images. ImageError: no images, or annotations that do not fit.
    """
    opened = open_images(images)
    if not len(opened):
        raise CircuitsError(f"{opened.name} holds no image: an audit needs images of each class")
    names, csv_labels = group_names(opened, groups)
    right = labels_of(model, opened, labels if labels is not None else csv_labels)
    if annotations is not None:
        opened = open_annotated(opened, annotations)
    present = np.unique(right)
    if len(present) < 2:
        raise CircuitsError(
            f"all images of {opened.name} are of {class_name(model, int(present[0]))}: an audit holds the images of "
            "a class against those of others, so give images of two classes or more"
        )
    finding, judging = halves(opened, right, names, seed)
    wanted = sorted(present.tolist()) if classes is None else [class_index(model, c) for c in classes]
    audited, omitted = [], {}
    for index in dict.fromkeys(wanted):
        count = [int((right[half] == index).sum()) for half in (finding, judging)]
        if min(count) < FEWEST:
            total = int((right == index).sum())
            omitted[class_name(model, index)] = f"{total} images, fewer than the {2 * FEWEST} that two halves need"
        elif min(int((right[half] != index).sum()) for half in (finding, judging)) < FEWEST:
            rest = int((right != index).sum())
            omitted[class_name(model, index)] = (
                f"{rest} images of other classes to hold it against, fewer than the {2 * FEWEST} that two halves need"
            )
        elif opened.annotations is not None and (few := _without_mask(opened, right, index, finding)):
            omitted[class_name(model, index)] = few
        else:
            audited.append(index)
    if not audited:
        raise nothing_audited(omitted)
    return Inputs(opened, right, names, finding, judging, tuple(audited), omitted)


def nothing_audited(omitted: Mapping[str, str]) -> CircuitsError:
    """The error where no class is left, with why the first were not audited."""
    listed = "; ".join(f"{name}: {reason}" for name, reason in list(omitted.items())[:3])
    return CircuitsError(f"no class can be audited: {listed}")


def group_names(
    images: Images, groups: str | os.PathLike[str] | Sequence[str] | None
) -> tuple[tuple[str, ...] | None, list[int | str] | None]:
    """Group of each image, and its class where a file says so; without `groups` those that the images have.

    Raises:
        CircuitsError: a file, folders or a list that do not fit the images.
    """
    if groups is None:
        own = getattr(images, "groups", None)
        return (None, None) if own is None else (tuple(own), None)
    if isinstance(groups, str) and groups == FOLDERS:
        deep = [PurePosixPath(identity).parts for identity in images.ids]
        short = next((i for i, parts in enumerate(deep) if len(parts) < 3), None)
        if short is not None:
            raise CircuitsError(f"groups by folders are CLASS/GROUP/IMAGE; {images.ids[short]} has no such folder")
        return tuple(parts[-2] for parts in deep), None
    if isinstance(groups, str | os.PathLike):
        return _read_groups(images, Path(groups).expanduser())
    if len(groups) != len(images):
        raise CircuitsError(f"{len(groups)} groups for the {len(images)} images of {images.name}")
    return tuple(str(name) for name in groups), None


def _read_groups(images: Images, file: Path) -> tuple[tuple[str, ...], list[int | str] | None]:
    try:
        text = read_bytes(file).decode("utf-8-sig")  # spreadsheets begin files with a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise CircuitsError(f"the file of groups {shorten(file, 200)} cannot be read: {shorten(error, 80)}") from error
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = rows.fieldnames or []
    if not {"path", "group"} <= set(columns):
        raise CircuitsError(
            f"{shorten(file, 200)} has the columns {', '.join(columns) or 'none'}: groups are a CSV file with a line "
            "path,group or path,class,group at its head"
        )
    by_path: dict[str, dict[str, str | None]] = {}
    needed = [column for column in ("group", "class") if column in columns]
    for row in rows:
        empty = next((column for column in needed if not row[column]), None)
        if empty is not None:
            raise CircuitsError(f"{shorten(file, 200)} gives no {empty} for {shorten(row['path'])}: fill it in")
        if any(by_path.setdefault(row["path"], row)[column] != row[column] for column in needed):
            raise CircuitsError(f"{shorten(file, 200)} has two lines for {shorten(row['path'])}, and they differ")
    missing = [identity for identity in images.ids if identity not in by_path]
    if missing:
        raise CircuitsError(
            f"{shorten(file, 200)} has no line for {len(missing)} of {len(images)} images, {missing[0]} for one; "
            "paths are those below the folder of images"
        )
    names, classes = (tuple(by_path[i].get(column) or "" for i in images.ids) for column in ("group", "class"))
    return names, list(classes) if "class" in columns else None


def halves(
    images: Images, labels: NDArray[np.int64], groups: Sequence[str] | None, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two halves with as many images of each class and group, copies of one image in the same."""
    contents: dict[bytes, list[int]] = {}
    for i, digest in enumerate(images.contents()):
        contents.setdefault(digest, []).append(i)
    strata: dict[tuple[int, str], list[list[int]]] = {}
    for copies in contents.values():
        first = copies[0]
        strata.setdefault((int(labels[first]), "" if groups is None else groups[first]), []).append(copies)
    rng, parts = np.random.default_rng(seed), ([], [])  # type: ignore[var-annotated]
    turn = 0
    for key in sorted(strata):
        for i in rng.permutation(len(strata[key])).tolist():
            parts[turn].extend(strata[key][i])
            turn = 1 - turn  # goes on over the strata, so that small ones do not all fall to one half
    finding, judging = (np.sort(np.array(half, dtype=np.int64)) for half in parts)
    return finding, judging


def mask_names(images: Images, name: str) -> list[str] | None:
    """Which parts are the object of a class: those of its name, where there are such; None: all parts together."""
    assert images.annotations is not None
    parts = sorted({part.name for annotation in images.annotations for part in annotation.parts})
    named = [part for part, i in zip(parts, labels_counted_as(range(len(parts)), parts, [name]), strict=True) if i == 0]
    return named or None


def _without_mask(images: Images, labels: NDArray[np.int64], index: int, half: NDArray[np.int64]) -> str:
    """Why a class has too few masks; nothing where it has enough."""
    assert images.annotations is not None
    own = half[labels[half] == index]
    outlined = sum(bool(images.annotations[i].parts) for i in own)
    if outlined >= FEWEST:
        return ""
    return f"{outlined} of its {len(own)} images to find on are outlined, fewer than {FEWEST}"
