"""Lucent's `render_vis` on this library's loop, and its `hook_model`."""

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
from circuits.network.hooks import Recorder
from circuits.network.model import Model, wrap
from circuits.visualization import objectives as ours
from circuits.visualization.lucent import param
from circuits.visualization.lucent.objectives import Objective, as_objective
from circuits.visualization.lucent.transform import IMAGENET, INCEPTIONV1, flattened, standard_transforms
from circuits.visualization.optimization import ascend
from circuits.visualization.parametrizations import Parametrization
from circuits.visualization.settings import RenderSettings
from circuits.visualization.transforms import Pipeline
from zoo.inputs import InputSpec
from zoo.networks.inceptionv1 import TENSORFLOW_5H, InceptionV1
from zoo.progress import reporter
from zoo.registry import origin


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
    objective_f: Objective | ours.Objective | str | Callable[..., Any],
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
        model: a `circuits.Model`, or a module. A module of the zoo is fed as its card says, any other as Lucent feeds
            it: x * 255 - 117 if its class is called InceptionV1, else with ImageNet's mean and deviation.
        objective_f: an objective, "layer:channel", or a function of `T` to a loss: a loss of the whole batch. An
            objective of `circuits.visualization` is a value per image, and the sum over the batch is maximized.
        param_f: gives `(parameters, image_f)`; default `param.image(128)`.
        optimizer: from parameters to an optimizer; default Adam, 0.05.
        transforms: functions of images, or transforms of ours; default Lucent's.
        thresholds: steps after which images are returned; the last ends the run.
        preprocess: False: the network is fed what the transforms give, images in [0, 1] without any.
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
    wrapped = _wrapped(model, preprocess)
    parameters, image_f = (param_f or (lambda: param.image(128)))()
    images = _UserParametrization(parameters, image_f, wrapped)
    if fixed_image_size is not None:
        show = (fixed_image_size, fixed_image_size)
    else:
        show = images.size if min(images.size) >= 224 else (224, 224)
    upsample = nn.Upsample(size=show, mode="bilinear", align_corners=True)
    changes: Sequence[Any] = standard_transforms if transforms is None else transforms
    pipeline = Pipeline(
        [*flattened(changes), upsample], out=show, seeds=range(seed, seed + images.count), device=wrapped.device
    )
    settings = RenderSettings(steps=steps[-1], redirect=0, frames=steps)
    with reporter(progress or None, "step") as report:
        ascent = ascend(
            wrapped, _to_maximize(objective_f, images.count), images, pipeline, settings,
            optimizer=optimizer or (lambda parameters: torch.optim.Adam(parameters, lr=5e-2)),
            on_step=lambda step: report(step, steps[-1]),
        )  # fmt: skip
    arrays = [ascent.frames[step].permute(0, 2, 3, 1).float().numpy() for step in thresholds]
    if save_image:
        strip = np.concatenate(list(arrays[-1]), axis=1)
        Image.fromarray((strip.squeeze() * 255).round().astype(np.uint8)).save(Path(image_name or "image.png"))
    return arrays


def hook_model(model: Model | nn.Module, image_f: Callable[[], Tensor]) -> Callable[[str], Tensor]:
    """`T` for a loop of your own: `T("mixed4a")` is that layer's output in the latest `model(...)` that you called.

    Hooks stay on the model for as long as `T` is referred to; `T.close()` removes them at once.

    Args:
        model: a `circuits.Model` or a module, in eval mode.
        image_f: gives the images, for `T("input")`.

    Raises:
        AddressError: an unknown layer. CaptureError: the network has not run as far as a layer, or no hook reaches it.

    >>> _, image_f = param.image(64)
    >>> model = load("scenes")
    >>> T = hook_model(model, image_f)
    >>> model.module(model.input.normalize(image_f())).shape == T("softmax").shape
    True
    """
    return _Hooked(_wrapped(model, preprocess=True), image_f)


class _Hooked:
    """What `hook_model` returns."""

    def __init__(self, model: Model, image_f: Callable[[], Tensor]) -> None:
        self.model, self.image_f = model, image_f
        self.recorder = Recorder(model, [layer for layer in model.layers.values() if layer.part is None])
        self.close = self.recorder.close

    def __call__(self, layer: str) -> Tensor:
        if layer == "input":
            return self.image_f()
        return self.recorder.output(self.model.layer(self.model.logits if layer == "labels" else layer))


def _to_maximize(objective: Any, count: int) -> ours.Objective:
    """Lucent's losses so that the sum over `count` images that is maximized is minus the loss, at any batch size."""
    if isinstance(objective, ours.Objective):
        return objective
    return ours.Foreign(as_objective(objective), count) / count


def _wrapped(model: Model | nn.Module, preprocess: bool) -> Model:
    if isinstance(model, Model) and preprocess:
        return model
    card = model.card if isinstance(model, Model) else origin(model)
    module = model.module if isinstance(model, Model) else model
    if isinstance(model, Model):
        spec = model.input
    elif card is not None:
        spec = card.input
    elif not preprocess:
        spec = InputSpec()
    elif isinstance(module, InceptionV1) and module.spec != TENSORFLOW_5H:
        raise VisualizationError(
            "this InceptionV1 is not the TensorFlow network, and how it is fed is not known: give "
            "circuits.wrap(module, circuits.InputSpec(...)), or load it with circuits.load"
        )
    else:
        spec = INCEPTIONV1 if type(module).__name__ == "InceptionV1" else IMAGENET
    if not preprocess:
        spec = InputSpec(spec.size, spec.channels)
    return wrap(module, spec) if card is None else Model(module, spec, name=card.name, card=card)
