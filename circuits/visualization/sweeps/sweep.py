"""Visualizations of many units kept in a folder, batch by batch, so that a run that was stopped can go on.

The folder holds, for each picture, a PNG and a safetensors file (the picture, its history, its frames), and one
`index.json` with everything else: what was asked of which weights, and what came out.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.errors import VisualizationError, shorten
from circuits.network.address import Unit
from circuits.network.hooks import frozen, read
from circuits.network.model import Model
from circuits.visualization.evidence import examine
from circuits.visualization.optimization import layer_names, size_checked
from circuits.visualization.parametrizations import Fourier
from circuits.visualization.render import Job, batches_of, default_size, fitting, jobs_of, pixels_of, visualize
from circuits.visualization.result import Visualization
from circuits.visualization.sweeps.store import (
    INDEX,
    SCHEMA,
    SWEEPS,
    Index,
    file_name,
    read_index,
    with_pixels,
    write_files,
)
from circuits.visualization.transforms import standard
from zoo.common.stored import named, tidy
from zoo.images.sources import open_images
from zoo.progress import Progress, reporter

__all__ = ["file_name", "read_sweep", "sweep"]

log = logging.getLogger(__name__)

_NOT_SETTINGS = ("model", "what", "batch_size", "progress")


def sweep(
    model: Model,
    what: str | Unit | Iterable[str | Unit],
    store: str | os.PathLike[str],
    *,
    images: Any = None,
    progress: Progress = None,
    **options: Any,
) -> list[Visualization]:
    """Visualize units into a folder; the same call again goes on where the last one was stopped.

    After each batch its files and the index are written, each whole or not at all, so that a store survives being
    killed at any moment. Batches are those of the full list of units, whatever is there already: a batch of which
    anything is missing is made again as a whole. So on the CPU, with the same batch size and as many threads, the
    files of a run that was stopped and went on have the bytes of those of an unbroken run; with another batch size
    pictures differ by rounding. The batch size is kept in the store, and used again unless another one is given.

    Args:
        model: the model.
        what: addresses of units, neurons, latents, or whole layers; a unit named twice is made once.
        store: the folder; made if need be. Other files in it stay.
        images: photographs to compare with (see `examine`), whatever `zoo.open_images` takes; None leaves
            the evidence that the store has.
        progress: True for a bar, or a function of (done, total) in steps.
        **options: of `visualize`.

    Returns:
        One result per unit and variant, in the order asked; read back where they were there.

    Raises:
        AddressError: an unknown layer or unit. VisualizationError: something that cannot be done as asked, a store
        with other settings, units or weights, or one that is damaged or cannot be written.
    """
    asked = _asked(model, what, options)
    folder = Path(store)
    SWEEPS.check_writable(folder)
    photographs = None if images is None else open_images(images)
    if photographs is not None and asked.settings["optimum"] == "negative":
        raise VisualizationError("photographs are compared by what units answer to most: give none with negative")
    index = _reopened(folder, asked)
    tidy(folder)
    if index is None:
        index = Index(asked.head(model))
        size = asked.options.get("batch_size") or fitting(model, asked.jobs, asked.show)
    else:
        size = asked.options.get("batch_size") or index.head["batch_size"]
    index.head["batch_size"] = size
    done = _kept(folder, index, asked)
    groups = batches_of(asked.jobs, size, asked.settings["variants"])
    waiting = [g for g in groups if any(_key(j) not in done for j in g)]
    if waiting:
        _try(model, asked)
    with reporter(progress, "step") as report:
        steps, ahead = asked.settings["steps"], (len(groups) - len(waiting)) * asked.settings["steps"]
        for group in waiting:
            before = ahead

            def tick(step: int, total: int, before: int = before) -> None:
                report(before + step, len(groups) * steps)

            found = _made(model, asked, group, tick)
            for result in found:
                write_files(folder, result, model.input.channels)
                done[result.unit, result.variant] = result
            index.results = [done[k] for k in map(_key, asked.jobs) if k in done]
            index.write(folder)
            ahead += steps
            report(ahead, len(groups) * steps)
    results = [done[_key(j)] for j in asked.jobs]
    if photographs is not None:
        results = _examined(model, results, photographs, index, folder)
    return results


def read_sweep(store: str | os.PathLike[str]) -> list[Visualization]:
    """The visualizations that a store of `sweep` holds so far, in the order asked.

    Raises:
        VisualizationError: no store, or a file of it that is missing or damaged; says which.
    """
    folder = Path(store)
    index = read_index(folder)
    if index is None:
        raise VisualizationError(f"{named(folder)} holds no sweep: there is no {INDEX}")
    return [with_pixels(folder, result) for result in index.results]


# -- what is asked ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """A call of `sweep`, worked out.

    Attributes:
        options: for `visualize`, with the sizes worked out.
        settings: what must be the same for a store to go on, as JSON holds it.
        jobs: all pictures, in order.
        show: pixels that the network is shown.
        digest: of the model's weights.
    """

    options: dict[str, Any]
    settings: dict[str, Any]
    jobs: list[Job]
    show: tuple[int, int]
    digest: str

    def head(self, model: Model) -> dict[str, Any]:
        """What a new index starts with."""
        return {
            "schema": SCHEMA,
            "model": model.name,
            "weights": self.digest,
            "settings": self.settings,
            "evidence": None,
            "provenance": provenance(device=model.device.type),
        }


def _asked(model: Model, what: Any, options: Mapping[str, Any]) -> _Asked:
    bound = inspect.signature(visualize).bind(model, what, **options)  # a TypeError names what there is none of
    bound.apply_defaults()
    full: dict[str, Any] = {k: v for k, v in bound.arguments.items() if k not in ("model", "what", "progress")}
    for name in ("steps", "variants"):
        if isinstance(full[name], bool) or not isinstance(full[name], int) or full[name] < 1:
            raise VisualizationError(f"{name} is a whole number from 1, not {full[name]!r}")
    if full["optimum"] not in ("positive", "negative"):
        raise VisualizationError(f"optimum is positive or negative, not {full['optimum']!r}")
    size = full["batch_size"]
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise VisualizationError(f"batch_size is a whole number from 1, not {size!r}")
    several = [what] if isinstance(what, (str, Unit)) or not isinstance(what, Iterable) else list(what)
    for one in several:
        if not isinstance(one, (str, Unit)):
            raise VisualizationError(f"a sweep is of addresses, for example mixed4a:0; got a {type(one).__name__}")
    units = list(dict.fromkeys(job.name for job in jobs_of(model, several, "positive", 1, 0)))
    jobs = jobs_of(model, units, full["optimum"], full["variants"], full["seed"])
    pixels = pixels_of(full["size"], "size") or default_size(model, jobs)
    show = pixels_of(full["show"], "show") or pixels
    full.update(size=pixels, show=show, frames=sorted(set(full["frames"])))
    settings = {k: v for k, v in full.items() if k not in _NOT_SETTINGS}
    settings["params"] = Fourier() if full["params"] is None else full["params"]
    settings["transforms"] = standard(min(pixels)) if full["transforms"] is None else list(full["transforms"])
    bases = sorted({(j.unit.layer, j.unit.basis) for j in jobs if j.unit is not None and j.unit.basis is not None})
    if bases:  # not among the weights of the model
        settings["bases"] = {f"{layer}~{name}": model.basis(layer, name).read for layer, name in bases}
    settings["units"] = units
    return _Asked(full, json.loads(json.dumps(_plain(settings))), jobs, show, model.digest)


def _plain(value: Any) -> Any:
    """A setting as JSON can hold it: equal for equal settings."""
    if isinstance(value, Tensor):
        values = value.detach().cpu().float().contiguous()
        return f"tensor {tuple(value.shape)} {hashlib.sha256(values.numpy().tobytes()).hexdigest()[:16]}"
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {"is": type(value).__name__, **{f.name: _plain(getattr(value, f.name)) for f in fields(value)}}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    # a function, or an object of the user's, by its name: an address in memory would differ from run to run
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _try(model: Model, asked: _Asked) -> None:
    """Refuse, before anything is written, sizes and positions that the network or an objective does not take."""
    gray = torch.full((1, model.input.channels, *asked.show), 0.5, device=model.device, requires_grad=True)
    names = {n: m for job in asked.jobs for n, m in layer_names(model, job.goal).items()}
    with frozen(model.module), torch.enable_grad(), size_checked(model, asked.show):
        acts = read(model, gray, [model.layers[m] for m in names.values()])
        for job in asked.jobs:
            if not job.goal(lambda name: acts[names[name]]).requires_grad:
                raise VisualizationError(f"{job.name} does not depend on the picture: no gradient can reach it")


def _made(model: Model, asked: _Asked, group: list[Job], tick: Callable[[int, int], None]) -> list[Visualization]:
    names = list(dict.fromkeys(job.name for job in group))
    return visualize(model, names, **{**asked.options, "batch_size": len(names), "progress": tick})


def _examined(
    model: Model, results: list[Visualization], photographs: Any, index: Index, folder: Path
) -> list[Visualization]:
    said = {"images": photographs.digest, "count": len(photographs)}
    if index.head["evidence"] != said or any(r.evidence is None for r in results):
        results = examine(model, results, photographs)
        index.head["evidence"], index.results = said, results
        index.write(folder)
    return results


# -- the store ----------------------------------------------------------------------------------------------------


def _key(job: Job) -> tuple[str, int]:
    return job.name, job.variant


def _reopened(folder: Path, asked: _Asked) -> Index | None:
    """The index of a store that this call goes on with; None where there is none."""
    index = read_index(folder)
    if index is None:
        return None
    ways = "give what it was made with, or another folder"
    if index.head["weights"] != asked.digest:
        raise VisualizationError(
            f"{named(folder)} holds pictures of other weights ({index.head['model']} {index.head['weights'][:12]}, "
            f"not {asked.digest[:12]}): {ways}"
        )
    before = index.head["settings"]
    for name in [*asked.settings, *before]:
        was: Any = before.get(name)
        now: Any = asked.settings.get(name)
        if was != now:
            if name == "units":
                was, now = _counted(list(was or []), now), _counted(now, list(was or []))
            raise VisualizationError(
                f"{named(folder)} holds a sweep with {name} {shorten(was, 100)}, not {shorten(now, 100)}: {ways}"
            )
    return index


def _counted(units: Sequence[str], others: Sequence[str]) -> str:
    """How many units, and one that the other list has not."""
    own = [u for u in units if u not in set(others)]
    return f"{len(units)}, {own[0]} among them" if own else str(len(units))


def _kept(folder: Path, index: Index, asked: _Asked) -> dict[tuple[str, int], Visualization]:
    wanted = {_key(j) for j in asked.jobs}
    kept = {}
    for result in index.results:
        if (result.unit, result.variant) in wanted:
            try:
                kept[result.unit, result.variant] = with_pixels(folder, result)
            except VisualizationError as error:
                log.warning("%s: made again", error)
    return kept
