"""Visualizations of many units in a folder, written batch by batch, so that a stopped run can be resumed.

The folder holds, for each image, a PNG and a safetensors file (the image, its history, its frames), and one
`index.json` with everything else: the settings, the weights, and the results.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
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
from circuits.visualization.parametrizations import Size
from circuits.visualization.render import Job, batches_of, default_batch_size, jobs_of, resolved, visualize
from circuits.visualization.result import Visualization, Visualizations
from circuits.visualization.settings import RenderSettings, pixels_of
from circuits.visualization.sweeps.store import (
    INDEX,
    SCHEMA,
    SWEEPS,
    Index,
    read_index,
    with_pixels,
    write_files,
)
from circuits.visualization.transforms import Transform, standard
from zoo.common.autograd import outside_inference_mode
from zoo.common.files import tidy
from zoo.common.results import remembers
from zoo.common.settings import settings_of
from zoo.common.stored import named
from zoo.images.sources import Images, open_images
from zoo.progress import Progress, reporter

log = logging.getLogger(__name__)


@remembers("model", "images")
@outside_inference_mode
def sweep(
    model: Model,
    what: str | Unit | Iterable[str | Unit],
    store: str | os.PathLike[str],
    *,
    images: Any = None,
    settings: RenderSettings | None = None,
    progress: Progress = None,
    **options: Any,
) -> Visualizations:
    """Visualize units into a folder; the same call again resumes where the last one was stopped.

    After each batch its files and the index are written, each whole or not at all, so that a store survives being
    killed at any moment. Batches are those of the full list of units, whatever is there already: a batch of which
    anything is missing is made again as a whole. So on the CPU, with the same batch size and as many threads, the
    files of a run that was stopped and resumed have the bytes of those of an unbroken run; with another batch size
    images differ by rounding. The batch size is stored too, and used again unless another one is given.

    Args:
        model: the model.
        what: addresses of units, neurons, latents, or whole layers; a unit named twice is optimized once.
        store: the folder; created if need be. Other files in it stay.
        images: natural images to compare with (see `examine`), whatever `zoo.open_images` takes; None leaves the
            evidence that the store has.
        settings: how to optimize.
        progress: True for a bar, or a function of (done, total) in steps.
        **options: of `visualize`.

    Returns:
        One result per unit and variant, in the order of `what`; read back where they were there.

    Raises:
        AddressError: an unknown layer or unit. VisualizationError: an unknown option, or one that does not fit; a
        store with other settings, units or weights, or one that is damaged or cannot be written.
    """
    options_given = settings_of(RenderSettings, settings, options, error=VisualizationError)
    plan = _plan(model, what, options_given)
    folder = Path(store)
    SWEEPS.check_writable(folder)
    if options_given.transforms is None and _has_former_default(folder, plan):
        plan = _plan(model, what, replace(options_given, transforms=_former_default(plan)))
    natural = None if images is None else open_images(images)
    if natural is not None and plan.settings.negative:
        raise VisualizationError("natural images are compared by maximum activation: give none with a negative optimum")
    index = _reopened(folder, plan)
    tidy(folder)
    if index is None:
        index = Index(plan.head(model))
        batch_size = plan.settings.batch_size or default_batch_size(model, plan.jobs, plan.show)
    else:
        batch_size = plan.settings.batch_size or index.head["batch_size"]
    index.head["batch_size"] = batch_size
    results = _stored(folder, index, plan)
    groups = batches_of(plan.jobs, batch_size, plan.settings.variants)
    waiting = [g for g in groups if any(_key(j) not in results for j in g)]
    if waiting:
        _try(model, plan)
    with reporter(progress, "step") as report:
        steps, ahead = plan.settings.steps, (len(groups) - len(waiting)) * plan.settings.steps
        for group in waiting:
            before = ahead

            def tick(step: int, total: int, before: int = before) -> None:
                report(before + step, len(groups) * steps)

            for result in _render_batch(model, plan, group, tick):
                write_files(folder, result, model.input.channels)
                results[result.unit, result.variant] = result
            index.results = [results[k] for k in map(_key, plan.jobs) if k in results]
            index.write(folder)
            ahead += steps
            report(ahead, len(groups) * steps)
    ordered = [results[_key(j)] for j in plan.jobs]
    return Visualizations(ordered if natural is None else _examined(model, ordered, natural, index, folder))


def read_sweep(store: str | os.PathLike[str]) -> Visualizations:
    """The visualizations that a store of `sweep` holds so far, in the order of the call.

    Raises:
        VisualizationError: no store, or a file of it that is missing or damaged; says which.
    """
    folder = Path(store)
    index = read_index(folder)
    if index is None:
        raise VisualizationError(f"{named(folder)} holds no sweep: there is no {INDEX}")
    return Visualizations(with_pixels(folder, result) for result in index.results)


# -- the call -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """A call of `sweep`, worked out.

    Attributes:
        settings: for `visualize`, with the sizes worked out.
        stored: what must be the same for a store to be resumed, as JSON holds it.
        jobs: all images, in order.
        show: pixels at which the network is given the images.
        digest: of the model's weights.
    """

    settings: RenderSettings
    stored: dict[str, Any]
    jobs: list[Job]
    show: Size
    digest: str

    def head(self, model: Model) -> dict[str, Any]:
        """What a new index starts with."""
        return {
            "schema": SCHEMA,
            "model": model.name,
            "weights": self.digest,
            "settings": self.stored,
            "evidence": None,
            "provenance": provenance(device=model.device.type),
        }


def _plan(model: Model, what: Any, settings: RenderSettings) -> _Plan:
    targets = [what] if isinstance(what, (str, Unit)) or not isinstance(what, Iterable) else list(what)
    for target in targets:
        if not isinstance(target, (str, Unit)):
            raise VisualizationError(f"a sweep is of addresses, for example mixed4a:0; got a {type(target).__name__}")
    units = list(dict.fromkeys(job.name for job in jobs_of(model, targets, RenderSettings())))
    jobs = jobs_of(model, units, settings)
    full = resolved(model, jobs, settings)
    settings = replace(settings, size=full.size, show=full.show)
    show = pixels_of(full.show, "show")
    assert show is not None
    stored = {f.name: getattr(full, f.name) for f in fields(full) if f.name != "batch_size"}
    bases = sorted({(j.unit.layer, j.unit.basis) for j in jobs if j.unit is not None and j.unit.basis is not None})
    if bases:  # not among the weights of the model
        stored["bases"] = {f"{layer}~{name}": model.basis(layer, name).read for layer, name in bases}
    stored["units"] = units
    return _Plan(settings, json.loads(json.dumps(_plain(stored))), jobs, show, model.digest)


def _former_default(plan: _Plan) -> tuple[Transform, ...]:
    """The default transforms of version 0.1, whose sweeps go on with them: networks of any size got those of large."""
    size = pixels_of(plan.settings.size, "size")
    assert size is not None
    return standard(size)


def _has_former_default(folder: Path, plan: _Plan) -> bool:
    index = read_index(folder)
    return index is not None and index.head["settings"].get("transforms") == _plain(_former_default(plan))


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
        entries = {f.metadata.get("called", f.name): _plain(getattr(value, f.name)) for f in fields(value)}
        return {"is": type(value).__name__, **entries}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    # a function, or an object of the user's, by its name: an address in memory would differ from run to run
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _try(model: Model, plan: _Plan) -> None:
    """Refuse, before anything is written, sizes and positions that the network or an objective does not take."""
    gray = torch.full((1, model.input.channels, *plan.show), 0.5, device=model.device, requires_grad=True)
    names = {n: m for job in plan.jobs for n, m in layer_names(model, job.goal).items()}
    with frozen(model.module), torch.enable_grad(), size_checked(model, plan.show):
        acts = read(model, gray, [model.layers[m] for m in names.values()])
        for job in plan.jobs:
            if not job.goal(lambda name: acts[names[name]]).requires_grad:
                raise VisualizationError(f"{job.name} does not depend on the image: no gradient can reach it")


def _render_batch(model: Model, plan: _Plan, group: list[Job], tick: Callable[[int, int], None]) -> list[Visualization]:
    names = list(dict.fromkeys(job.name for job in group))
    return visualize(model, names, settings=replace(plan.settings, batch_size=len(names)), progress=tick)


def _examined(
    model: Model, results: list[Visualization], images: Images, index: Index, folder: Path
) -> list[Visualization]:
    evidence = {"images": images.digest, "count": len(images)}
    if index.head["evidence"] != evidence or any(r.evidence is None for r in results):
        results = examine(model, results, images)
        index.head["evidence"], index.results = evidence, results
        index.write(folder)
    return results


# -- the store ----------------------------------------------------------------------------------------------------


def _key(job: Job) -> tuple[str, int]:
    return job.name, job.variant


def _reopened(folder: Path, plan: _Plan) -> Index | None:
    """The index of a store that this call resumes; None where there is none."""
    index = read_index(folder)
    if index is None:
        return None
    advice = "give what it was made with, or another folder, or begin anew (--replace)"
    if index.head["weights"] != plan.digest:
        raise VisualizationError(
            f"{named(folder)} holds images of other weights ({index.head['model']} {index.head['weights'][:12]}, "
            f"not {plan.digest[:12]}): {advice}"
        )
    before = index.head["settings"]
    for name in [*plan.stored, *before]:
        was: Any = before.get(name)
        now: Any = plan.stored.get(name)
        if was != now:
            if name == "units":
                was, now = _counted(list(was or []), now), _counted(now, list(was or []))
            raise VisualizationError(
                f"{named(folder)} holds a sweep with {name} {shorten(was, 100)}, not {shorten(now, 100)}: {advice}"
            )
    return index


def _counted(units: Sequence[str], others: Sequence[str]) -> str:
    """How many units, and one that the other list has not."""
    own = [u for u in units if u not in set(others)]
    return f"{len(units)}, {own[0]} among them" if own else str(len(units))


def _stored(folder: Path, index: Index, plan: _Plan) -> dict[tuple[str, int], Visualization]:
    """The results of the store that belong to this call and can be read."""
    keys = {_key(j) for j in plan.jobs}
    results = {}
    for result in index.results:
        if (result.unit, result.variant) in keys:
            try:
                results[result.unit, result.variant] = with_pixels(folder, result)
            except VisualizationError as error:
                log.warning("%s: made again", error)
    return results
