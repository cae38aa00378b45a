"""Activations of images on disk, so that the same pass over them is not run again for every unit that is looked at.

A file a layer holds its rows: which values are not zero, as bits, and those values. After a ReLU most are zero, and to
read them takes a fraction of the time of a pass. The folder is bounded in bytes; layers read least recently go first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.errors import CircuitsError
from zoo.common import result_files
from zoo.common.results import Result

MOST = 256 << 20
"""Bytes of a folder."""


@dataclass(frozen=True)
class Rows(Result):
    """Activations of a layer on some images.

    Attributes:
        weights: digest of the network's; images: digest of each image; shape: `(C, h, w)`.
        together: whether channels lie beside each other, in `bits` and `values` too.
        bits: which are not zero, `(images, ceil(C h w / 8))`; counts: how many of each image.
        values: those, image by image.
    """

    weights: str
    images: tuple[str, ...]
    shape: tuple[int, int, int]
    together: bool
    bits: NDArray[np.uint8]
    counts: NDArray[np.int64]
    values: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Bytes of a file."""
        return self.bits.nbytes + self.values.nbytes

    def dense(self, images: Sequence[str]) -> Tensor:
        """`(N, C, h, w)` of some of the images, in the order given."""
        row_of = {name: row for row, name in enumerate(self.images)}
        channels, height, width = self.shape
        size = channels * height * width
        ends = np.cumsum([0, *self.counts])
        out = np.zeros((len(images), size), np.float32)
        for row, number in zip(out, (row_of[name] for name in images), strict=True):
            active = np.unpackbits(self.bits[number], count=size).view(bool)
            row[active] = self.values[ends[number] : ends[number + 1]]
        maps = torch.from_numpy(out)
        if self.together:
            return maps.view(len(images), height, width, channels).permute(0, 3, 1, 2)
        return maps.view(len(images), *self.shape)


def rows_of(weights: str, images: Sequence[str], acts: Tensor) -> Rows:
    """Activations `(n, C, h, w)` of a layer on images."""
    _, channels, height, width = acts.shape
    together = acts.is_contiguous(memory_format=torch.channels_last)
    flat = (acts.permute(0, 2, 3, 1) if together else acts).reshape(len(acts), -1).numpy()
    active = flat != 0
    bits, counts = np.packbits(active, axis=1), active.sum(axis=1, dtype=np.int64)
    return Rows(weights, tuple(images), (channels, height, width), together, bits, counts, flat[active])


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of a layer on further images, one after the other."""
    images = tuple(image for part in parts for image in part.images)
    bits, counts, values = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("bits", "counts", "values")
    )
    return replace(parts[0], images=images, bits=bits, counts=counts, values=values)


class KeptActivations:
    """The activations that a folder keeps.

    Args:
        folder: where; weights: digest of the network's. Files of other weights are written anew.
    """

    def __init__(self, folder: Path, weights: str) -> None:
        self.folder, self.weights = folder, weights

    def rows(self, layer: str) -> Rows | None:
        """What is kept of a layer; None where there is nothing, or a file that cannot be read."""
        path = self._path(layer)
        with contextlib.suppress(CircuitsError, OSError):
            rows = result_files.read(path)
            if isinstance(rows, Rows) and rows.weights == self.weights:
                os.utime(path)
                return rows
        return None

    def write(self, layer: str, rows: Rows) -> None:
        """Keep the rows of a layer, instead of those that are there, where the disk takes them."""
        if rows.nbytes <= MOST:
            with contextlib.suppress(CircuitsError, OSError):
                result_files.write(self._path(layer), rows)
                bound(self.folder, MOST)

    def _path(self, layer: str) -> Path:
        return self.folder / f"{hashlib.sha256(layer.encode()).hexdigest()[:32]}.safetensors"


def bound(folder: Path, most: int) -> None:
    """Remove the files that were read least recently, as far as all are larger than `most` bytes."""
    files = sorted(((p.stat().st_mtime_ns, p.stat().st_size, p) for p in folder.glob("*.safetensors")), reverse=True)
    total = 0
    for _, size, path in files:
        total += size
        if total > most:
            path.unlink(missing_ok=True)
