"""Annotations in COCO's form: which part of a thing each pixel of a photograph shows.

A COCO file lists `images` (file_name, width, height), `categories` (id, name) and `annotations` (image_id, category_id,
segmentation). A segmentation is a list of polygons `[x0, y0, x1, y1, ...]`, or run lengths (RLE): as a list, or as the
string that COCO packs them into. Source: the data format of Lin et al. 2014, "Microsoft COCO", arXiv 1405.0312, and
the reference `maskApi.c` for the packed string.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from zoo.common.reading import fits, read_json
from zoo.errors import ImageError, did_you_mean, shorten
from zoo.images.manifest import Annotation
from zoo.images.sources import Images, Source, open_images

Mask = npt.NDArray[np.bool_]


Id = int | str
_Side = Annotated[int, Meta(ge=1, le=1 << 15)]
_FARTHEST = 16
"""How many times the image's longer side a polygon's corner may be away: what lies outside counts for nothing."""


class _Category(TypedDict):
    id: Id
    name: str


class _Image(TypedDict):
    id: Id
    file_name: str
    height: _Side
    width: _Side


class _Outline(TypedDict):
    image_id: Id
    category_id: Id
    segmentation: NotRequired[Any]


class _Document(TypedDict):
    categories: list[_Category]
    images: list[_Image]
    annotations: list[_Outline]


@dataclass(frozen=True)
class SegmentedPart:
    """A part as COCO outlines it; its mask is computed when it is asked for, so that thousands need no memory.

    Attributes:
        name: of its category or group.
        where: the annotation and the image, for errors.
        size: height and width of the image; segmentation: polygons or run lengths, as in the file.
    """

    name: str
    where: str
    size: tuple[int, int]
    segmentation: Any

    @property
    def mask(self) -> Mask:
        """`(height, width)` True where the part is.

        Raises:
            ImageError: the segmentation is none, or encloses nothing.
        """
        try:
            if isinstance(self.segmentation, Mapping):
                return run_length_mask(self.segmentation, self.size)
            return polygon_mask(self.segmentation, self.size)
        except ImageError as error:
            raise ImageError(f"{self.where}: {error}") from None

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """`(x0, y0, x1, y1)` around the mask, end exclusive; zeros where it covers no pixel."""
        mask = self.mask
        if not mask.any():
            return 0, 0, 0, 0
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def polygon_mask(polygons: Any, size: tuple[int, int]) -> Mask:
    """The pixels whose centers lie inside any of some polygons.

    Args:
        polygons: lists `[x0, y0, x1, y1, ...]` in pixels; the center of the first pixel is (0.5, 0.5).
        size: height and width of the mask.

    Raises:
        ImageError: no polygon, one of fewer than three corners, numbers that are none, or no area at all.

    >>> polygon_mask([[1, 0, 3, 0, 3, 2, 1, 2]], (2, 4)).astype(int).tolist()
    [[0, 1, 1, 0], [0, 1, 1, 0]]
    """
    from matplotlib.path import Path as Outline

    if not isinstance(polygons, Sequence) or isinstance(polygons, str) or not polygons:
        raise ImageError(f"a segmentation is a list of polygons or run lengths, not {shorten(polygons, 40)}")
    mask, area = np.zeros(size, dtype=np.bool_), 0.0
    for flat in polygons:
        corners = _corners(flat)
        x, y = corners.T
        area += abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
        # only pixels of the box around the polygon can be inside
        left, top = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, (size[1], size[0]))
        right, bottom = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, (size[1], size[0]))
        if right > left and bottom > top:
            if bool((np.abs(corners) > _FARTHEST * max(size)).any()):
                raise ImageError(f"a polygon reaches far out of an image of {size[0]} x {size[1]}")
            down, across = np.mgrid[top:bottom, left:right] + 0.5
            centers = np.stack([across.ravel(), down.ravel()], axis=1)
            mask[top:bottom, left:right] |= Outline(corners).contains_points(centers).reshape(down.shape)
    if area == 0:
        raise ImageError("its polygons enclose nothing")
    return mask


def _corners(flat: Any) -> npt.NDArray[np.float64]:
    try:
        values = np.asarray(flat, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 1 or len(values) < 6 or len(values) % 2 or not np.isfinite(values).all():
        raise ImageError(f"a polygon is at least three pairs of numbers x, y, not {shorten(flat, 40)}")
    return values.reshape(-1, 2)


def run_length_mask(encoded: Mapping[str, Any], size: tuple[int, int]) -> Mask:
    """The mask that run lengths give: of pixels outside and inside in turn, down the columns from the left.

    Args:
        encoded: `{"size": [height, width], "counts": [...]}`, with counts as a list or as COCO's packed string.
        size: height and width that the mask must have.

    Raises:
        ImageError: no counts, runs that do not add up to the image, another size, or no pixel inside.

    >>> run_length_mask({"size": [2, 3], "counts": [1, 3, 2]}, (2, 3)).astype(int).tolist()
    [[0, 1, 0], [1, 1, 0]]
    """
    counts = encoded.get("counts")
    if encoded.get("size") not in (size, list(size)):
        raise ImageError(f"its run lengths are of an image of {shorten(encoded.get('size'), 30)}, not {list(size)}")
    runs: Any = _unpacked(counts) if isinstance(counts, str) else counts
    whole = isinstance(runs, Sequence) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in runs)
    if not whole or sum(runs) != size[0] * size[1]:
        raise ImageError(f"its run lengths are not those of {size[0]} x {size[1]} pixels")
    if not sum(runs[1::2]):
        raise ImageError("its run lengths cover no pixel")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(size[1], size[0]).T


def _unpacked(packed: str) -> list[int]:
    """The run lengths in COCO's string: numbers of 5-bit digits, lowest first, from the fourth on as differences.

    Each character is 48 + digit, + 32 while digits follow; bit 4 of the last is the sign. From the fourth on a number
    is the difference to the one two before it.
    """
    runs: list[int] = []
    value = shift = 0
    for character in packed:
        digit = ord(character) - 48
        if not 0 <= digit < 64:
            raise ImageError(f"its run lengths are no packed string: {shorten(packed, 30)}")
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            value -= (1 << shift) if digit & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ImageError("its packed run lengths are cut off")
    return runs


def open_annotated(
    images: Source, annotations: str | os.PathLike[str], *, groups: Mapping[str, Sequence[str]] | None = None
) -> Images:
    """Images with the parts that a COCO file outlines in them.

    Args:
        images: images as `open_images` takes them; file names in the COCO file are those in the folder.
        annotations: the COCO file (JSON).
        groups: name -> categories that together are one part; categories in no group are parts of their own name.

    Returns:
        The images with `annotations`: for each the parts, with masks. An image that the file lists without any
        annotation shows none of the parts.

    Raises:
        ImageError: the file is no COCO file; images that it does not list, or lists and that are not there;
        categories that there are not; segmentations that are none. Masks are read when they are used.

    >>> open_annotated("photos", "annotations.json", groups={"glass": ["front_glass", "back_glass"]})  # doctest: +SKIP
    """
    opened, file = open_images(images), Path(annotations).expanduser()
    document = _read(file)
    names = {row["id"]: row["name"] for row in document["categories"]}
    rows = {row["id"]: row for row in document["images"]}
    files = {row["file_name"]: key for key, row in rows.items()}
    sizes = {key: (row["height"], row["width"]) for key, row in rows.items()}
    outlines = [(a.get("id"), a["image_id"], a["category_id"], a.get("segmentation")) for a in document["annotations"]]
    if not outlines:
        raise ImageError(f"{shorten(file, 200)} has no annotations")
    _same_images(opened, files, file)
    parts_of = _part_names(names, groups or {}, file)
    by_image: dict[Any, list[SegmentedPart]] = {key: [] for key in rows}
    for number, image, category, segmentation in outlines:
        if image not in rows or category not in names:
            kind, missing = ("image", image) if image not in rows else ("category", category)
            raise ImageError(
                f"{shorten(file, 200)}: annotation {shorten(number)} is of no {kind} listed: {shorten(missing)}"
            )
        where = f"annotation {shorten(number)} ({names[category]} in {shorten(rows[image]['file_name'])})"
        if not segmentation:
            raise ImageError(
                f"{shorten(file, 200)}: {where} has no segmentation, and a box alone does not outline a part"
            )
        parts = (SegmentedPart(name, where, sizes[image], segmentation) for name in parts_of[category])
        by_image[image] += parts
    listed = [Annotation("", tuple(by_image[files[identity]])) for identity in opened.ids]
    return opened.annotated(listed)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        document = read_json(file)
    except OSError as error:
        raise ImageError(f"cannot read {shorten(file, 200)}: {error.strerror}") from error
    except ValueError as error:
        raise ImageError(f"{shorten(file, 200)} is no JSON: {shorten(error, 80)}") from None
    try:
        fits(document, _Document)
    except ValueError as error:
        raise ImageError(f"{shorten(file, 200)} is no COCO file: {shorten(error, 120)}") from None
    checked: Mapping[str, Any] = document
    return checked


def _same_images(images: Images, files: Iterable[str], file: Path) -> None:
    """Refuse images that are not listed, whose parts nobody knows, and listed ones that are not there."""
    listed, there = set(files), set(images.ids)
    for missing, problem in (
        (sorted(there - listed), f"that {shorten(file, 200)} does not list; images without parts are listed too"),
        (sorted(listed - there), f"listed in {shorten(file, 200)} and not in {images.name}"),
    ):
        if missing:
            count = "is 1 image" if len(missing) == 1 else f"are {len(missing)} images"
            raise ImageError(f"there {count} {problem}: {', '.join(shorten(name) for name in missing[:3])}")


def _part_names(names: Mapping[Any, str], groups: Mapping[str, Sequence[str]], file: Path) -> dict[Any, list[str]]:
    """Category -> names of the parts that it belongs to: its groups, or itself."""
    for group, members in groups.items():
        if isinstance(members, str) or not members:
            raise ImageError(f"group {shorten(group)!r} is a list of categories, with at least one")
        for member in members:
            if member not in names.values():
                known = sorted(names.values())
                raise ImageError(
                    f"group {shorten(group)!r}: {shorten(file, 200)} has no category {shorten(member)!r}."
                    f"{did_you_mean(member, known)} There are {', '.join(known)}"
                )
    return {
        key: [group for group, members in groups.items() if name in members] or [name] for key, name in names.items()
    }
