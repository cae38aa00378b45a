"""The optimization loop: parameters to images, transformed, given to the network, one step of Adam.

Nothing else is done: the network's weights are frozen, its forward pass stops at the deepest layer that the
objective reads, and a batch of images shares both. The steps of an image do not depend on its batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.errors import AddressError, VisualizationError, shorten
from circuits.network.hooks import frozen, read
from circuits.network.model import Model
from circuits.visualization.objectives import Foreign, Objective
from circuits.visualization.parametrizations import Parametrization, Size
from circuits.visualization.redirected_relu import redirected
from circuits.visualization.settings import RenderSettings

log = logging.getLogger(__name__)

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Ascent:
    """The result of `ascend`.

    Attributes:
        images: `(N, C [+ 1], H, W)` in [0, 1], the last channel the opacity where there is one.
        values: the objective at each step, `(steps, N)`; of the transformed images.
        frames: step -> images after it.
        skipped: steps that an image did not take because its gradient was not finite, `(N,)`.
        reached: whether any gradient reached each image, `(N,)`.
    """

    images: Tensor
    values: Tensor
    frames: dict[int, Tensor] = field(default_factory=dict)
    skipped: Tensor = field(default_factory=lambda: torch.zeros(0))
    reached: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))


def ascend(
    model: Model,
    objective: Objective,
    parametrization: Parametrization,
    pipeline: Callable[[Tensor], Tensor],
    settings: RenderSettings,
    *,
    optimizer: Callable[[Sequence[Tensor]], torch.optim.Optimizer] | None = None,
    background: Callable[[Tensor], Tensor] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Ascent:
    """Maximize `objective` over the images of `parametrization`.

    Args:
        model: the model; its weights and hooks are the same afterwards, also after an error.
        objective: a value per image.
        parametrization: what is optimized.
        pipeline: from images to the network's input, in [0, 1].
        settings: its steps, rate, redirect, frames, plateau and precision count here.
        optimizer: instead of Adam, a function of the parameters.
        background: what shows through transparent images, anew at each step.
        on_step: called after each step with its number.

    Raises:
        VisualizationError: no gradient can reach the images, or the network cannot take images of this size.
    """
    model.check_images("feature visualization")
    names = layer_names(model, objective)
    layers = [model.layers[n] for n in names.values()]
    channels = model.input.channels
    parameters = list(parametrization.parameters())
    rate = parametrization.rate if settings.rate is None else settings.rate
    tuner = optimizer(parameters) if optimizer is not None else torch.optim.Adam(parameters, lr=rate)
    autocast = _autocast(model, settings.precision)
    values: list[Tensor] = []
    frames: dict[int, Tensor] = {}
    skipped = reached = torch.zeros(0)

    def value_and_gradient() -> Tensor:
        tuner.zero_grad(set_to_none=True)
        image = parametrization()
        opacity = image[:, channels:] if parametrization.alpha else None
        opaque = image if opacity is None else _over(image[:, :channels], opacity, background)
        with autocast():
            # channels last is an eighth faster on a CPU, more on a GPU's tensor cores
            x = pipeline(opaque).contiguous(memory_format=torch.channels_last)
            acts = read(model, x, layers) if layers else {}

        def activations(name: str) -> Tensor:
            return image[:, :channels] if name == "input" else acts[names[name]]

        value = objective(activations).float()
        if opacity is not None:
            # else everything becomes opaque: opacity is penalized, in the unit of the objective itself
            value = value - 0.5 * value.detach().abs() * opacity.flatten(1).mean(1)
        if not value.requires_grad:
            raise VisualizationError("nothing in the objective depends on the image: no gradient can reach it")
        (-value.sum()).backward()  # type: ignore[no-untyped-call]
        return value.detach()

    with frozen(model.module), torch.enable_grad(), size_checked(model, parametrization.size):
        for step in range(1, settings.steps + 1):
            with redirected() if step <= settings.redirect else nullcontext():
                if optimizer is None:
                    value = value_and_gradient()
                    finite, nonzero = _clean(parameters)
                    skipped = ~finite if step == 1 else skipped + ~finite
                    reached = nonzero if step == 1 else reached | nonzero
                    tuner.step()
                else:
                    value = _closed_step(tuner, value_and_gradient)
            values.append(value)
            if step in settings.frames:
                with torch.no_grad():
                    frames[step] = parametrization().detach().cpu()
            if on_step is not None:
                on_step(step)
            plateau = settings.plateau
            if plateau is not None and step % plateau == 0 and _flat(values, plateau):
                log.info("no better over the last %d steps: stopped at step %d", plateau, step)
                break
    with torch.no_grad():
        final = parametrization().detach()
    return Ascent(final, torch.stack(values).cpu(), frames, skipped.cpu(), reached.cpu())


def layer_names(model: Model, objective: Objective) -> dict[str, str]:
    """Names as the objective calls its layers -> the model's own names; "input" is not among them.

    Raises:
        AddressError: an unknown layer.
    """
    foreign = _functions(objective)
    if any(function.declared is None for function in foreign):
        names = _layers_of_function(model, objective, max(function.count for function in foreign))
    else:
        names = objective.layers
    return {name: model.layer("logits" if name == "labels" else name).name for name in names if name != "input"}


def _functions(objective: Objective) -> list[Foreign]:
    """The functions of the user's in an objective."""
    if isinstance(objective, Foreign):
        return [objective]
    inner = [getattr(objective, "of", None), *(getattr(objective, "terms", ()) or ())]
    return [function for part in inner if isinstance(part, Objective) for function in _functions(part)]


def _layers_of_function(model: Model, objective: Objective, count: int) -> tuple[str, ...]:
    """The layers that a user's function reads, recorded by calling it once on `count` gray images."""
    acts: dict[str, Tensor] = {}
    example = torch.full((count, *model.input.shape), 0.5, device=model.device, dtype=model.dtype)

    def activations(name: str) -> Tensor:
        if name == "input":
            return example
        if name not in acts:
            layer = model.layer("logits" if name == "labels" else name)
            acts[name] = read(model, example, [layer])[layer.name]
        return acts[name]

    with torch.no_grad():
        try:
            objective(activations)
        except (VisualizationError, AddressError):
            raise
        except Exception as error:  # whatever the user's own function raises
            raise VisualizationError(f"the objective failed on a gray image: {shorten(error, 200)}") from error
    return tuple(acts)


@contextmanager
def size_checked(model: Model, size: Size) -> Iterator[None]:
    """Turn the network's own error on images of a size it cannot take into one line that names the size."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        text = str(error)
        signs = ("Kernel size can't be greater", "Output size is too small", "too small", "shapes", "match")
        if any(sign in text for sign in signs):
            raise VisualizationError(
                f"{model.name} cannot take images of {size[0]}x{size[1]} as far as this layer "
                f"({shorten(text, 120)}); give a larger size, up to its own {model.input.hw[0]}x{model.input.hw[1]}"
            ) from error
        raise


def _autocast(model: Model, precision: str | None) -> Callable[[], torch.autocast | nullcontext[None]]:
    if precision is None:
        return nullcontext
    return lambda: torch.autocast(model.device.type, _DTYPES[precision])


def _over(colors: Tensor, opacity: Tensor, background: Callable[[Tensor], Tensor] | None) -> Tensor:
    below = torch.full_like(colors, 0.5) if background is None else background(colors)
    return colors * opacity + below * (1 - opacity)


def _clean(parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Zero the gradients of images where one is not finite; returns which were finite, and which had any."""
    finite = nonzero = None
    for p in parameters:
        assert p.grad is not None
        size = p.grad.flatten(1).abs().amax(1)
        good = torch.isfinite(size)
        finite = good if finite is None else finite & good
        nonzero = size > 0 if nonzero is None else nonzero | (size > 0)
    assert finite is not None and nonzero is not None
    if not bool(finite.all()):
        for p in parameters:
            assert p.grad is not None
            p.grad[~finite] = 0.0
    return finite, nonzero


def _closed_step(tuner: torch.optim.Optimizer, value_and_gradient: Callable[[], Tensor]) -> Tensor:
    """A step of an optimizer of the user's, which may evaluate several times (LBFGS); the first value counts."""
    values: list[Tensor] = []

    def closure() -> float:
        values.append(value_and_gradient())
        return -float(values[-1].sum())

    tuner.step(closure)
    return values[0]


def _flat(values: list[Tensor], window: int) -> bool:
    if len(values) < 2 * window:
        return False
    late, early = torch.stack(values[-window:]).mean(0), torch.stack(values[-2 * window : -window]).mean(0)
    return bool((late <= early + 1e-3 * early.abs()).all())


def exhausted(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def untransformed(model: Model, images: Tensor, show: Size) -> Tensor:
    """The network's input for images without transforms: on gray where they are transparent, resized to `show`."""
    colors = images[:, : model.input.channels].to(model.device)
    if images.shape[1] > model.input.channels:
        opacity = images[:, model.input.channels :].to(model.device)
        colors = colors * opacity + 0.5 * (1 - opacity)
    if tuple(colors.shape[2:]) != show:
        colors = F.interpolate(colors, show, mode="bilinear", align_corners=False)
    return colors
