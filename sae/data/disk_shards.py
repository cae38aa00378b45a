"""Activations on disk: gathered once, found again by what they are, and read in order by any number of trainings.

A folder of a store is named after a digest of site, inputs and sampling, so that the same question finds the
same vectors. It holds `manifest.json` and shards, each a safetensors file with the vectors of some inputs that
follow each other. A killed run leaves whole shards only; the next goes on behind the last.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from filelock import FileLock
from torch import Tensor

from sae.checks import whole
from sae.data.activations import MEMORY, Sampling, about, opened
from sae.data.shuffle_buffer import WindowStream
from sae.data.site import Site, chosen
from sae.data.streams import DEFAULT_BATCH
from sae.errors import FormatError, SAEError, shorten
from zoo.common.reading import Count, Digest, Expected, Positive
from zoo.common.stored import Stored, sha256
from zoo.errors import FileError
from zoo.progress import Progress, reporter

SCHEMA = 1
KIND = "vision-circuits activations"
MANIFEST = "manifest.json"
Dtype = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Shard:
    """One file of a store.

    Attributes:
        file: its name; vectors: their number; stop: index of the first input after it; sha256: of the file.
    """

    file: str
    vectors: int
    stop: int
    sha256: str


class _Shard(TypedDict):
    file: str
    vectors: Count
    stop: Count
    sha256: Digest


class _Manifest(TypedDict):
    metadata: dict[str, Any]
    axes: list[str]
    dtype: Dtype
    d: Positive
    inputs: Count
    shards: list[_Shard]


_SHARDS = Stored(
    "the manifest of stored activations",
    "Delete its folder and gather again",
    FormatError,
    SCHEMA,
    mark={"kind": KIND},
    shape=_Manifest,
)


class Shards:
    """Stored activations, as `store` and `open_shards` return them.

    Attributes:
        folder: of the shards; metadata: site, inputs, sampling; axes: names of the columns of positions.
        shards: in the order of the inputs; d: width of a vector; dtype: on disk.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder = folder
        self.metadata: dict[str, Any] = dict(manifest["metadata"])
        self.axes: tuple[str, ...] = tuple(manifest["axes"])
        self.dtype: str = manifest["dtype"]
        self.d, self.inputs = int(manifest["d"]), int(manifest["inputs"])
        self.shards = [Shard(**shard) for shard in manifest["shards"]]
        for shard in self.shards:
            if Path(shard.file).name != shard.file:
                raise FormatError(f"{folder / MANIFEST} names a shard outside its folder: {shorten(shard.file)}")
        self._checked: set[str] = set()

    def __len__(self) -> int:
        return sum(shard.vectors for shard in self.shards)

    @property
    def complete(self) -> bool:
        """Whether all inputs are stored."""
        return bool(self.shards) and self.shards[-1].stop == self.inputs

    @property
    def digest(self) -> str:
        """SHA-256 of the digests of the shards."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()

    def read(self, number: int) -> tuple[Tensor, Tensor]:
        """Vectors `(n, d)` and positions `(n, axes)` of a shard; its digest is checked when it is first read.

        Raises:
            FormatError: it is missing or damaged.
        """
        shard = self.shards[number]
        path = self.folder / shard.file
        if shard.file not in self._checked:
            _SHARDS.check_digest(path, shard.sha256)
            self._checked.add(shard.file)
        expected = {
            "vectors": Expected("real", (shard.vectors, self.d)),
            "places": Expected("whole", (shard.vectors, len(self.axes)), 0),
        }
        tensors = _SHARDS.read_tensors(path, expected=expected)
        return tensors["vectors"], tensors["places"]

    def tensor(self) -> Tensor:
        """All vectors `(n, d)`, float32."""
        if not self.shards:
            raise FormatError(f"{self.folder / MANIFEST} lists no activations: none were stored, or it is damaged")
        return torch.cat([self.read(i)[0].float() for i in range(len(self.shards))])

    def stream(
        self,
        batch_size: int = DEFAULT_BATCH,
        seed: int = 0,
        *,
        memory: int = MEMORY,
        device: str | torch.device | None = None,
    ) -> ShardStream:
        """Training batches; for the settings see `ShardStream`."""
        return ShardStream(self, batch_size, seed, memory=memory, device=device)


class ShardStream(WindowStream):
    """Batches from stored activations: shards are read whole, in random groups, and shuffled within a group.

    Args:
        shards: a complete store.
        batch_size: vectors per batch; seed: of the order.
        memory: bytes that a group of shards may take.
        device: of the groups (default: the CPU).
    """

    def __init__(
        self,
        shards: Shards,
        batch_size: int = DEFAULT_BATCH,
        seed: int = 0,
        *,
        memory: int = MEMORY,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__(batch_size, seed)
        whole("memory", memory)
        if not shards.complete:
            raise SAEError(f"{shards.folder} is not complete: gather again, it goes on where it stopped")
        self.shards, self.device = shards, device
        self.metadata = shards.metadata
        size = {"float32": 4}.get(shards.dtype, 2)
        self.windows = min(len(shards.shards), math.ceil(len(shards) * shards.d * size / memory))

    @property
    def digest(self) -> str:
        """Which vectors these are."""
        return self.shards.digest

    def load(self, epoch: int, window: int) -> Tensor:
        """The vectors of a group of shards."""
        numbers = self._split(len(self.shards.shards), epoch, window)
        parts = [self.shards.read(n)[0].to(self.device or "cpu") for n in numbers]
        return torch.cat(parts) if parts else torch.empty(0, self.shards.d, device=self.device)


def store(
    site: Site,
    inputs: Any,
    folder: str | Path,
    *,
    sampling: Sampling | None = None,
    dtype: Dtype = "float32",
    shard_bytes: int = 256 * 2**20,
    batch_size: int = 32,
    progress: Progress = None,
) -> Shards:
    """Gather activations into a store, or find them there; a run that was broken off goes on where it stopped.

    Args:
        site: a `VisionSite` or `LanguageSite`.
        inputs: images or texts.
        folder: of the store; each question gets a folder of its own in it.
        sampling: which positions (default: all).
        dtype: on disk; halves lose digits that no training needs, and halve the disk.
        shard_bytes: about how large a shard is.
        batch_size: inputs per forward pass.
        progress: True for a bar, or a function of (done, total).

    Raises:
        FormatError: the store is damaged. FileError: the disk does not take it; whole shards stay.
        SAEError: no activations, or values that are not finite.

    >>> shards = store(site, "scenes:1000", "activations")  # doctest: +SKIP
    >>> runs = sae.train(shards.stream(), sae.TopK(latents=512, k=8), steps=500)  # doctest: +SKIP
    """
    if dtype not in ("float32", "float16", "bfloat16"):
        raise SAEError(f"dtype={shorten(dtype)!r}: use 'float32', 'float16' or 'bfloat16'")
    whole("shard_bytes", shard_bytes)
    inputs = opened(site, inputs)
    sampling = sampling or Sampling()
    metadata = about(site, inputs, sampling)
    question = json.dumps([metadata, site.address, dtype], sort_keys=True)
    own = Path(folder).expanduser() / hashlib.sha256(question.encode()).hexdigest()[:24]
    manifest: dict[str, Any] = {
        "schema": SCHEMA, "kind": KIND, "metadata": metadata, "axes": list(site.axes), "dtype": dtype, "d": site.d,
        "inputs": len(inputs), "shards": [],
    }  # fmt: skip
    lock = FileLock(own / ".lock")
    try:
        own.mkdir(parents=True, exist_ok=True)
        held = lock.acquire()
    except OSError as error:
        raise FileError(
            f"cannot write into {shorten(folder, 200)}: {error.strerror or error}; give a folder"
        ) from error
    with held:
        existing = open_shards(own) if (own / MANIFEST).exists() else None
        if existing is not None:
            if existing.complete:
                return existing
            manifest["shards"] = [vars(shard) for shard in existing.shards]
        _fill(site, inputs, own, manifest, sampling, shard_bytes, batch_size, progress)
        return open_shards(own)


def _fill(
    site: Site, inputs: Any, own: Path, manifest: dict[str, Any], sampling: Sampling, shard_bytes: int,
    batch_size: int, progress: Progress,
) -> None:  # fmt: skip
    total = len(inputs)
    done: list[dict[str, Any]] = manifest["shards"]
    first = done[-1]["stop"] if done else 0
    dtype = getattr(torch, manifest["dtype"])
    parts: list[tuple[Tensor, Tensor]] = []
    size = 0
    rest = range(first, total)
    with reporter(progress, "inputs") as advance:
        advance(first, total)
        for block in site.blocks(chosen(inputs, rest), batch_size=batch_size):
            vectors, positions = sampling.pick(block, rest)
            if not bool(torch.isfinite(vectors).all()):
                raise SAEError(f"{site.address}: activations that are not finite, on inputs from {first + block.first}")
            parts.append((vectors.to(dtype).cpu(), positions))
            size += vectors.numel() * dtype.itemsize
            stop = first + block.first + len(block.acts)
            if size >= shard_bytes or stop == total:
                _write_shard(own, manifest, parts, stop)
                parts, size = [], 0
            advance(stop, total)
    if not sum(shard["vectors"] for shard in done):
        raise SAEError(f"{site.address}: no activations on {total} inputs")


def _write_shard(own: Path, manifest: dict[str, Any], parts: list[tuple[Tensor, Tensor]], stop: int) -> None:
    vectors, positions = (torch.cat(column).contiguous() for column in zip(*parts, strict=True))
    path = own / f"shard-{len(manifest['shards']):05d}.safetensors"
    _SHARDS.write_tensors(path, {"vectors": vectors, "places": positions})
    manifest["shards"].append(vars(Shard(path.name, len(vectors), stop, sha256(path))))
    _SHARDS.write_json(own / MANIFEST, manifest)


def open_shards(folder: str | Path) -> Shards:
    """Stored activations in `folder` (the one with the manifest).

    Raises:
        FormatError: there are none, of another version, or damaged.
    """
    own = Path(folder).expanduser()
    path = own / MANIFEST
    manifest = _SHARDS.read_document(path)
    if manifest is None:
        raise FormatError(f"no activations in {own}: it has no {MANIFEST}")
    with _SHARDS.parsing(path):
        return Shards(own, manifest)
