"""One pass over images for all units of some layers: dataset examples, histograms, quantiles, samples.

Images are read in chunks of a fixed size. The statistics of a chunk do not depend on the other chunks, and they are
combined exactly: a scan that was stopped and resumed, or shared by several processes, ends with the same bytes as one
that ran through.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, distributed

from circuits.common.provenance import provenance
from circuits.dataset.reservoir import Arrays, Ints
from circuits.dataset.scan_results import Scan
from circuits.dataset.scan_store import (
    IMAGES,
    KIND,
    LAYERS,
    LOCK,
    MANIFEST,
    NEXT,
    PARTIAL,
    SAMPLES,
    SCANS,
    SCHEMA,
    StoreError,
    check_links,
    digest_of_manifest,
    folder_of,
    move_next,
    own_card,
    read_manifest,
)
from circuits.dataset.scan_targets import Site, sites_of
from circuits.dataset.streaming_statistics import Plan, Tally, ThreadPool
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.basis import basis_digest
from circuits.network.hooks import visit
from circuits.network.model import Model
from zoo.common.checks import whole_number
from zoo.common.files import tidy
from zoo.common.stored import named, sha256
from zoo.images.sources import Images, open_images
from zoo.progress import Progress, reporter

logger = logging.getLogger(__name__)

BATCHES = 8
"""Batches of a chunk."""
_SAVE_EVERY = 10.0
"""Seconds of work that a killed scan loses at most, besides the chunk it was in and what writes its result."""
_PARTIAL_FILE = "rank-{}.safetensors"


def scan(
    model: Model,
    images: Any,
    store: str | Path,
    *,
    layers: Sequence[str] | None = None,
    plan: Plan | None = None,
    seed: int = 0,
    batch_size: int = 8,
    workers: int = 2,
    replace: bool = False,
    progress: Progress = None,
) -> Scan:
    """Statistics and example images of every unit of some layers, in one pass over the images, kept in a store.

    Per unit: how often it is active, its histogram (before the ReLU), quantiles, the images and positions where it
    responds most, in bands between quantiles, at random, about zero and most negatively, and its responses at positions
    sampled at random. Memory does not grow with the number of images. A scan that was killed goes on where it stopped,
    and ends with the same bytes; a finished one is read, not made again. Under `torchrun` each process takes its
    share of the images.

    Args:
        model: the model.
        images: images in any form that `capture` takes.
        store: a folder, made if need be; it may hold scans of several models.
        layers: names of layers, or of bases attached to them (`mixed4c~sae`); by default every rectified layer and
            the trunk.
        plan: how many examples and samples are kept.
        seed: of what is sampled at random; that of `plan`, where it is given.
        batch_size: images per forward pass. Results are the same for any, up to the rounding of the network itself.
        workers: threads that decode images.
        replace: make it again, whatever the store holds of this model. The scan before is there until the new one is
            whole; one that was killed goes on where it stopped.
        progress: True for a bar, or a function of (done, total) images.

    Raises:
        AddressError: unknown layer. ImageError: no readable images.
        StoreError: the store holds a scan of other weights, images or settings, or another process is writing it.

    >>> scan(load("scenes"), "scenes:20", "store").unit("mixed4a:11").active_images  # doctest: +SKIP
    5
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise CircuitsError(f"a batch has at least one image, not {batch_size!r}")
    if not isinstance(workers, int) or workers < 0:
        raise CircuitsError(f"workers={workers!r} must be a whole number of at least 0")
    begun = time.perf_counter()
    sites = sites_of(model, layers)
    dataset = open_images(images)
    chosen = Plan(seed=seed) if plan is None else plan
    folder = folder_of(store, model.name)
    _make_folder(folder)
    identity = _identity(model, dataset, sites, chosen, batch_size)
    with _Ranks() as ranks:
        with _locked(folder) if ranks.first else contextlib.nullcontext():
            if ranks.first:
                _prepare(folder, identity, replace)
            ranks.wait()
            if not replace and read_manifest(folder) is not None:
                return Scan(folder)
            with ThreadPool() as pool:
                work = _Work(model, dataset, sites, chosen, batch_size, workers, folder, identity, pool, progress)
                waited, own = work.run(ranks)
            ranks.wait()
            if ranks.first:
                _finish(model, folder, identity, sites, chosen, dataset, own)
            ranks.wait()
    return Scan(folder, waited=waited, seconds=time.perf_counter() - begun)


# -- identity -------------------------------------------------------------------------------------


def _identity(model: Model, dataset: Images, sites: Sequence[Site], plan: Plan, batch_size: int) -> dict[str, Any]:
    """Settings and digests; two scans are the same where these are equal."""
    bases = {site.name: basis_digest(model.basis(*site.name.split("~", 1))) for site in sites if "~" in site.name}
    return {
        **({"bases": bases} if bases else {}),
        "model": model.name,
        "weights": model.digest,
        "input": _input_of(model),
        "images": dataset.digest,
        "count": len(dataset),
        "layers": [site.name for site in sites],
        "plan": asdict(plan),
        "batch_size": batch_size,
    }


def _input_of(model: Model) -> dict[str, Any]:
    """How images are fed, as JSON; scans of earlier versions know no range."""
    fields = json.loads(json.dumps(asdict(model.input)))
    return fields if model.input.range != (0.0, 1.0) else {k: v for k, v in fields.items() if k != "range"}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the store {named(folder)} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreError(f"another scan is writing {named(folder)}; wait for it, or give another store") from error
    except OSError as error:  # its lock is a link, or a folder
        raise StoreError(f"the store {named(folder)} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def _prepare(folder: Path, identity: dict[str, Any], replace: bool) -> None:
    """Make the folder ready: keep what is of this scan, refuse another one, unless it may be replaced."""
    check_links(folder)
    try:
        move_next(folder)
    except StoreError:  # its writer was killed, and a file it left is damaged
        if not replace:
            raise
        shutil.rmtree(folder / NEXT)
    manifest = None if replace else read_manifest(folder)
    if manifest is not None:
        _same(folder, manifest["asked"], identity)
        return
    tidy(folder / PARTIAL)
    for path in sorted((folder / PARTIAL).glob("*.safetensors")):
        try:
            _same(folder, SCANS.read_about(path).get("asked"), identity)
        except StoreError:
            if not replace:
                raise
            path.unlink()


_DIFFERENCES = {
    "weights": "other weights",
    "bases": "a basis (an SAE) that was another then",
    "input": "another input size or normalization",
    "images": "other images",
    "count": "another number of images",
    "layers": "other layers",
    "plan": "another plan or seed",
    "batch_size": "another batch size",
}


def _same(folder: Path, stored: Any, identity: dict[str, Any]) -> None:
    former = stored if isinstance(stored, dict) else {}
    other = [difference for key, difference in _DIFFERENCES.items() if former.get(key) != identity.get(key)]
    if other:
        raise StoreError(
            f"{named(folder)} holds a scan with {', '.join(other)}: give another store, or replace it (--replace)"
        )


# -- the pass -------------------------------------------------------------------------------------


class _Ranks:
    """The processes that share a scan: those of torch.distributed, or this one alone."""

    def __init__(self) -> None:
        self._mine = False

    def __enter__(self) -> _Ranks:
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ
        if distributed.is_available() and not distributed.is_initialized() and several:
            distributed.init_process_group("gloo")
            self._mine = True
        there = distributed.is_available() and distributed.is_initialized()
        self.rank, self.world = (distributed.get_rank(), distributed.get_world_size()) if there else (0, 1)
        return self

    def __exit__(self, *_: object) -> None:
        if self._mine:
            distributed.destroy_process_group()

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.world > 1:
            distributed.barrier()


@dataclass
class _Work:
    """One process's share of a scan."""

    model: Model
    dataset: Images
    sites: Sequence[Site]
    plan: Plan
    batch_size: int
    workers: int
    folder: Path
    identity: dict[str, Any]
    pool: ThreadPool
    progress: Progress

    def run(self, ranks: _Ranks) -> tuple[float, dict[str, Tally]]:
        """Measure the chunks that no process has measured yet.

        Returns the seconds spent waiting for images, and the tallies of all that this process has measured. They are in
        its file, too, where other processes share the scan.
        """
        path = self.folder / PARTIAL / _PARTIAL_FILE.format(ranks.rank)
        tallies = new_tallies(self.sites, self.plan)
        done = _resume(path, tallies)
        counted = {
            chunk for other in sorted(path.parent.glob("*.safetensors")) for chunk in SCANS.read_about(other)["done"]
        }
        ranks.wait()  # before any process writes, so that all see the same chunks remaining
        size = BATCHES * self.batch_size
        chunks = range((len(self.dataset) + size - 1) // size)
        remaining = [chunk for chunk in chunks if chunk not in counted][ranks.rank :: ranks.world]
        inside = {chunk: range(chunk * size, min((chunk + 1) * size, len(self.dataset))) for chunk in chunks}
        before = sum(len(inside[chunk]) for chunk in done)
        total = before + sum(len(inside[chunk]) for chunk in remaining)
        waited, saved = 0.0, time.perf_counter()
        with reporter(self.progress, "img") as report:
            report(before, total)
            for chunk in remaining:
                for seconds, count in self._chunk(inside[chunk], tallies):
                    waited, before = waited + seconds, before + count
                    report(before, total)
                done.append(chunk)
                others_wait = ranks.world > 1 and chunk == remaining[-1]
                if time.perf_counter() - saved > _SAVE_EVERY or others_wait:
                    _save(path, tallies, {"asked": self.identity, "done": sorted(done)})
                    saved = time.perf_counter()
        return waited, tallies

    def _chunk(self, indices: range, tallies: dict[str, Tally]) -> Iterator[tuple[float, int]]:
        began = time.perf_counter()
        names = list(dict.fromkeys(site.read for site in self.sites))
        for group, batch in self.dataset.batches(self.model.input, self.batch_size, self.workers, indices):
            waited = time.perf_counter() - began
            images = np.asarray(group, np.int64)
            with torch.no_grad():
                visit(self.model, batch, names, lambda name, acts: self._take(name, acts, images, tallies))  # noqa: B023
            yield waited, len(group)
            began = time.perf_counter()
        for tally in tallies.values():
            tally.settle()

    def _take(self, name: str, acts: Tensor, images: Ints, tallies: dict[str, Tally]) -> None:
        for site in self.sites:
            if site.read == name:
                tallies[site.name].take(images, acts if site.encode is None else site.encode(acts), self.pool)


def new_tallies(sites: Sequence[Site], plan: Plan) -> dict[str, Tally]:
    """An empty tally for every site."""
    return {site.name: Tally(site.name, site.units, site.size, plan) for site in sites}


def _save(path: Path, tallies: dict[str, Tally], about: dict[str, Any]) -> None:
    arrays = {f"{name}/{key}": v for name, tally in tallies.items() for key, v in tally.arrays().items()}
    SCANS.write_tensors(path, arrays, about)


def _resume(path: Path, tallies: dict[str, Tally]) -> list[int]:
    """Load the tallies that `_save` wrote; returns the chunks that are in them."""
    if not path.is_file():
        return []
    for name, tally in tallies.items():
        tally.load(SCANS.read_tensors(path, prefix=f"{name}/", framework="numpy", expected=tally.expected()))
    with SCANS.parsing(path):
        done = [whole_number("a chunk", chunk, least=0) for chunk in SCANS.read_about(path)["done"]]
    logger.info("resuming a scan of which %d chunks are done", len(done))
    return done


# -- the end --------------------------------------------------------------------------------------


def _finish(
    model: Model,
    folder: Path,
    identity: dict[str, Any],
    sites: Sequence[Site],
    plan: Plan,
    dataset: Images,
    own: dict[str, Tally],
) -> None:
    """Put together what all processes counted, write it aside, and let it take the place of the scan before."""
    partial = sorted((folder / PARTIAL).glob("*.safetensors"))
    others = [path for path in partial if path.name != _PARTIAL_FILE.format(0)]
    aside = folder / NEXT
    shutil.rmtree(aside, ignore_errors=True)
    files: dict[str, str] = {}
    for site in sites:
        tally = own[site.name]
        for path in others:
            part = new_tallies([site], plan)[site.name]
            part.load(SCANS.read_tensors(path, prefix=f"{site.name}/", framework="numpy", expected=part.expected()))
            tally.merge(part)
        of_layer = _layer_arrays(model, site, tally)
        of_samples = {"ticket": tally.sample_ticket, "values": tally.sample_values}
        for subfolder, arrays in ((LAYERS, of_layer), (SAMPLES, of_samples)):
            name = f"{subfolder}/{site.name}.safetensors"
            SCANS.write_tensors(aside / name, arrays)
            files[name] = sha256(aside / name)
    labels = None if dataset.labels is None else [dataset.label_name(i) for i in range(len(dataset))]
    SCANS.write_json(aside / IMAGES, {"schema": SCHEMA, "ids": dataset.ids, "labels": labels})
    files[IMAGES] = sha256(aside / IMAGES)
    manifest = {
        "kind": KIND,
        "schema": SCHEMA,
        "model": model.name,
        "weights": model.digest,
        "input": identity["input"],
        "images": {"name": dataset.name, "digest": dataset.digest, "origin": dataset.origin},
        "count": len(dataset),
        "plan": asdict(plan),
        "layers": {s.name: {"units": s.units, "size": list(s.size), "signed": s.signed} for s in sites},
        "asked": identity,
        "files": files,
        "provenance": provenance(weights=model.digest, images=dataset.digest, seed=plan.seed),
    }
    if (card := own_card(model)) is not None:  # any other model is known by its name
        manifest["card"] = card
    SCANS.write_json(aside / MANIFEST, {**manifest, "digest": digest_of_manifest(manifest)})
    move_next(folder)
    for path in partial:
        path.unlink()
    with contextlib.suppress(OSError):
        (folder / PARTIAL).rmdir()


def _layer_arrays(model: Model, site: Site, tally: Tally) -> Arrays:
    counts = tally.counts[:, :, 1:]
    used = np.flatnonzero(counts.any(axis=(0, 1)))
    first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
    fields, field_of = _fields(model, site)
    examples = {
        key: values
        for name in ("top", "lowest", "near", "random")
        for key, values in getattr(tally, name).arrays(name).items()
        if not key.endswith((".rank", ".ticket"))
    }
    return {
        **{name: values if name.endswith("value") else values.astype(np.int32) for name, values in examples.items()},
        **tally.bands.arrays("bands"),
        "counts": counts[:, :, first:last],
        "first_bin": np.array([first + 1]),
        "tiny": tally.counts[:, :, 0].sum(axis=1),
        "total": tally.total.sum(axis=0),
        "images": np.array([tally.images]),
        "fires_on": tally.active_images,
        "field": fields,
        "field_of": field_of,
    }


def _fields(model: Model, site: Site) -> tuple[Ints, Ints]:
    """The receptive fields there are, `(k, 6)`: size, stride, offset (-1: the whole image); and whose is which."""
    basis = site.name.partition("~")[2] or None
    rows: dict[tuple[int, ...], int] = {}
    of = []
    for index in range(site.units):
        field = model.receptive_field(Unit(site.layer.name, index, basis=basis))
        row = (-1,) * 6 if field is None else (*field.size, *field.stride, *field.offset)
        of.append(rows.setdefault(row, len(rows)))
    return np.array(list(rows), np.int64), np.array(of, np.int64)
