"""Feature visualization by optimization: many units at once, each image independent of the others."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from circuits.errors import VisualizationError, shorten
from circuits.network.address import Unit
from circuits.network.hooks import read
from circuits.network.layers.axes import as_maps
from circuits.network.model import Model
from circuits.visualization.objectives import (
    Activations,
    Objective,
    OfObjective,
    Reading,
    as_objective,
    diversity,
    of_unit,
    shape_of,
    stack as stack_objectives,
)
from circuits.visualization.optimization import Ascent, ascend, exhausted, layer_names, untransformed
from circuits.visualization.parametrizations import Factory, Fourier, Size, generator
from circuits.visualization.result import Visualization, Visualizations
from circuits.visualization.settings import RenderSettings, pixels_of
from circuits.visualization.transforms import Pipeline, standard
from zoo.common.autograd import outside_inference_mode
from zoo.common.results import remembers
from zoo.common.settings import settings_of
from zoo.progress import Progress, reporter

log = logging.getLogger(__name__)

_LARGEST = 128
"""Pixels that images get by default even where receptive fields are larger: their borders hardly count."""


@dataclass(frozen=True)
class Job:
    """One image to optimize.

    Attributes:
        name: address of the unit, or a name for an objective.
        goal: the objective that is maximized.
        reading: the objective that is reported: the same, but for negative optima and later attempts.
        unit: the unit, where there is one.
        variant: number of the image among those of one unit.
        seed: of everything random about it.
        negative: whether the reading is minimized.
    """

    name: str
    goal: Objective
    reading: Objective
    unit: Unit | None
    variant: int
    seed: int
    negative: bool = False

    def again(self, model: Model, attempt: int) -> Job:
        """The same with another seed, maximizing the pre-activation: its gradient is never blocked by the ReLU."""
        goal = self.goal if self.unit is None else of_unit(model, self.unit, pre_activation=True)
        return replace(self, goal=goal, seed=_seed(self.seed, "again", attempt))


Run = Callable[..., dict[Job, Visualization]]


@remembers("model")
@outside_inference_mode
def visualize(
    model: Model,
    what: str | Unit | Objective | Iterable[str | Unit | Objective],
    *,
    settings: RenderSettings | None = None,
    progress: Progress = None,
    **options: Any,
) -> Visualizations:
    """Feature visualization: images optimized to activate units strongly (Olah et al., Distill 2017).

    All units of a batch are optimized at once; an image is the same, up to rounding, whatever batch it is in. The
    network's weights and hooks are the same afterwards.

    Args:
        model: the model.
        what: addresses of units, neurons (`layer:unit@y,x`), latents (`layer~basis:i`) or whole layers, for all of
            their units; or objectives of `circuits.visualization.objectives`.
        settings: how to optimize.
        progress: True for a bar, or a function of (done, total) in steps.
        **options: fields of `RenderSettings`: steps, size, show, params, transforms, optimum, variants, rate,
            redirect, retries, frames, plateau, precision, batch_size, seed.

    Returns:
        One result per unit (and variant), in the order of `what`.

    Raises:
        AddressError: an unknown layer or unit. VisualizationError: an unknown option, or one that does not fit.

    >>> visualize(load("scenes"), "mixed4a:11", steps=2)[0].image.shape
    torch.Size([3, 64, 64])
    """
    settings = settings_of(RenderSettings, settings, options, error=VisualizationError)
    if model.module.training:
        raise VisualizationError(f"{model.name} is in training mode; call model.module.eval() first")
    model.check_images("feature visualization")
    jobs = jobs_of(model, what, settings)
    settings = resolved(model, jobs, settings)
    size = pixels_of(settings.show, "show") or model.input.hw
    batch_size = settings.batch_size or default_batch_size(model, jobs, size)
    run = partial(_batch, model, settings=settings, diverse=settings.variants > 1)
    groups = batches_of(jobs, batch_size, settings.variants)
    results: dict[Job, Visualization] = {}
    with reporter(progress, "step") as report:
        total, before = settings.steps * len(groups), 0

        def tick(step: int) -> None:
            report(before + step, total)

        for group in groups:
            results |= _halved_if_needed(run, group, tick)
            before += settings.steps
    for attempt in range(1, 1 if settings.negative else settings.retries + 1):
        inactive = [job for job in jobs if results[job].status == "dead"]
        if inactive:
            log.info("%d stayed inactive: trying again (%d of %d)", len(inactive), attempt, settings.retries)
        again = {job.again(model, attempt): job for job in inactive}
        stronger = replace(settings, params=_more_contrast(settings.params, attempt))
        rerun = partial(_batch, model, settings=stronger, diverse=False)
        for group in batches_of(list(again), batch_size, 1):
            results |= {again[job]: result for job, result in _halved_if_needed(rerun, group, None).items()}
    dead = [job.name for job in jobs if results[job].status == "dead"]
    if dead:
        log.warning("no image activated these units, they are reported as dead: %s", shorten(", ".join(dead), 200))
    return Visualizations(results[job] for job in jobs)


def jobs_of(model: Model, what: Any, settings: RenderSettings) -> list[Job]:
    """One job per image of `what`, in that order."""
    targets = [what] if isinstance(what, (str, Unit, Objective)) or callable(what) else list(what)
    if not targets:
        raise VisualizationError("name at least one unit to visualize, for example mixed4a:0")
    negative = settings.negative
    jobs: list[Job] = []
    for target in targets:
        readings: list[tuple[str, Objective, Unit | None]]
        if isinstance(target, (str, Unit)):
            readings = [(str(u), of_unit(model, u, pre_activation=negative), u) for u in _units(model, target)]
        else:
            objective = as_objective(target)
            layer_names(model, objective)
            readings = [(f"objective {len(jobs)}", objective, None)]
        for name, reading, unit in readings:
            goal = -reading if negative else reading
            jobs += [
                Job(name, goal, reading, unit, v, _seed(settings.seed, name, v), negative)
                for v in range(settings.variants)
            ]
    return jobs


def resolved(model: Model, jobs: Sequence[Job], settings: RenderSettings) -> RenderSettings:
    """The settings with the defaults of size, show, params and transforms worked out for these jobs."""
    size = pixels_of(settings.size, "size") or default_size(model, jobs)
    transforms = standard(size, model.input.hw) if settings.transforms is None else settings.transforms
    return replace(
        settings,
        size=size,
        show=pixels_of(settings.show, "show") or size,
        params=Fourier() if settings.params is None else settings.params,
        transforms=list(transforms),
    )


def _units(model: Model, address: str | Unit) -> list[Unit]:
    unit = model.resolve(address)
    if unit.index is not None:
        return [unit]
    if unit.at is not None:
        raise VisualizationError(f"{shorten(address)} names a position of a whole layer; name a unit of it")
    layer = model.layers[unit.layer]
    if unit.basis is not None:
        return [replace(unit, index=i) for i in range(len(model.basis(unit.layer, unit.basis).read))]
    if layer.part is not None:
        base, start = layer.part
        return [replace(unit, layer=base, index=start + i) for i in range(layer.channels)]
    return [replace(unit, index=i) for i in range(layer.channels)]


def _seed(seed: int, name: str, number: int) -> int:
    text = f"{seed}\0{name}\0{number}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "little")


def default_size(model: Model, jobs: Sequence[Job]) -> tuple[int, int]:
    """Pixels that the receptive fields of the units need, at most 128, or the model's own size where a net has one."""
    height, width = model.input.hw
    layers = {n for j in jobs for n in layer_names(model, j.goal).values()}
    if not layers or any(model.layers[n].size is None for n in layers):
        return height, width  # after a flattening, a network takes its own size only
    need = 0
    for name in layers:
        layer = model.layers[name]
        if layer.receptive_field is None:
            return height, width
        need = max(need, *layer.receptive_field.size)
    # room for more than one receptive field, so that the image shows how the feature repeats
    pixels = min(_LARGEST, max(32, 16 * math.ceil(1.75 * need / 16)))
    return min(height, pixels), min(width, pixels)


def default_batch_size(model: Model, jobs: Sequence[Job], show: Size) -> int:
    """Images that can be optimized at once in the available memory."""
    names = list(model.layers)
    read = {n if n in names else model.layers[n].base for j in jobs for n in layer_names(model, j.goal).values()}
    deepest = max(map(names.index, read), default=0)
    area = show[0] * show[1] / (model.input.hw[0] * model.input.hw[1])
    outputs = [model.layers[n] for n in names[: deepest + 1] if model.layers[n].base == n]
    values = area * sum(layer.channels * math.prod(layer.size or (1, 1)) for layer in outputs)
    each = 4 * (2.5 * values + 24 * math.prod(show) * model.input.channels)
    if model.device.type == "cuda":
        return int(min(128, max(1, 0.6 * torch.cuda.mem_get_info(model.device)[0] // each)))
    # measured: from eight on no faster on a CPU, and slower once its caches are full
    return int(min(16, max(1, 4e8 // each)))


def batches_of(jobs: list[Job], batch_size: int, variants: int) -> list[list[Job]]:
    """Batches of jobs whose objectives stack; variants of one unit are a batch by themselves."""
    if variants > 1:
        return [jobs[i : i + variants] for i in range(0, len(jobs), variants)]
    by_shape: dict[Any, list[Job]] = {}
    for job in jobs:
        by_shape.setdefault(shape_of(job.goal), []).append(job)
    return [group[i : i + batch_size] for group in by_shape.values() for i in range(0, len(group), batch_size)]


def _halved_if_needed(run: Run, group: list[Job], tick: Callable[[int], None] | None) -> dict[Job, Visualization]:
    """Run a batch; in halves when memory runs out."""
    try:
        return run(group, tick=tick)
    except RuntimeError as error:
        if not exhausted(error) or len(group) == 1:
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(group) // 2
    log.warning("out of memory with %d images at once: going on with %d", len(group), half)
    return _halved_if_needed(run, group[:half], None) | _halved_if_needed(run, group[half:], None)


def _more_contrast(factory: Factory | None, attempt: int) -> Factory | None:
    """The same parametrization with a start of more contrast: on near-gray noise the layers below may be silent too."""
    sd = getattr(factory, "sd", None)
    if sd is None or not is_dataclass(factory) or isinstance(factory, type):
        return factory
    return replace(factory, sd=sd * 10 * attempt)


def _batch(
    model: Model,
    group: list[Job],
    *,
    settings: RenderSettings,
    diverse: bool,
    tick: Callable[[int], None] | None,
) -> dict[Job, Visualization]:
    """Optimize the images of one batch, with settings whose defaults are worked out (`resolved`)."""
    size, show = pixels_of(settings.size, "size"), pixels_of(settings.show, "show")
    assert size is not None and show is not None and settings.params is not None and settings.transforms is not None
    seeds = [job.seed for job in group]
    parametrization = settings.params(seeds, size, model.input.channels, model.device)
    pipeline = Pipeline(settings.transforms, out=show, seeds=seeds, device=model.device)
    objective = stack_objectives([job.goal for job in group])
    if diverse:
        objective = _Diverse(objective)
    background = _Backgrounds(seeds) if parametrization.alpha else None
    ascent = ascend(model, objective, parametrization, pipeline, settings, background=background, on_step=tick)
    results = dict(zip(group, visualizations(model, group, ascent, show), strict=True))
    for job, result in results.items():
        if result.status != "ok" or job.unit is None or job.negative:
            continue
        rectified = model.layers[model.unit(job.unit).layer].kind in ("relu", "gelu", "silu")
        if result.peak == 0 or (rectified and result.peak < 0):
            results[job] = replace(result, status="dead")  # zero exactly, or the negative end of a GELU: nothing came
    return results


def visualizations(model: Model, group: Sequence[Job], ascent: Ascent, show: Size) -> list[Visualization]:
    """The results of a batch; "dead" where no gradient reached the image, "not finite" where too many steps failed."""
    lowest = group[0].negative
    readings = stack_objectives([job.reading for job in group])
    means, peaks = responses(model, readings, ascent.images[: len(group)], show, lowest=lowest)
    results = []
    for i, job in enumerate(group):
        finite = math.isfinite(float(peaks[i])) and int(ascent.skipped[i]) <= len(ascent.values) // 10
        results.append(
            Visualization(
                unit=job.name,
                variant=job.variant,
                image=ascent.images[i].cpu(),
                response=float(means[i]),
                peak=float(peaks[i]),
                transformed=float(ascent.values[-16:, i].mean()),
                history=tuple(ascent.values[:, i].tolist()),
                status="not finite" if not finite else "ok" if bool(ascent.reached[i]) else "dead",
                optimum="negative" if lowest else "positive",
                channels=model.input.channels,
                frames={s: f[i] for s, f in ascent.frames.items()},
                steps=len(ascent.values),
                input_size=show,
                seed=job.seed,
                digest=model.digest,
            )
        )
    return results


@torch.no_grad()
def responses(
    model: Model, objective: Objective, images: Tensor, show: Size, *, lowest: bool = False
) -> tuple[Tensor, Tensor]:
    """The objective, and the unit's maximum (or minimum) activation over positions, on untransformed images, `(N,)`."""
    colors = untransformed(model, images, show)
    names = layer_names(model, objective)
    acts = read(model, colors, [model.layers[n] for n in names.values()]) if names else {}

    def activations(name: str) -> Tensor:
        return colors if name == "input" else acts[names[name]]

    values = objective(activations).float()
    if not isinstance(objective, Reading) or not isinstance(objective.at, str):
        return values, values
    maps = as_maps(activations(objective.layer))
    if objective.index is not None:
        rows = torch.arange(len(maps), device=maps.device)
        unit_maps = maps[rows, objective.index.to(maps.device)].flatten(1)
    else:
        assert objective.along is not None
        along = objective.along.to(maps).expand(len(maps), -1)[:, :, None, None]
        unit_maps = (maps * along).sum(1).flatten(1)
    return values, unit_maps.amin(1) if lowest else unit_maps.amax(1)


class _Diverse(OfObjective):
    """A unit's objective less the similarity of its images, scaled to the objective's present value."""

    def __call__(self, activations: Activations) -> Tensor:
        value, similarity = self.of(activations), diversity(self.layers[0])(activations)
        return value - value.detach().abs().mean() * similarity / (len(value) - 1)


class _Backgrounds:
    """Random soft colors behind transparent images, new at each step, of each image its own."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [generator(s, "background") for s in seeds]

    def __call__(self, colors: Tensor) -> Tensor:
        n, c, h, w = colors.shape
        coarse = torch.stack([torch.rand(c, 6, 6, generator=g, dtype=torch.float32) for g in self.generators]).to(
            colors
        )
        return F.interpolate(coarse, (h, w), mode="bicubic", align_corners=False).clamp(0, 1)
