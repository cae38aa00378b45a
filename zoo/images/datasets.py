"""Images that are objects in memory, and the data sets of torchvision, PyTorch, Hugging Face and webdataset.

An item is an image (PIL, an array, a tensor in [0, 1], encoded bytes), or an image with a class: a pair
`(image, label)` or a dictionary with one image in it. Items of data sets are read when they are needed, with the data
set's own transforms; data of models' own normalization, and transforms that are random, are refused.
"""

from __future__ import annotations

import contextlib
import io
import numbers
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset

from zoo.errors import ImageError, shorten
from zoo.images.decoding import (
    SUFFIXES,
    FileImage,
    LazyImage,
    MemoryImage,
    TensorImage,
    array_image,
    decode,
    readable,
)

MOST_ITERATED = 100_000
"""Images that are read from an iterable without a length: all of them are held in memory."""

_LABEL_KEYS = ("label", "labels", "cls", "class", "target", "fine_label")


@dataclass(frozen=True)
class Contents:
    """What a data set holds.

    Attributes:
        images: in order.
        name: of the data set, for people.
        labels: the class of each image; None where they are unknown, or known by the images alone.
        classes: names of the classes.
    """

    images: list[LazyImage]
    name: str
    labels: list[int] | None = None
    classes: list[str] | None = None


def tensor_images(values: Tensor, name: str = "tensor") -> list[LazyImage]:
    """The images of a tensor `(N, channels, H, W)`, in [0, 1] or uint8; or of sequences, or of volumes.

    Raises:
        ImageError: another shape, type or range.
    """
    if values.ndim not in (3, 4, 5):
        raise ImageError(f"a tensor of images is (N, channels, H, W), not {tuple(values.shape)}")
    if 0 in values.shape:
        raise ImageError(f"the tensor of images is empty: {tuple(values.shape)}")
    if values.is_complex() or values.dtype == torch.bool:
        raise ImageError(f"a tensor of images is float in [0, 1], not {values.dtype}")
    values = values.detach().cpu()
    if not values.is_floating_point():
        if values.dtype != torch.uint8:
            raise ImageError(f"a tensor of images is float in [0, 1] or uint8, not {values.dtype}")
        values = values.to(torch.float32) / 255
    values = values.to(torch.float32)
    low, high = float(values.min()), float(values.max())
    if not (low >= -1e-4 and high <= 1 + 1e-4):
        raise ImageError(
            f"images lie in [0, 1]; the tensor spans {low:g} to {high:g}. "
            "Divide bytes by 255; give model.input.denormalize(x) for what is normalized already, and "
            "model.input.from_range(x) for what lies in the range that its InputSpec declares"
        )
    return [TensorImage(f"{name}-{i:06d}", image) for i, image in enumerate(values)]


def is_image(item: object) -> bool:
    """Whether an object is an image by its type: PIL, an array or tensor of 2 or 3 axes, or encoded bytes."""
    if isinstance(item, (Image.Image, bytes)) or (isinstance(item, Mapping) and {"bytes", "path"} == set(item)):
        return True
    return isinstance(item, (np.ndarray, Tensor)) and item.ndim in (2, 3)


def image_of(item: object, identity: str) -> LazyImage:
    """An image from an object.

    Raises:
        ImageError: it is none, or one that does not lie in [0, 1].
    """
    if isinstance(item, Image.Image):
        return MemoryImage(identity, item)
    if isinstance(item, Tensor):
        if item.ndim not in (2, 3, 4):
            raise ImageError(f"a tensor in a list of images is (channels, H, W), not {tuple(item.shape)}")
        (image,) = tensor_images(item[None], identity)
        return image
    if isinstance(item, np.ndarray):
        return array_image(item, identity)
    if isinstance(item, Mapping) and {"bytes", "path"} == set(item):  # an image that Hugging Face has not decoded
        if item["bytes"] is None:
            return FileImage(identity, Path(str(item["path"])))
        item = item["bytes"]
    if isinstance(item, bytes):
        return MemoryImage(identity, decode(io.BytesIO(item)))
    raise ImageError(f"an image is a path, a PIL image, an array or a tensor, not a {type(item).__name__}")


def pair_of(item: object) -> tuple[object, int | str | None]:
    """An item's image and its class: an index, a name, or None where there is none.

    Raises:
        ImageError: an item without an image, or with several.
    """
    if isinstance(item, Mapping) and not is_image(item):
        keys = [key for key, value in item.items() if is_image(value) and _may_be_image(str(key), value)]
        if len(keys) != 1:
            raise ImageError(f"an item has one image; this one has {len(keys)}, among the keys {shorten(list(item))}")
        label = next((item[key] for key in _LABEL_KEYS if key in item), None)
        return item[keys[0]], class_of(label)
    if isinstance(item, (tuple, list)):
        if not item:
            raise ImageError("an item is an image or (image, label), not an empty one")
        return item[0], class_of(item[1]) if len(item) > 1 else None
    return item, None


def _may_be_image(key: str, value: object) -> bool:
    """Bytes are an image where their key is the ending of an image's file, as in samples of webdataset."""
    return not isinstance(value, bytes) or f".{key.rpartition('.')[2]}".lower() in SUFFIXES


def class_of(label: object) -> int | str | None:
    """A class index or name; None for boxes, masks and whatever else is no class."""
    if isinstance(label, Tensor) and label.ndim == 0 and not label.is_floating_point():
        label = label.item()
    if isinstance(label, bytes):
        label = label.decode("utf-8", "replace").strip()
    if isinstance(label, str):
        return int(label) if label.lstrip("-").isdecimal() else label
    return int(label) if isinstance(label, numbers.Integral) and not isinstance(label, bool) else None


def indices_of(labels: Sequence[int | str | None]) -> tuple[list[int] | None, list[str] | None]:
    """Class indices, -1 where there is none, and the names of the classes where they are named.

    Raises:
        ImageError: some are numbers and some names.
    """
    given = {type(label) for label in labels if label is not None}
    if not given:
        return None, None
    if len(given) > 1:
        raise ImageError("some labels are numbers and some are names: give all as one of these")
    if given == {int}:
        return [-1 if label is None else int(label) for label in labels], None
    classes = sorted({label for label in labels if isinstance(label, str)})
    index = {name: i for i, name in enumerate(classes)}
    return [-1 if label is None else index[str(label)] for label in labels], classes


class DatasetImage(LazyImage):
    """An item of a data set, read anew each time it is asked for."""

    def __init__(self, identity: str, read: Callable[[], object]) -> None:
        super().__init__(identity)
        self._read = read
        self._label: int | str | None = None
        self._label_known = False

    def _opened(self) -> LazyImage:
        try:
            image, self._label = pair_of(self._read())
            self._label_known = True
            return image_of(image, self.id)
        except Exception as error:  # whatever the user's data set raises
            raise ImageError(f"cannot use {self.id}: {shorten(error, 300)}") from error

    def label(self) -> int | str | None:
        """Its class, as the data set gives it."""
        if not self._label_known:
            self._opened()
        return self._label

    def image(self) -> Image.Image:
        """The whole image, upright, RGB."""
        return self._opened().image()

    def digest(self) -> bytes:
        """Digest of the content."""
        return self._opened().digest()

    def extent(self) -> tuple[int, ...]:
        """Height and width, or the length of each axis."""
        self._extent = self._extent or self._opened().extent()
        return self._extent

    def pixels(self, spec: Any) -> Tensor:
        """The center crop that `spec` asks for."""
        return self._opened().pixels(spec)


def contents(source: object) -> Contents | None:
    """What a data set or an iterable holds; None when it is neither.

    Raises:
        ImageError: it is empty, without an end, gives batches or no images, or other images each time.
    """
    name = type(source).__name__
    if isinstance(source, DataLoader):
        raise ImageError("a DataLoader gives batches, shuffled or not: give its data set, loader.dataset")
    if isinstance(source, Subset):
        return _subset(source)
    if isinstance(source, ConcatDataset):
        return _joined([_of_dataset(part) for part in source.datasets], name)
    if isinstance(source, Mapping):
        raise ImageError(f"a {name} holds several sets of images ({shorten(list(source), 100)}): give one of them")
    if isinstance(source, IterableDataset):
        columns = getattr(source, "features", None) is not None and hasattr(source, "column_names")
        return _of_column_stream(source, name) if columns else _iterated(source, name)
    if isinstance(source, Dataset) or (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
        return _of_dataset(source)
    return _iterated(source, name) if isinstance(source, Iterable) else None


def _of_dataset(source: Any) -> Contents:
    if isinstance(source, (Subset, ConcatDataset)):
        inner = contents(source)
        assert inner is not None
        return inner
    name = type(source).__name__
    try:
        count = len(source)
    except TypeError as error:
        raise ImageError(f"{name} has no length: give it one, or an iterable that ends") from error
    if count == 0:
        raise ImageError(f"the data set {name} is empty")
    if hasattr(source, "features") and hasattr(source, "column_names"):
        return _of_columns(source, name, count)
    if (files := _untouched_files(source)) is not None:
        return files
    images = _items(source, name, count)
    labels = _declared_labels(source, count)
    classes = getattr(source, "classes", None)
    named = labels is not None and isinstance(classes, (list, tuple)) and max(labels) < len(classes)
    return Contents(images, name, labels, [str(c) for c in classes] if named and classes is not None else None)


def _items(source: Any, name: str, count: int, read: Callable[[int], object] | None = None) -> list[LazyImage]:
    lock = threading.Lock()  # images are decoded in threads, and data sets need not stand that

    def locked(index: int) -> object:
        with lock:
            return source[index] if read is None else read(index)

    images: list[LazyImage] = [DatasetImage(f"{name}-{i:06d}", partial(locked, i)) for i in range(count)]
    if images[0].digest() != images[0].digest():
        raise ImageError(
            f"{name} gives another image each time that it is asked for its first: leave out random transforms"
        )
    return images


def _declared_labels(source: Any, count: int) -> list[int] | None:
    """The labels that a data set lists (`targets`, `labels`), as its `target_transform` turns them."""
    for attribute in ("targets", "labels", "_labels"):
        listed = getattr(source, attribute, None)
        if isinstance(listed, (list, tuple, np.ndarray, Tensor)) and len(listed) == count:
            change = getattr(source, "target_transform", None) or (lambda label: label)
            labels = [class_of(change(label)) for label in (listed.tolist() if hasattr(listed, "tolist") else listed)]
            if all(isinstance(label, int) for label in labels):
                return [label for label in labels if isinstance(label, int)]
    return None


def _untouched_files(source: Any) -> Contents | None:
    """The files of an ImageFolder without transforms: decoded as all others, and named after their folder."""
    folders = sys.modules.get("torchvision.datasets.folder")  # not imported: then it is none of these
    if folders is None or not isinstance(source, folders.DatasetFolder):
        return None
    if source.transform is not None or source.target_transform is not None:
        return None
    if source.loader is not folders.default_loader:
        return None
    root = Path(source.root)
    images = [FileImage(readable(Path(path).relative_to(root).as_posix()), Path(path)) for path, _ in source.samples]
    return Contents(list(images), readable(root.name), [label for _, label in source.samples], list(source.classes))


def _columns(source: Any) -> tuple[str, str | None, list[str] | None]:
    """The columns of images and of classes of a data set of Hugging Face, by its features, and the classes' names."""
    features = dict(source.features)
    kinds = {column: type(feature).__name__ for column, feature in features.items()}
    image_columns = [column for column, kind in kinds.items() if kind == "Image"]
    if len(image_columns) != 1:
        raise ImageError(
            f"the data set has {len(image_columns)} columns of images, among {shorten(list(kinds))}: it needs one "
            "(select_columns, or cast_column to datasets.Image())"
        )
    classes = [column for column, kind in kinds.items() if kind == "ClassLabel"]
    if len(classes) > 1:
        raise ImageError(f"the data set has several classes, {', '.join(classes)}: leave one (remove_columns)")
    if classes:
        return image_columns[0], classes[0], [str(c) for c in features[classes[0]].names]
    return image_columns[0], next((key for key in _LABEL_KEYS if key in features), None), None


def _of_columns(source: Any, name: str, count: int) -> Contents:
    """A data set of Hugging Face: columns, whose features say which are images and classes."""
    image_column, label_column, names = _columns(source)

    def read(index: int) -> object:
        row = source[index]
        return row.get(image_column, row)  # a transform may rename it

    images = _items(source, name, count, read)
    if label_column is None:
        return Contents(images, name)
    stored = given = list(source.with_format(None)[label_column])  # a format may hide the column
    if source.format["type"] == "custom":  # a transform, which may change it
        with contextlib.suppress(KeyError):
            given = list(source[label_column])
    labels, classes = indices_of([class_of(label) for label in given])
    return Contents(images, name, labels, names if names is not None and given == stored else classes)


def _of_column_stream(source: Any, name: str) -> Contents:
    """A streaming data set of Hugging Face whose features are known."""
    image_column, label_column, names = _columns(source)
    rows = ((row[image_column], row.get(label_column)) if image_column in row else row for row in source)
    streamed = _iterated(rows, name)
    return replace(streamed, classes=streamed.classes if names is None or streamed.labels is None else names)


def _subset(source: Subset[Any]) -> Contents:
    whole, chosen = _of_dataset(source.dataset), [int(i) for i in source.indices]
    if not chosen:
        raise ImageError(f"the subset of {whole.name} is empty")
    if len(set(chosen)) < len(chosen):
        raise ImageError(f"the subset of {whole.name} holds an image twice")
    labels = None if whole.labels is None else [whole.labels[i] for i in chosen]
    return Contents([whole.images[i] for i in chosen], whole.name, labels, whole.classes)


def _joined(parts: Sequence[Contents], name: str) -> Contents:
    labels, classes = joined_labels([(p.labels, p.classes) for p in parts])
    if labels is None and any(p.labels is not None for p in parts):
        raise ImageError(f"the parts of this {name} count different classes: give them one by one")
    images: list[LazyImage] = []
    for i, part in enumerate(parts):
        for image in part.images:
            copied = _renamed(image, f"{i}/{image.id}")
            images.append(copied)
    return Contents(images, name, labels, classes)


def joined_labels(
    parts: Sequence[tuple[list[int] | None, list[str] | None]],
) -> tuple[list[int] | None, list[str] | None]:
    """Labels and class names of several sets one after the other; None where they do not all count the same classes."""
    if any(labels is None for labels, _ in parts) or any(classes != parts[0][1] for _, classes in parts):
        return None, None
    return [label for labels, _ in parts for label in labels or ()], parts[0][1]


def _renamed(image: LazyImage, identity: str) -> LazyImage:
    import copy

    image = copy.copy(image)
    image.id = identity
    return image


def _iterated(source: Iterable[object], name: str) -> Contents:
    images, labels = [], []
    for i, item in enumerate(islice(source, MOST_ITERATED + 1)):
        if i == MOST_ITERATED:
            raise ImageError(f"{name} gives more than {MOST_ITERATED} images: give a data set with a length, or islice")
        try:
            image, label = pair_of(item)
            images.append(image_of(image, f"{name}-{i:06d}"))
        except ImageError as error:
            raise ImageError(f"cannot use item {i} of {name}: {error}") from error
        labels.append(label)
    if not images:
        raise ImageError(f"{name} gives no images (a generator can be read once only)")
    return Contents(images, name, *indices_of(labels))
