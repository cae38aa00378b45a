"""Feature accentuation: images changed so that a unit's activation rises, and little else changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from circuits.errors import AddressError, VisualizationError
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.visualization.modes.checks import opened
from circuits.visualization.objectives import Activations, Objective, stack as stack_objectives
from circuits.visualization.optimization import ascend
from circuits.visualization.parametrizations import Parametrization, Photograph
from circuits.visualization.render import default_batch_size, jobs_of, visualizations
from circuits.visualization.result import Visualizations
from circuits.visualization.settings import RenderSettings
from circuits.visualization.transforms import Pipeline, standard
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import number
from zoo.common.results import remembers
from zoo.images.sources import Source
from zoo.progress import Progress, reporter


@remembers("model")
@outside_inference_mode
def accentuate(
    model: Model,
    unit: str | Unit,
    images: Source,
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
) -> Visualizations:
    """Images changed so that a unit's activation rises, while the activations of an earlier layer stay.

    Maximized is the unit's activation, less `strength` times its present size times the distance of the earlier
    layer's activations from those on the original image, relative to their norm; both images are transformed in the
    same way. So `strength` has no unit: it is what a relative distance of one costs, in relative gain. (Hamblin et
    al., *Feature Accentuation: Revealing "What" Features Respond to in Natural Images*, 2024.)

    Args:
        model: the model.
        unit: a channel, a neuron or a latent.
        images: images. Tensors `(N, C, H, W)` or `(C, H, W)` keep their size; others are read at the model's.
        steps: of the optimization.
        strength: weight of the penalty, 0 or more; 0 is plain ascent from the image.
        layer: whose activations stay; default the trunk layer before the unit's, or "input" for the pixels.
        transforms: as for `visualize`.
        rate: step size; larger ones cover the images with noise.
        redirect: first steps in which gradients that ReLUs block are redirected.
        frames: steps after which the images are also stored.
        batch_size: images at once; default what memory allows.
        seed: of everything random.
        progress: True for a bar, or a function of (done, total) in steps.

    Returns:
        One result per image, of its size, with the original as frame 0; its history is the unit's activation.

    Raises:
        AddressError: an unknown layer or unit. ImageError: no readable images.
        VisualizationError: options that do not fit.
    """
    settings = RenderSettings(
        steps=steps, rate=rate, redirect=redirect, frames=frames, batch_size=batch_size, seed=seed
    )
    number("strength", strength, least=0, error=VisualizationError)
    if model.module.training:
        raise VisualizationError(f"{model.name} is in training mode; call model.module.eval() first")
    target = model.unit(unit)
    near = _near_layer(model, target, layer)
    originals, ids, _ = opened(model, images)
    size = (originals.shape[2], originals.shape[3])
    # every image is a variant of the unit, with a seed of its own
    jobs = jobs_of(model, target, RenderSettings(variants=len(ids), seed=seed))
    most = batch_size or max(1, default_batch_size(model, jobs, size) // 2)
    changes = list(standard(size, model.input.hw)) if transforms is None else list(transforms)
    results = Visualizations()
    total = steps * -(-len(jobs) // most)
    with reporter(progress, "step") as report:
        for i in range(0, len(jobs), most):
            group, before = jobs[i : i + most], steps * (i // most)
            seeds = [job.seed for job in group]
            parametrization = Photograph(originals[i : i + most])(seeds, size, model.input.channels, model.device)
            with torch.no_grad():
                start = parametrization().detach()
            goal = stack_objectives([job.goal for job in group])
            if strength > 0:
                goal, seeds = _Near(goal, near, float(strength)), [*seeds, *seeds]
                parametrization = _WithOriginals(parametrization, start)
            ascent = ascend(
                model, goal, parametrization, Pipeline(changes, out=size, seeds=seeds, device=model.device), settings,
                on_step=lambda step, before=before: report(before + step, total),  # type: ignore[misc]
            )  # fmt: skip
            for j, result in enumerate(visualizations(model, group, ascent, size)):
                results.append(replace(result, frames={0: start[j].cpu(), **result.frames}))
    return results


def _near_layer(model: Model, unit: Unit, layer: str | None) -> str:
    if layer == "input":
        return layer
    if layer is None:
        return model.before(unit.layer) or "input"
    at = model.resolve(layer)
    if at.index is not None:
        raise AddressError(f"layer= takes a layer, whose activations stay; got the unit {at.short}")
    return at.layer


class _WithOriginals(Parametrization):
    """Images, and after them in the batch the originals that they started from, so that both are transformed."""

    def __init__(self, of: Parametrization, originals: Tensor) -> None:
        super().__init__(of.size, of.channels, False)
        self.of = of
        self.register_buffer("originals", originals, persistent=False)
        self.rate = of.rate  # type: ignore[misc]

    def forward(self) -> Tensor:
        return torch.cat([self.of(), self.get_buffer("originals")])


class _Near(Objective):
    """An objective of the first half of a batch, less its distance in a layer from the second half.

    f(x) - strength * |f(x)| * ||a(x) - a(x0)|| / ||a(x0)||
    """

    def __init__(self, of: Objective, layer: str, strength: float) -> None:
        self.of, self.layer, self.strength = of, layer, strength

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.of.layers, self.layer)))

    def __call__(self, activations: Activations) -> Tensor:
        n = len(activations(self.layer)) // 2
        value = self.of(lambda name: activations(name)[:n])
        acts = activations(self.layer).flatten(1)
        squared, norm = (acts[:n] - acts[n:].detach()).square().sum(1), acts[n:].detach().square().sum(1)
        # a small term under the root, as its gradient is infinite at zero
        distance = (squared / norm.clamp(min=1e-30) + 1e-8).sqrt()
        penalty = self.strength * value.detach().abs() * distance
        # for its gradient only: the history is that of the unit, as the penalty's own size moves with it
        value = value - (penalty - penalty.detach())
        return torch.cat([value, torch.zeros_like(value)])
