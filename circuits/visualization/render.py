"""Pictures of what units look for: many units at once, each picture its own."""

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
from circuits.network.model import Model
from circuits.visualization.objectives import (
    Objective,
    Reading,
    as_maps,
    as_objective,
    diversity,
    of_unit,
    shape_of,
)
from circuits.visualization.objectives import stack as stack_objectives
from circuits.visualization.optimization import Ascent, ascend, exhausted, layer_names, shown_plain
from circuits.visualization.parametrizations import Factory, Fourier, generator
from circuits.visualization.result import Visualization
from circuits.visualization.transforms import Pipeline, standard
from zoo.progress import Progress, reporter

log = logging.getLogger(__name__)

_LARGEST = 128
"""Pixels that pictures get by default even where receptive fields are larger: their rims hardly count."""


@dataclass(frozen=True)
class Job:
    """One picture to be made.

    Attributes:
        name: address of the unit, or a name for an objective.
        goal: what is raised.
        reading: what is reported: the same, but for negative optima and later attempts.
        unit: the unit, where there is one.
        variant: number of the picture among those of one unit.
        seed: of everything random about it.
        negative: whether the reading is to be lowered.
    """

    name: str
    goal: Objective
    reading: Objective
    unit: Unit | None
    variant: int
    seed: int
    negative: bool = False

    def again(self, model: Model, attempt: int) -> Job:
        """The same with another seed, raising what the unit's rectifier reads: a gradient always gets through that."""
        goal = self.goal if self.unit is None else of_unit(model, self.unit, before_rectifier=True)
        return replace(self, goal=goal, seed=_seed(self.seed, "again", attempt))


Run = Callable[..., dict[Job, Visualization]]


def visualize(
    model: Model,
    what: str | Unit | Objective | Iterable[str | Unit | Objective],
    *,
    steps: int = 256,
    size: int | tuple[int, int] | None = None,
    show: int | tuple[int, int] | None = None,
    params: Factory | None = None,
    transforms: Sequence[Any] | None = None,
    optimum: str = "positive",
    variants: int = 1,
    rate: float | None = None,
    redirect: int = 16,
    retries: int = 2,
    frames: Iterable[int] = (),
    plateau: int | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> list[Visualization]:
    """Pictures that units answer to strongly: feature visualization by optimization (Olah et al., Distill 2017).

    All units of a batch are optimized at once; a picture comes out the same, but for rounding, whichever others
    are made with it. The network's weights and hooks are the same afterwards.

    Args:
        model: the model.
        what: addresses of units, neurons (`layer:unit@y,x`), latents (`layer~basis:i`) or whole layers, for all of
            their units; or objectives of `circuits.visualization.objectives`.
        steps: steps of the optimization, at least 1.
        size: pixels of the pictures; default what the receptive field needs, at most 128 and the model's own.
        show: pixels that the network is shown; default `size`.
        params: a parametrization of `circuits.visualization.parametrizations`; default `Fourier()`.
        transforms: of `circuits.visualization.transforms`, or functions of a tensor; default `standard`; `[]`: none.
        optimum: "positive", or "negative" for what a unit answers to least, before its rectifier.
        variants: pictures per unit; more than one are pushed apart, by `diversity`.
        rate: step size; default what suits the parametrization.
        redirect: first steps in which gradients blocked by rectifiers are redirected.
        retries: further attempts for a unit that stays silent, with other seeds, more contrast at the start, and
            raising what its rectifier reads; then it is reported as dead.
        frames: steps after which the pictures are kept too.
        plateau: stop a batch when no picture of it has improved over so many steps.
        precision: "bf16" or "fp16" for autocast; default the model's own.
        batch_size: pictures at once; default what memory allows.
        seed: of everything random; the same seed gives the same bits on the CPU.
        progress: True for a bar, or a function of (done, total) in steps.

    Returns:
        One result per unit (and variant), in the order asked.

    Raises:
        AddressError: an unknown layer or unit. VisualizationError: anything else that cannot be done as asked.

    >>> visualize(load("scenes"), "mixed4a:11", steps=2)[0].image.shape
    torch.Size([3, 64, 64])
    """
    if optimum not in ("positive", "negative"):
        raise VisualizationError(f"optimum is positive or negative, not {optimum!r}")
    for name, number in (("steps", steps), ("variants", variants)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise VisualizationError(f"{name} is a whole number from 1, not {number!r}")
    if model.module.training:
        raise VisualizationError(f"{model.name} is in training mode; call model.module.eval() first")
    jobs = jobs_of(model, what, optimum, variants, seed)
    pixels = pixels_of(size, "size") or default_size(model, jobs)
    shown = pixels_of(show, "show") or pixels
    factory = Fourier() if params is None else params
    changes = list(standard(min(pixels))) if transforms is None else list(transforms)
    run = partial(
        _batch, model, factory=factory, size=pixels, show=shown, transforms=changes, steps=steps, rate=rate,
        redirect=redirect, frames=frozenset(frames), plateau=plateau, precision=precision, coupled=variants > 1,
    )  # fmt: skip
    most = batch_size or fitting(model, jobs, shown)
    groups = batches_of(jobs, most, variants)
    done: dict[Job, Visualization] = {}
    with reporter(progress, "step") as report:
        total, ahead = steps * len(groups), 0

        def tick(step: int) -> None:
            report(ahead + step, total)

        for group in groups:
            done |= _careful(run, group, tick)
            ahead += steps
    for attempt in range(1, retries + 1 if optimum == "positive" else 1):
        silent = [job for job in jobs if done[job].status == "dead"]
        if silent:
            log.info("%d stayed silent: trying again (%d of %d)", len(silent), attempt, retries)
        again = {job.again(model, attempt): job for job in silent}
        louder = partial(run, factory=_louder(factory, attempt), coupled=False)
        for group in batches_of(list(again), most, 1):
            done |= {again[other]: result for other, result in _careful(louder, group, None).items()}
    dead = [job.name for job in jobs if done[job].status == "dead"]
    if dead:
        log.warning("no picture made these answer, they are reported as dead: %s", shorten(", ".join(dead), 200))
    return [done[job] for job in jobs]


def jobs_of(model: Model, what: Any, optimum: str, variants: int, seed: int) -> list[Job]:
    """The pictures to be made of what is asked, in that order."""
    asked = [what] if isinstance(what, (str, Unit, Objective)) or callable(what) else list(what)
    if not asked:
        raise VisualizationError("name at least one unit to visualize, for example mixed4a:0")
    negative = optimum == "negative"
    jobs: list[Job] = []
    for one in asked:
        named: list[tuple[str, Objective, Unit | None]]
        if isinstance(one, (str, Unit)):
            named = [(str(u), of_unit(model, u, before_rectifier=negative), u) for u in _units(model, one)]
        else:
            objective = as_objective(one)
            layer_names(model, objective)
            named = [(f"objective {len(jobs)}", objective, None)]
        for name, reading, unit in named:
            goal = -reading if negative else reading
            jobs += [Job(name, goal, reading, unit, v, _seed(seed, name, v), negative) for v in range(variants)]
    return jobs


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


def pixels_of(size: int | tuple[int, int] | None, name: str) -> tuple[int, int] | None:
    """Height and width; None where none is asked."""
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or any(isinstance(s, bool) or not isinstance(s, int) or not 1 <= s <= 8192 for s in pair):
        raise VisualizationError(f"{name} is a number of pixels from 1 to 8192, or height and width; got {size!r}")
    return pair


def default_size(model: Model, jobs: Sequence[Job]) -> tuple[int, int]:
    """Pixels that the receptive fields of the units need, at most 128, or the model's own size where a net has one."""
    height, width = model.input.hw
    layers = {n for j in jobs for n in layer_names(model, j.goal).values()}
    if not layers or any(model.layers[n].size is None for n in layers):
        return height, width  # beyond a flattening, a network takes its own size only
    need = 0
    for name in layers:
        layer = model.layers[name]
        if layer.receptive_field is None:
            return height, width
        need = max(need, *layer.receptive_field.size)
    # room for it in more than one place, so that a picture shows how the unit repeats
    pixels = min(_LARGEST, max(32, 16 * math.ceil(1.75 * need / 16)))
    return min(height, pixels), min(width, pixels)


def fitting(model: Model, jobs: Sequence[Job], show: tuple[int, int]) -> int:
    """Pictures that can be optimized at once in the memory there is."""
    names = list(model.layers)
    deepest = max((names.index(n) for j in jobs for n in layer_names(model, j.goal).values()), default=0)
    area = show[0] * show[1] / (model.input.hw[0] * model.input.hw[1])
    outputs = [model.layers[n] for n in names[: deepest + 1] if model.layers[n].part is None]
    values = area * sum(layer.channels * math.prod(layer.size or (1, 1)) for layer in outputs)
    each = 4 * (2.5 * values + 24 * math.prod(show) * model.input.channels)
    if model.device.type == "cuda":
        return int(min(128, max(1, 0.6 * torch.cuda.mem_get_info(model.device)[0] // each)))
    # measured: from eight on no faster on a CPU, and slower once its caches are full
    return int(min(16, max(1, 4e8 // each)))


def batches_of(jobs: list[Job], most: int, variants: int) -> list[list[Job]]:
    """Batches of jobs whose objectives stack; variants of one unit are a batch by themselves."""
    if variants > 1:
        return [jobs[i : i + variants] for i in range(0, len(jobs), variants)]
    by_shape: dict[Any, list[Job]] = {}
    for job in jobs:
        by_shape.setdefault(shape_of(job.goal), []).append(job)
    return [group[i : i + most] for group in by_shape.values() for i in range(0, len(group), most)]


def _careful(run: Run, group: list[Job], tick: Callable[[int], None] | None) -> dict[Job, Visualization]:
    """Run a batch; in halves when memory runs out."""
    try:
        return run(group, tick=tick)
    except RuntimeError as error:
        if not exhausted(error) or len(group) == 1:
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(group) // 2
    log.warning("out of memory with %d pictures at once: going on with %d", len(group), half)
    return _careful(run, group[:half], None) | _careful(run, group[half:], None)


def _louder(factory: Factory, attempt: int) -> Factory:
    """The same parametrization with a start of more contrast: in gray noise the layers below may all be silent too."""
    sd = getattr(factory, "sd", None)
    if sd is None or not is_dataclass(factory) or isinstance(factory, type):
        return factory
    return replace(factory, sd=sd * 10 * attempt)


def _batch(
    model: Model, group: list[Job], *, factory: Factory, size: tuple[int, int], show: tuple[int, int],
    transforms: list[Any], steps: int, rate: float | None, redirect: int, frames: frozenset[int],
    plateau: int | None, precision: str | None, coupled: bool, tick: Callable[[int], None] | None,
) -> dict[Job, Visualization]:  # fmt: skip
    seeds = [job.seed for job in group]
    pictures = factory(seeds, size, model.input.channels, model.device)
    pipeline = Pipeline(transforms, out=show, seeds=seeds, device=model.device)
    objective = stack_objectives([job.goal for job in group])
    if coupled:
        objective = _Apart(objective)
    behind = _Backgrounds(seeds) if pictures.alpha else None
    found = ascend(
        model, objective, pictures, pipeline, steps=steps, rate=rate, redirect=redirect, frames=frames,
        plateau=plateau, precision=precision, background=behind, on_step=tick,
    )  # fmt: skip
    lowest = group[0].negative
    readings = stack_objectives([job.reading for job in group])
    means, peaks = responses(model, readings, found.pictures, show, lowest=lowest)
    made = {}
    for i, job in enumerate(group):
        made[job] = Visualization(
            unit=job.name,
            variant=job.variant,
            image=found.pictures[i].cpu(),
            response=float(means[i]),
            peak=float(peaks[i]),
            transformed=float(found.values[-16:, i].mean()),
            history=tuple(found.values[:, i].tolist()),
            status=_status(found, i, job, float(peaks[i])),
            optimum="negative" if lowest else "positive",
            channels=model.input.channels,
            frames={s: f[i] for s, f in found.frames.items()},
            steps=len(found.values),
            input_size=show,
            seed=job.seed,
            digest=model.digest,
        )
    return made


def _status(found: Ascent, i: int, job: Job, peak: float) -> str:
    if not math.isfinite(peak) or int(found.skipped[i]) > len(found.values) // 10:
        return "not finite"
    if job.unit is not None and not job.negative and peak == 0:  # exactly: a rectifier that nothing came through
        return "dead"
    return "ok" if bool(found.reached[i]) else "dead"


@torch.no_grad()
def responses(
    model: Model, objective: Objective, pictures: Tensor, show: tuple[int, int], *, lowest: bool = False
) -> tuple[Tensor, Tensor]:
    """What the objective, and the unit at its best (or lowest) position, say to pictures as they are, `(N,)` each."""
    colors = shown_plain(model, pictures, show)
    names = layer_names(model, objective)
    acts = read(model, colors, [model.layers[n] for n in names.values()]) if names else {}

    def seen(name: str) -> Tensor:
        return colors if name == "input" else acts[names[name]]

    values = objective(seen).float()
    if not isinstance(objective, Reading) or not isinstance(objective.at, str):
        return values, values
    maps = as_maps(seen(objective.layer))
    if objective.index is not None:
        said = maps[torch.arange(len(maps), device=maps.device), objective.index.to(maps.device)].flatten(1)
    else:
        assert objective.along is not None
        along = objective.along.to(maps).expand(len(maps), -1)[:, :, None, None]
        said = (maps * along).sum(1).flatten(1)
    return values, said.amin(1) if lowest else said.amax(1)


class _Apart(Objective):
    """A unit's objective, and its pictures pushed apart, in the unit of the objective's own present value."""

    def __init__(self, of: Objective) -> None:
        self.of = of
        self.alike = diversity(of.layers[0])

    @property
    def layers(self) -> tuple[str, ...]:
        return self.of.layers

    def __call__(self, seen: Callable[[str], Tensor]) -> Tensor:
        value = self.of(seen)
        return value - value.detach().abs().mean() * self.alike(seen) / (len(value) - 1)


class _Backgrounds:
    """Random soft colors behind transparent pictures, anew each step, per picture its own."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [generator(s, "background") for s in seeds]

    def __call__(self, colors: Tensor) -> Tensor:
        n, c, h, w = colors.shape
        coarse = torch.stack([torch.rand(c, 6, 6, generator=g) for g in self.generators]).to(colors)
        return F.interpolate(coarse, (h, w), mode="bicubic", align_corners=False).clamp(0, 1)
