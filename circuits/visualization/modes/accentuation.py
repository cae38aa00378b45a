"""Feature accentuation: photographs changed so that a unit answers more, and little else changes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.errors import AddressError, VisualizationError
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.visualization.modes.checks import opened, whole
from circuits.visualization.objectives import Objective, Seen
from circuits.visualization.objectives import stack as stack_objectives
from circuits.visualization.optimization import ascend
from circuits.visualization.parametrizations import Parametrization, Photograph
from circuits.visualization.render import fitting, jobs_of, responses
from circuits.visualization.result import Visualization
from circuits.visualization.transforms import Pipeline, standard
from zoo.images.sources import Source
from zoo.progress import Progress, reporter


def accentuate(
    model: Model,
    unit: str | Unit,
    pictures: Source,
    *,
    steps: int = 100,
    strength: float = 1.0,
    layer: str | None = None,
    transforms: Sequence[Any] | None = None,
    rate: float = 0.02,
    redirect: int = 16,
    frames: Iterable[int] = (),
    batch_size: int | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> list[Visualization]:
    """Photographs changed so that a unit answers more, while an earlier layer goes on seeing what it saw.

    Raised is the unit's value, less `strength` times its present size times the distance of the earlier layer's
    activations from those of the photograph, relative to their norm; both are transformed alike. That makes
    `strength` a number without a unit: what a relative distance of one costs, in relative gain. (Hamblin et al.,
    *Feature Accentuation: Revealing "What" Features Respond to in Natural Images*, 2024.)

    Args:
        model: the model.
        unit: a channel, a neuron or a latent.
        pictures: photographs. Tensors `(N, C, H, W)` or `(C, H, W)` keep their size; others are read at the model's.
        steps: of the optimization.
        strength: weight of the penalty, 0 or more; 0 is plain ascent from the photograph.
        layer: whose activations are kept; default the trunk layer before the unit's, or "input" for the pixels.
        transforms: as for `visualize`.
        rate: step size; larger ones cover photographs with noise.
        redirect: first steps in which gradients that are wholly blocked are redirected.
        frames: steps after which the pictures are kept too.
        batch_size: photographs at once; default what memory allows.
        seed: of everything random.
        progress: True for a bar, or a function of (done, total) in steps.

    Returns:
        One result for each photograph, of its size, with the start as frame 0; its history is what the unit says.

    Raises:
        AddressError: an unknown layer or unit. ImageError: no readable pictures.
        VisualizationError: options that make no sense.
    """
    whole(steps, "steps")
    if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0 <= strength < math.inf:
        raise VisualizationError(f"strength is a finite number from 0, not {strength!r}")
    if model.module.training:
        raise VisualizationError(f"{model.name} is in training mode; call model.module.eval() first")
    found = model.unit(unit)
    kept = _kept_layer(model, found, layer)
    shown, ids, _ = opened(model, pictures)
    size = (shown.shape[2], shown.shape[3])
    jobs = jobs_of(model, found, "positive", len(ids), seed)
    most = max(1, fitting(model, jobs, size) // 2) if batch_size is None else batch_size
    whole(most, "batch_size")
    changes = list(standard(size)) if transforms is None else list(transforms)
    wanted, made = frozenset(frames), list[Visualization]()
    total = steps * -(-len(jobs) // most)
    with reporter(progress, "step") as report:
        for i in range(0, len(jobs), most):
            group, photographs = jobs[i : i + most], shown[i : i + most]
            n, done = len(group), steps * (i // most)
            seeds = [job.seed for job in group]
            ascent = Photograph(photographs)(seeds, size, model.input.channels, model.device)
            with torch.no_grad():
                start = ascent().detach()
            goal = stack_objectives([job.goal for job in group])
            if strength > 0:
                goal, ascent, seeds = _Near(goal, kept, float(strength)), _Beside(ascent, start), [*seeds, *seeds]
            reached = ascend(
                model, goal, ascent, Pipeline(changes, out=size, seeds=seeds, device=model.device), steps=steps,
                rate=rate, redirect=redirect, frames=wanted,
                on_step=lambda step, done=done: report(done + step, total),  # type: ignore[misc]
            )  # fmt: skip
            final = reached.pictures[:n]
            means, peaks = responses(model, stack_objectives([job.reading for job in group]), final, size)
            for j, job in enumerate(group):
                finite = math.isfinite(float(peaks[j])) and int(reached.skipped[j]) <= steps // 10
                status = "not finite" if not finite else "ok" if bool(reached.reached[j]) else "dead"
                made.append(
                    Visualization(
                        unit=job.name,
                        variant=job.variant,
                        image=final[j].cpu(),
                        response=float(means[j]),
                        peak=float(peaks[j]),
                        transformed=float(reached.values[-16:, j].mean()),
                        history=tuple(reached.values[:, j].tolist()),
                        status=status,
                        channels=model.input.channels,
                        frames={0: start[j].cpu(), **{s: f[j] for s, f in reached.frames.items()}},
                        steps=steps,
                        input_size=size,
                        seed=job.seed,
                        digest=model.digest,
                    )
                )
    return made


def _kept_layer(model: Model, unit: Unit, layer: str | None) -> str:
    if layer == "input":
        return layer
    if layer is None:
        return model.before(unit.layer) or "input"
    at = model.resolve(layer)
    if at.index is not None:
        raise AddressError(f"what is kept is a layer; got the unit {at.short}")
    return at.layer


class _Beside(Parametrization):
    """Pictures, and behind them in the batch the photographs that they started from, so that both change alike."""

    def __init__(self, of: Parametrization, photographs: Tensor) -> None:
        super().__init__(of.size, of.channels, False)
        self.of = of
        self.register_buffer("photographs", photographs, persistent=False)
        self.rate = of.rate  # type: ignore[misc]

    def forward(self) -> Tensor:
        return torch.cat([self.of(), self.get_buffer("photographs")])


class _Near(Objective):
    """An objective of the first half of a batch, less its distance in a layer from the second, in its own size."""

    def __init__(self, of: Objective, layer: str, strength: float) -> None:
        self.of, self.layer, self.strength = of, layer, strength

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.of.layers, self.layer)))

    def __call__(self, seen: Seen) -> Tensor:
        n = len(seen(self.layer)) // 2
        value = self.of(lambda name: seen(name)[:n])
        acts = seen(self.layer).flatten(1)
        apart, norm = (acts[:n] - acts[n:].detach()).square().sum(1), acts[n:].detach().square().sum(1)
        # under the root a little, as its gradient has no end at zero
        distance = (apart / norm.clamp(min=1e-30) + 1e-8).sqrt()
        penalty = self.strength * value.detach().abs() * distance
        # for its gradient only: the history is that of the unit, as the penalty's own size moves with it
        value = value - (penalty - penalty.detach())
        return torch.cat([value, torch.zeros_like(value)])
