"""Images from a folder, an archive, a manifest, the scenes generator, arrays, a tensor or a data set, for a network."""

from __future__ import annotations

import copy
import hashlib
import os
import re
import tarfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from zoo.common.checks import whole_number
from zoo.errors import ImageError, shorten
from zoo.images import manifest
from zoo.images.datasets import (
    Contents,
    DatasetImage,
    class_of,
    contents,
    image_of,
    indices_of,
    joined_labels,
    tensor_images,
)
from zoo.images.decoding import MAX_BYTES, SUFFIXES, ArchiveImage, FileImage, LazyImage, MemoryImage, readable
from zoo.images.manifest import Annotation
from zoo.inputs import InputSpec
from zoo.progress import Progress, reporter

if TYPE_CHECKING:
    from zoo.scenes.generate import Scene

MAX_SCENES = 100_000
_SCENES = re.compile(r"scenes:(?:pairs/(\w+/\w+(?:/\w+)?):|shortcuts/([\w-]+(?:/\w+)?):)?(\d{1,9})(?:@(\d{1,9}))?")
_AHEAD = 2  # batches decoded ahead of the one in use

Source: TypeAlias = Union[
    str, "os.PathLike[str]", "Images", Image.Image, Tensor, npt.NDArray[Any], Iterable[object], Dataset[Any]
]


class Images(Sequence[Image.Image]):
    """Images in a fixed order, decoded when needed.

    Attributes:
        ids: a name for each, unique.
        name: where they came from, for people.
        labels: the class index of each, -1 for one without a class; None where no class is known.
        classes: names of the classes that `labels` counts, where known.
        annotations: what is drawn in each (label, parts with boxes and masks), where known.
        groups: the group of each, such as "boat without tag", where known.
        origin: how to open them again (`reopen`), as JSON holds it; None for those that came from memory.
    """

    origin: Mapping[str, Any] | None = None

    def __init__(
        self,
        images: Sequence[LazyImage],
        name: str,
        *,
        labels: Sequence[int] | None = None,
        classes: Sequence[str] | None = None,
        annotations: Sequence[Annotation] | None = None,
        groups: Sequence[str] | None = None,
    ) -> None:
        self._images = list(images)
        self.name = readable(name)
        self.ids = [image.id for image in self._images]
        self._labels = list(labels) if labels is not None else None
        self._classes = list(classes) if classes is not None else None
        # of data sets that do not list their labels, which have to be read item by item
        self._labels_to_read = labels is None and bool(images) and all(isinstance(i, DatasetImage) for i in images)
        self.annotations = list(annotations) if annotations is not None else None
        self.groups = list(groups) if groups is not None else None
        self._digest: str | None = None

    def __len__(self) -> int:
        return len(self._images)

    def __repr__(self) -> str:
        return f"Images({self.name!r}, {len(self)} images)"

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> Images: ...
    def __getitem__(self, index: int | slice) -> Image.Image | Images:
        if isinstance(index, slice):
            return self.subset(range(*index.indices(len(self))))
        return self.pil(index)

    @property
    def labels(self) -> list[int] | None:
        """See the class. Of a data set that does not list them they are read with the first use: with its images."""
        self._read_labels()
        return self._labels

    @labels.setter
    def labels(self, labels: Sequence[int] | None) -> None:
        self._labels, self._labels_to_read = None if labels is None else list(labels), False

    @property
    def classes(self) -> list[str] | None:
        """See the class."""
        self._read_labels()
        return self._classes

    @classes.setter
    def classes(self, classes: Sequence[str] | None) -> None:
        self._classes = None if classes is None else list(classes)

    def _read_labels(self) -> None:
        if not self._labels_to_read:
            return
        items = [image for image in self._images if isinstance(image, DatasetImage)]
        if items[0].label() is None:
            self.labels = None
            return
        self._labels_to_read = False
        self._labels, classes = indices_of([item.label() for item in items])
        self._classes = self._classes if classes is None else classes

    @property
    def digest(self) -> str:
        """SHA-256 over names and contents: which images these are, and in which order."""
        if self._digest is None:
            total = hashlib.sha256()
            for image in self._images:
                total.update(image.id.encode("utf-8", "surrogateescape") + b"\0" + image.digest())
            self._digest = total.hexdigest()
        return self._digest

    def contents(self) -> list[bytes]:
        """SHA-256 of the contents of each image: those of copies are the same, whatever they are called."""
        return [image.digest() for image in self._images]

    def label_name(self, index: int) -> str:
        """The class of an image, by its name where that is known; "unlabeled" without one."""
        label = -1 if self.labels is None else self.labels[index]
        return "unlabeled" if label < 0 else str(label) if self.classes is None else self.classes[label]

    def pil(self, index: int) -> Image.Image:
        """The whole image at `index`, upright, RGB."""
        return self._images[index].image()

    def extent(self, index: int) -> tuple[int, ...]:
        """Height and width of the image at `index`, or the length of each axis of a sequence or a volume."""
        return self._images[index].extent()

    def subset(self, indices: Sequence[int]) -> Images:
        """The images at `indices`, in that order."""
        chosen = [int(i) for i in indices]
        outside = [i for i in chosen if not -len(self) <= i < len(self)]
        if outside:
            raise ImageError(f"{self.name} has {len(self)} images; there is no image {outside[0]}")
        first = self._images[0] if self._labels_to_read else None
        if isinstance(first, DatasetImage) and isinstance(first.label(), str):
            self._read_labels()  # the names of all make the classes, also of a part
        return Images(
            [self._images[i] for i in chosen],
            self.name,
            labels=[self._labels[i] for i in chosen] if self._labels is not None else None,
            classes=self._classes,
            annotations=[self.annotations[i] for i in chosen] if self.annotations is not None else None,
            groups=[self.groups[i] for i in chosen] if self.groups is not None else None,
        )

    def annotated(self, annotations: Sequence[Annotation]) -> Images:
        """The same images with what is drawn in each, one annotation an image."""
        if len(annotations) != len(self):
            raise ImageError(f"{self.name} has {len(self)} images, not {len(annotations)} as there are annotations")
        same = copy.copy(self)
        same.annotations = list(annotations)
        return same

    def spread(self, most: int) -> Images:
        """At most so many of the images, over all: one of each of so many stretches, sampled at random, seed 0.

        Every k-th would be of a few classes only where classes take turns, as in rendered scenes.
        """
        if len(self) <= most:
            return self
        edges = np.arange(most + 1) * len(self) // most
        return self.subset(np.random.default_rng(0).integers(edges[:-1], edges[1:]).tolist())

    def tensor(self, spec: InputSpec, indices: Sequence[int] | None = None) -> Tensor:
        """Images as `spec` wants them: float32 `(N, channels, H, W)` in [0, 1], short side resized, center cropped.

        Raises:
            ImageError: an image that cannot be read, or of the wrong number of channels.
        """
        parts = [batch for _, batch in self.batches(spec, batch_size=256, indices=indices)]
        return torch.cat(parts) if parts else torch.empty(0, *spec.shape)

    def batches(
        self,
        spec: InputSpec,
        batch_size: int = 32,
        workers: int = 2,
        indices: Sequence[int] | None = None,
        progress: Progress = None,
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Batches in order, decoded in threads ahead of their use.

        Args:
            spec: size and channels.
            batch_size: images in a batch; the last may be smaller.
            workers: decoding threads; 0 decodes in the caller's.
            indices: which images; all by default.
            progress: True for a bar, or a function of (done, total).

        Yields:
            The indices of a batch, and its images `(n, channels, H, W)`, float32 in [0, 1].
        """
        whole_number("batch_size", batch_size, error=ImageError)
        chosen = list(range(len(self))) if indices is None else [int(i) for i in indices]
        groups = [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]
        done = 0
        with reporter(progress, "img") as report:
            for group, batch in self._decoded(spec, groups, workers):
                yield group, batch
                done += len(group)
                report(done, len(chosen))

    def _decoded(self, spec: InputSpec, groups: list[list[int]], workers: int) -> Iterator[tuple[list[int], Tensor]]:
        if workers < 1:
            for group in groups:
                yield group, _stack([self._images[i].pixels(spec) for i in group])
            return
        pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
        waiting: deque[tuple[list[int], list[Future[Tensor]]]] = deque()
        try:
            remaining = iter(groups)
            while True:
                for group in islice(remaining, _AHEAD + 1 - len(waiting)):
                    waiting.append((group, [pool.submit(self._images[i].pixels, spec) for i in group]))
                if not waiting:
                    return
                group, futures = waiting.popleft()
                yield group, _stack([future.result() for future in futures])
        finally:
            # Also on an error and when the caller stops early: no thread goes on decoding for nobody.
            pool.shutdown(wait=True, cancel_futures=True)


def _stack(images: list[Tensor]) -> Tensor:
    if all(image.dtype == torch.uint8 for image in images):
        stacked = np.stack([image.numpy() for image in images])
        return torch.from_numpy(np.divide(stacked, np.float32(255), dtype=np.float32))
    return torch.stack([p.to(torch.float32) / 255 if p.dtype == torch.uint8 else p for p in images])


@lru_cache(maxsize=4)
def _scenes(count: int, seed: int, pair: str | None, shortcut: str | None) -> Images:
    """Scenes of a data set; with `pair`, those of one side of minimal pairs: CLASS/PART or CLASS/PART/CHANGE; with
    `shortcut`, those with a planted shortcut: NAME or NAME/STATE.
    """
    from zoo.scenes import generate, minimal_pairs, shortcuts

    if shortcut is not None:
        name, _, state = shortcut.partition("/")
        scenes = list(shortcuts.scenes(name, count, seed, state or "natural"))
        images = _of_scenes(scenes, f"scenes:shortcuts/{shortcut}", count, seed, shortcuts.CLASSES)
        images.groups = [scene.group for scene in scenes]
        return images
    if pair is None:
        return _of_scenes(generate.dataset(count, seed), "scenes", count, seed)
    kind, part, change = (*pair.split("/"), "")[:3]
    both = minimal_pairs.pairs(count, kind, part, change or minimal_pairs.CHANGES[0], seed)
    return _of_scenes((p.changed if change else p.original for p in both), f"scenes:pairs/{pair}", count, seed)


def scene_pairs(kind: str, part: str, change: str, count: int, seed: int) -> tuple[Images, Images]:
    """Both sides of minimal pairs, drawn once: "scenes:pairs/KIND/PART:COUNT@SEED" and ".../KIND/PART/CHANGE:...".

    Raises:
        ImageError: no such class, part or change.
    """
    from zoo.scenes import minimal_pairs

    both, name = list(minimal_pairs.pairs(count, kind, part, change, seed)), f"scenes:pairs/{kind}/{part}"
    return (
        _of_scenes([p.original for p in both], name, count, seed),
        _of_scenes([p.changed for p in both], f"{name}/{change}", count, seed),
    )


def _of_scenes(
    scenes: Iterable[Scene], name: str, count: int, seed: int, classes: Sequence[str] | None = None
) -> Images:
    from zoo.scenes import generate

    images, labels, annotations = [], [], []
    for index, scene in enumerate(scenes):
        images.append(MemoryImage(f"{name}@{seed}/{index:06d}", Image.fromarray(scene.image)))
        labels.append(scene.label_index)
        annotations.append(manifest.annotate(scene))
    title = f"{name}:{count}@{seed}"
    return Images(images, title, labels=labels, classes=classes or generate.CLASSES, annotations=annotations)


def _open_scenes(text: str) -> Images:
    match = _SCENES.fullmatch(text)
    if match is None:
        raise ImageError(
            f"{shorten(text)!r}: scenes are given as scenes:COUNT or scenes:COUNT@SEED, minimal pairs as "
            "scenes:pairs/car/wheel:COUNT and scenes:pairs/car/wheel/removed:COUNT, and planted shortcuts as "
            "scenes:shortcuts/tag-bus-95:COUNT and scenes:shortcuts/tag-bus-95/balanced:COUNT"
        )
    count, seed = int(match[3]), int(match[4] or 0)
    if not 1 <= count <= MAX_SCENES:
        raise ImageError(f"between 1 and {MAX_SCENES} scenes can be drawn, not {count}")
    return _scenes(count, seed, match[1], match[2])


def _open_folder(folder: Path) -> Images:
    described = manifest.read(folder / manifest.FILENAME)
    if described is not None:
        return _open_manifest(folder, described)
    try:
        files = sorted(_image_files(folder), key=lambda path: path.relative_to(folder).as_posix())
    except OSError as error:
        raise ImageError(f"cannot read the folder {shorten(folder, 200)}: {error.strerror}") from error
    if not files:
        raise ImageError(
            f"there is no image in the folder {shorten(folder, 200)} "
            f"(looked for {', '.join(sorted(SUFFIXES))}, also in its subfolders)"
        )
    return Images([FileImage(readable(path.relative_to(folder).as_posix()), path) for path in files], folder.name)


_NOT_OF_USERS = frozenset(["__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "lost+found"])
"""Folders in which systems keep deleted files, thumbnails and resource forks."""


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is a system's or a program's own, and not a user's image."""
    return name.startswith(".") or name in _NOT_OF_USERS


def _image_files(folder: Path) -> Iterator[Path]:
    """Image files in a folder and its subfolders, linked ones included; nothing that is hidden.

    Jupyter's checkpoints, the trash and the resource forks of macOS are hidden. A link to a folder that it lies in
    itself is not followed.
    """
    inside: dict[str, frozenset[tuple[int, int]]] = {}  # folder -> itself and those that it was reached through
    for root, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        status = os.stat(root)
        above = inside.pop(root, frozenset())
        itself = (status.st_dev, status.st_ino)
        if itself in above:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not hidden(name)]
        inside |= {os.path.join(root, name): above | {itself} for name in folders}
        yield from (Path(root) / name for name in files if Path(name).suffix.lower() in SUFFIXES and not hidden(name))


def _refuse(error: OSError) -> None:
    raise error


def _open_manifest(folder: Path, described: manifest.Manifest) -> Images:
    return Images(
        [FileImage(entry.file, folder / entry.file) for entry in described.entries],
        described.name,
        labels=described.labels,
        classes=described.classes,
        annotations=described.annotations,
    )


def _open_path(path: Path) -> Images:
    if os.path.isdir(path):
        return _open_folder(path)
    if not os.path.isfile(path):
        raise ImageError(
            f"there is no folder or image at {shorten(path, 200)}: give a folder of images, an image, or scenes:COUNT"
        )
    if path.name == manifest.FILENAME or path.suffix.lower() == ".json":
        described = manifest.read(path)
        if described is None:
            raise ImageError(f"{shorten(path, 200)} is not a manifest written by `circuits images`")
        return _open_manifest(path.parent, described)
    if path.suffix.lower() == ".tar" or path.name.lower().endswith(
        (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
    ):
        return _open_archive(path)
    return Images([FileImage(readable(path.name), path)], path.name)


def _open_archive(path: Path) -> Images:
    """Images of a tar archive, in the order of their names; each is read where it lies, nothing is unpacked."""
    try:
        with tarfile.open(path, "r:") as archive:
            files = [m for m in archive if m.isreg() and not any(hidden(part) for part in Path(m.name).parts)]
            _check_members(files, path)
            classes_by_key = {_key(m.name): class_of(_content(archive, m)) for m in files if m.name.endswith(".cls")}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ImageError(
            f"cannot read the archive {shorten(path, 200)}: {shorten(error, 100)}. "
            "It must be a plain .tar (a compressed one cannot be read at any place: unpack it, or pack it again)"
        ) from error
    members = [m for m in files if Path(m.name).suffix.lower() in SUFFIXES]
    if not members:
        raise ImageError(f"there is no image in the archive {shorten(path, 200)}")
    members.sort(key=lambda m: m.name)
    names = [readable(m.name.removeprefix("./")) for m in members]
    if len(set(names)) < len(names):
        twice = next(n for n, after in zip(names, names[1:], strict=False) if n == after)
        raise ImageError(f"the archive {shorten(path, 200)} holds {shorten(twice)} twice")
    images = [ArchiveImage(n, path, m.offset_data, m.size) for n, m in zip(names, members, strict=True)]
    labels, classes = indices_of([classes_by_key.get(_key(m.name)) for m in members])
    return Images(images, path.name, labels=labels, classes=classes)


def _check_members(members: Sequence[tarfile.TarInfo], path: Path) -> None:
    """Refuse files that a damaged or a hostile archive says are of less than nothing, or end behind its own end."""
    end = path.stat().st_size
    for member in members:
        if not 0 <= member.size <= min(end - member.offset_data, MAX_BYTES):
            raise ImageError(
                f"the archive {shorten(path, 200)} is damaged: {shorten(member.name)} cannot have {member.size} bytes"
            )


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read(1000)


def _key(name: str) -> str:
    """What the files of one sample share in a shard of webdataset: the name up to its first dot."""
    folder, _, file = name.removeprefix("./").rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


_SHARDS = re.compile(r"\{(\d+)\.\.(\d+)\}")


def _shards(path: str) -> list[str] | None:
    """The files that `shard-{000..012}.tar` stands for; None where a path is no such pattern."""
    match = _SHARDS.search(path)
    if match is None or os.path.exists(path):
        return None
    first, last = int(match[1]), int(match[2])
    if not first <= last < first + 10_000:
        raise ImageError(f"{shorten(path, 200)}: shards are numbered upwards, at most 10,000")
    width = len(match[1])
    return [f"{path[: match.start()]}{i:0{width}d}{path[match.end() :]}" for i in range(first, last + 1)]


def _open_item(item: object, index: int) -> Contents:
    """The images of an entry of a list: a path, an image, or (either, class)."""
    if isinstance(item, str | os.PathLike):
        opened = _open_path(Path(item).expanduser())
        images = [renamed for p in opened._images if (renamed := _in_list(p, str(item))) is not None]
        return Contents(images, opened.name, opened.labels, opened.classes)
    if isinstance(item, tuple):
        if len(item) != 2 or class_of(item[1]) is None or isinstance(item[0], tuple):
            raise ImageError(
                f"entry {index} of the list is a tuple, and not an image with its class: (image, 3) or (image, 'dog')"
            )
        opened_item = _open_item(item[0], index)
        return opened_item
    return Contents([image_of(item, f"picture-{index:06d}")], "picture")


def _open_list(items: Sequence[object]) -> Images:
    parts = [_open_item(item, i) for i, item in enumerate(items)]
    images = [image for part in parts for image in part.images]
    if not images:
        raise ImageError("the list of images is empty")
    if any(isinstance(item, tuple) for item in items):
        given = [class_of(item[1]) if isinstance(item, tuple) else None for item in items]
        each = [label for label, part in zip(given, parts, strict=True) for _ in part.images]
        labels, classes = indices_of(each)
    else:
        labels, classes = joined_labels([(part.labels, part.classes) for part in parts])
    return Images(images, "list", labels=labels, classes=classes)


def _in_list(image: LazyImage, item: str) -> LazyImage | None:
    """An image of a list, under a name that no other entry of the list gives."""
    if isinstance(image, FileImage):
        single = Path(item).expanduser() == image.path
        return FileImage(readable(item) if single else f"{readable(item)}/{image.id}", image.path)
    if isinstance(image, ArchiveImage):
        return ArchiveImage(f"{readable(item)}/{image.id}", image.path, image.offset, image.size)
    return None


def _open(source: Source) -> Images:
    if isinstance(source, Images):
        return source
    if isinstance(source, str) and (source.startswith("scenes:") or (source == "scenes" and not os.path.isdir(source))):
        return _open_scenes(source)
    if isinstance(source, str | os.PathLike):
        shards = _shards(os.fspath(source))
        return _open_path(Path(source).expanduser()) if shards is None else _open_list(shards)
    if isinstance(source, Tensor):
        return Images(tensor_images(source), "tensor")
    if isinstance(source, Image.Image):
        return Images([image_of(source, "picture-000000")], "picture")
    if isinstance(source, np.ndarray):
        return Images([image_of(item, f"picture-{i:06d}") for i, item in enumerate(_each(source))], "array")
    if isinstance(source, list | tuple):
        return _open_list(source)
    dataset = contents(source)
    if dataset is None:
        raise ImageError(
            "images come from a folder, scenes:COUNT, a list, a tensor, a data set or an iterable, "
            f"not a {type(source).__name__}"
        )
    return Images(dataset.images, dataset.name, labels=dataset.labels, classes=dataset.classes)


def _each(array: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    if array.ndim == 4 and len(array):
        return list(array)
    if array.ndim in (2, 3) and array.size:
        return [array]
    raise ImageError(f"an array of images is (N, H, W, 3), not {array.shape}")


def open_images(source: Source, *, limit: int | None = None, seed: int = 0) -> Images:
    """Images from wherever they are.

    Args:
        source: a folder (searched through, sorted by name; links are followed, hidden files left out), a folder or
            manifest.json written by `circuits images`, a .tar archive, one image, "scenes:500" or "scenes:500@7"
            (drawn from seed 0, or 7), "scenes:pairs/car/wheel:100" and "scenes:pairs/car/wheel/removed:100" (the two
            sides of minimal pairs, image by image; see `zoo.scenes.minimal_pairs`), "scenes:shortcuts/tag-bus-95:100"
            (with a planted shortcut; see `zoo.scenes.shortcuts`), a list of paths, PIL images,
            arrays or tensors, a tensor `(N, channels, H, W)` in [0, 1], or `Images`.
        limit: at most so many, drawn at random from `seed`, in their original order.
        seed: of that draw.

    Raises:
        ImageError: nothing there, nothing readable, or not images. A damaged file is reported when it is decoded.

    Example:
        >>> len(open_images(torch.rand(5, 3, 8, 8), limit=2))
        2
    """
    if limit is not None and limit < 1:
        raise ImageError(f"the limit on images is at least 1, not {limit}")
    images = _open(source)
    if isinstance(source, Images) and (limit is None or limit >= len(images)):
        return images
    if limit is not None and limit < len(images):
        chosen = np.sort(np.random.default_rng(seed).permutation(len(images))[:limit])
        images = images.subset(chosen.tolist())
    sources = _lasting(source)
    if sources is not None:
        images = copy.copy(images)  # rendered scenes are cached
        images.origin = {"sources": sources, "limit": limit, "seed": seed}
    return images


def reopen(origin: Mapping[str, Any]) -> Images:
    """The images that were opened as `origin` describes.

    Raises:
        ImageError: it describes no images, or they are not there any more.
    """
    try:
        sources, limit, seed = list(origin["sources"]), origin["limit"], int(origin["seed"])
        if not sources or not all(isinstance(s, str) for s in sources) or not isinstance(limit, int | None):
            raise TypeError("sources or limit of the wrong kind")
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(f"this does not describe where images are: {shorten(origin, 100)}") from error
    return open_images(sources[0] if len(sources) == 1 else sources, limit=limit, seed=seed)


def _lasting(source: Source) -> list[str] | None:
    """Where images lie, for somebody in another folder; None where they came from memory."""
    if isinstance(source, str) and source.startswith("scenes:"):
        return [source]
    if isinstance(source, str | os.PathLike):
        return [str(Path(source).expanduser().absolute())]
    if isinstance(source, list | tuple) and all(isinstance(s, str | os.PathLike) for s in source):
        return [str(Path(str(s)).expanduser().absolute()) for s in source]
    return None
