"""Lucent's `render_vis` on this library's loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from circuits.errors import VisualizationError
from circuits.network.model import Model, wrap
from circuits.visualization.lucent import param
from circuits.visualization.lucent.transform import standard_transforms
from circuits.visualization.objectives import Objective, as_objective
from circuits.visualization.optimization import ascend
from circuits.visualization.parametrizations import Parametrization
from circuits.visualization.settings import RenderSettings
from circuits.visualization.transforms import Pipeline
from zoo.inputs import InputSpec
from zoo.progress import reporter


class _UserParametrization(Parametrization):
    """Parameters and a function of the user's."""

    def __init__(self, parameters: Sequence[Tensor], image_f: Callable[[], Tensor], like: Model) -> None:
        nn.Module.__init__(self)
        self.tensors = tuple(parameters)  # a tuple, so that they stay the very tensors that image_f reads
        self.image_f = image_f
        self.device = like.device
        self.alpha = False
        with torch.no_grad():
            first = self()
        if first.ndim != 4:
            raise VisualizationError(f"param_f gives images (N, C, H, W); got {tuple(first.shape)}")
        self.count, self.size = len(first), (first.shape[2], first.shape[3])

    def parameters(self, recurse: bool = True) -> Any:
        return iter(self.tensors)

    def raw(self) -> Tensor:
        return self.image_f()

    def forward(self) -> Tensor:
        return self.image_f().to(self.device)


def render_vis(
    model: Model | nn.Module,
    objective_f: Objective | str | Callable[..., Any],
    param_f: Callable[[], tuple[Sequence[Tensor], Callable[[], Tensor]]] | None = None,
    optimizer: Callable[[Sequence[Tensor]], torch.optim.Optimizer] | None = None,
    transforms: Sequence[Any] | None = None,
    thresholds: Sequence[int] = (512,),
    verbose: bool = False,
    preprocess: bool = True,
    progress: bool = True,
    show_image: bool = False,
    save_image: bool = False,
    image_name: str | None = None,
    show_inline: bool = False,
    fixed_image_size: int | None = None,
    seed: int = 0,
) -> list[npt.NDArray[np.float32]]:
    """Optimize images for an objective; arguments and result are those of Lucent's function of that name.

    Args:
        model: a `circuits.Model`, or a module, which is then fed as Lucent feeds it: x * 255 - 117 if its class is
            called InceptionV1, else with ImageNet's mean and deviation.
        objective_f: an objective, "layer:channel", or a function of `T` to a loss.
        param_f: gives `(parameters, image_f)`; default `param.image(128)`.
        optimizer: from parameters to an optimizer; default Adam, 0.05.
        transforms: functions of images, or transforms of ours; default Lucent's.
        thresholds: steps after which images are returned; the last ends the run.
        preprocess: False: the module is fed images in [0, 1].
        progress: show a bar.
        save_image, image_name: write the last images to this file, side by side (default image.png).
        fixed_image_size: pixels at which the network is given the images; default at least 224.
        seed: of this library's transforms.
        verbose, show_image, show_inline: accepted, without effect: images are returned, never displayed.

    Returns:
        One array `(N, H, W, C)` in [0, 1] per threshold.

    Raises:
        VisualizationError: something cannot be done as asked. AddressError: an unknown layer.
    """
    steps = sorted(set(thresholds))
    if not steps or steps[0] < 1:
        raise VisualizationError(f"thresholds are steps from 1; got {tuple(thresholds)}")
    wrapped = model if isinstance(model, Model) else _wrapped(model, preprocess)
    parameters, image_f = (param_f or (lambda: param.image(128)))()
    images = _UserParametrization(parameters, image_f, wrapped)
    if fixed_image_size is not None:
        show = (fixed_image_size, fixed_image_size)
    else:
        show = images.size if min(images.size) >= 224 else (224, 224)
    upsample = nn.Upsample(size=show, mode="bilinear", align_corners=True)
    changes = standard_transforms if transforms is None else list(transforms)
    pipeline = Pipeline([*changes, upsample], out=show, seeds=range(seed, seed + images.count), device=wrapped.device)
    settings = RenderSettings(steps=steps[-1], redirect=0, frames=steps)
    with reporter(progress or None, "step") as report:
        ascent = ascend(
            wrapped, as_objective(objective_f), images, pipeline, settings,
            optimizer=optimizer or (lambda parameters: torch.optim.Adam(parameters, lr=5e-2)),
            on_step=lambda step: report(step, steps[-1]),
        )  # fmt: skip
    arrays = [ascent.frames[step].permute(0, 2, 3, 1).float().numpy() for step in thresholds]
    if save_image:
        strip = np.concatenate(list(arrays[-1]), axis=1)
        Image.fromarray((strip.squeeze() * 255).round().astype(np.uint8)).save(Path(image_name or "image.png"))
    return arrays


def _wrapped(module: nn.Module, preprocess: bool) -> Model:
    if not preprocess:
        spec = InputSpec()
    elif type(module).__name__ == "InceptionV1":
        spec = InputSpec(scale=255.0, mean=(117.0,))
    else:
        spec = InputSpec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return wrap(module, spec)


__all__ = ["render_vis"]
