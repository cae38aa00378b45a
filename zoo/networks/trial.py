"""A trial run of a network that nobody here has seen: what it takes, what it gives, and whether it can be analyzed.

An output is a tensor, or tensors by name or number in dictionaries, tuples and data classes. `output` says which of
them the network is analyzed for: "out", 0, or "heads.1" for one inside of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import ModelError, shorten
from zoo.inputs import InputSpec

Output = str | int | None
"""Which of a network's outputs: None for its only one."""


def outputs_of(value: Any, path: str = "", kind: type = Tensor) -> Iterator[tuple[str, Any]]:
    """The tensors in what a network gives, each with what selects it; "" for a plain tensor."""
    if isinstance(value, kind):
        yield path, value
    for key, part in _parts(value).items():
        yield from outputs_of(part, f"{path}.{key}" if path else str(key), kind)


def _parts(value: Any) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "_asdict"):  # a named tuple
        return dict(value._asdict())
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value))
    fields = getattr(value, "__dataclass_fields__", {})
    return {name: getattr(value, name) for name in fields}


def selected(value: Any, output: Output) -> Any:
    """The part of what a network gives that `output` selects.

    Raises:
        ModelError: there is no such part; the message lists those that there are.
    """
    part = value
    for step in () if output is None else str(output).split("."):
        parts = {str(key): child for key, child in _parts(part).items()}
        if isinstance(part, tuple) and hasattr(part, "_asdict"):
            parts |= {str(i): child for i, child in enumerate(part)}
        if step not in parts:
            names = [repr(name) for name, _ in outputs_of(value)]
            has = "a single tensor" if names == ["''"] else f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
            raise ModelError(f"output={output!r} selects nothing: the network gives {has or 'no tensor'}")
        part = parts[step]
    return part


def check_runs(module: nn.Module, spec: InputSpec, advice: str, output: Output = None) -> None:
    """Refuse a network that cannot take images of that size, or that gives an image several outputs.

    Args:
        module: the network, in eval mode.
        spec: how it is fed.
        advice: what to do when it cannot be.
        output: which of its outputs is meant.

    Raises:
        ModelError: `spec` is none; it fails, changes, is random, computes with the whole batch, or has no such output.
    """
    if not isinstance(spec, InputSpec):
        raise ModelError(
            "input says how the network is fed, as circuits.InputSpec(size=224, channels=3, mean=..., std=...); "
            f"got {type(spec).__name__}"
        )
    kind = type(module).__name__
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(1))
    image = torch.rand((1, *spec.shape), generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    # by value: torch counts no change where batch_norm writes its statistics without gradients
    buffers = [(name, value, value.clone()) for name, value in module.named_buffers()]
    try:
        with torch.no_grad():
            whole = module(spec.normalize(image).to(like))
            first, second = _tensors(whole), _tensors(module(spec.normalize(image).to(like)))
    except Exception as error:  # whatever the user's own forward raises
        for part, dims, what in ((nn.Conv1d, 1, "sequences, size=(T,)"), (nn.Conv3d, 3, "volumes, size=(D, H, W)")):
            if spec.dims != dims and any(isinstance(m, part) for m in module.modules()):
                raise ModelError(
                    f"{kind} cannot take one image of shape {spec.native_shape}, and has {part.__name__} layers: "
                    f"InputSpec declares what they are of, {what}"
                ) from error
        raise ModelError(
            f"{kind} cannot take one image of shape {spec.native_shape}: {shorten(error, 200)}. "
            f"{advice}, or wrap a module with one tensor input"
        ) from error
    moved = [(name, value, before) for name, value, before in buffers if not _same(before, value)]
    if moved:
        with torch.no_grad():
            for _, value, before in moved:
                value.copy_(before)
        names = ", ".join(name for name, *_ in moved[:4])
        raise ModelError(f"{kind} changes {names} when it runs (batch_norm with training=True?)")
    if len(first) != len(second) or not all(_same(a, b) for a, b in zip(first, second, strict=True)):
        raise ModelError(
            f"{kind} gives another output each time it runs on the same image: its forward draws random numbers "
            "(dropout with training=True? give it training=self.training)"
        )
    if not isinstance(selected(whole, output), Tensor) and output is not None:
        inner = [name for name, _ in outputs_of(whole) if name.startswith(f"{output}.")]
        raise ModelError(f"output={output!r} is no tensor; take one of {', '.join(inner[:8]) or 'none'}")
    _check_batches(module, spec, first)


def _check_batches(module: nn.Module, spec: InputSpec, alone: list[Tensor]) -> None:
    """Refuse a network that gives an image another output beside another image.

    Raises:
        ModelError: it normalizes by the statistics of the batch, or takes no batches.
    """
    kind = type(module).__name__
    by_batch = [
        path
        for path, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None
    ]
    if by_batch:
        raise ModelError(
            f"{kind} normalizes by the batch in {', '.join(by_batch[:4])} (track_running_stats=False): an image would "
            "have other activations beside other images. Give running statistics, or GroupNorm or InstanceNorm"
        )
    images = torch.rand((2, *spec.shape), generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(1))
    try:
        with torch.no_grad():
            together = _tensors(module(spec.normalize(images).to(like)))
    except Exception as error:  # whatever the user's own forward raises
        raise ModelError(f"{kind} takes one image, but not a batch of two: {shorten(error, 200)}") from error
    for single, paired in zip(alone, together, strict=False):
        if (
            single.ndim == 0
            or paired.shape != (2, *single.shape[1:])
            or len(single) != 1
            or not single.is_floating_point()
        ):
            continue  # not one value an image
        if not _same(single, paired[:1], tolerance=1e-3):
            raise ModelError(
                f"{kind} gives an image another output beside another image: it computes with the whole batch "
                "(F.batch_norm with training=True?)"
            )


def _tensors(output: object) -> list[Tensor]:
    return [value for _, value in outputs_of(output)]


def _same(first: Tensor, second: Tensor, tolerance: float = 0.0) -> bool:
    if first.shape != second.shape or not first.is_floating_point():
        return first.shape == second.shape
    # room for the order in which a GPU adds, which may change from run to run
    scale = float(first.nan_to_num(0, 0, 0).abs().max()) if first.numel() else 0.0
    tolerance = max(tolerance, 100 * torch.finfo(first.dtype).eps)
    return torch.allclose(first, second, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def checked_names(classes: Sequence[str]) -> list[str]:
    """A list of texts; a text alone is no list of its letters, nor are the keys of a dictionary names."""
    if isinstance(classes, str | Mapping) or not isinstance(classes, Iterable):
        raise ModelError(f"classes is a list of names, in the order of the class scores; got {type(classes).__name__}")
    names = list(classes)
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise ModelError(f"each name of a class is a text, got {wrong[0]!r}; give [str(name) for name in classes]")
    return names
