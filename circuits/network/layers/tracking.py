"""Finds out what the axes of every activation are, by following those of the image through one forward pass.

Every tensor carries, for each of its axes, what it is a product of: the images of the batch, features, rows, columns.
A convolution gives new features, rows and columns; `permute` moves axes; `reshape` merges and splits them, exactly as
it does the numbers; a linear layer makes new features of the last axis; `cat` with a parameter puts class tokens before
patches. Works on the functions themselves, in any `forward`, like `linearized`. What a function does to axes that is
not known here is not guessed: its result has no axes, and the layer is refused with the name of that function, unless
it makes four axes of a map with channels first, or two of a vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from circuits.network.layers.labels import BATCH, SPACE, Labels, Lost, fresh, is_plain, known_labels, new_axis
from circuits.network.layers.rules import CHANNELS_SECOND, OF_SEVERAL, RULES, SCRAMBLES, Call, pointwise


class _Tracking(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", "")
        carried = [t._axes for t in _tensors((args, kwargs)) if hasattr(t, "_axes")]
        out = func(*args, **kwargs)
        if carried and isinstance(out, (Tensor, tuple, list)):
            _write(Call(name, args, kwargs, out), carried)
        return out


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from _tensors(v)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _write(call: Call, carried: list[Labels | Lost]) -> None:
    """Put the labels of a result on it."""
    outs = [call.out] if isinstance(call.out, Tensor) else list(call.out)
    if not outs or not isinstance(outs[0], Tensor):
        return
    lost = next((labels for labels in carried if isinstance(labels, Lost)), None)
    labels: Any = None
    if lost is None or any(not isinstance(c, Lost) for c in carried) or call.name in CHANNELS_SECOND:
        labels = _labels_of(call, lost)
    several = labels if isinstance(labels, list) else [labels] * len(outs)
    for out, own in zip(outs, several, strict=True):
        if isinstance(out, Tensor):
            fits = own is not None and [math.prod(a.size for a in axis) for axis in own] == list(out.shape)
            out._axes = _settled(own) if fits else (lost or Lost(call.name))  # type: ignore[attr-defined]


def _settled(labels: Labels) -> Labels:
    """Rows or columns whose finer parts are gone are those of a coarser map."""
    roots = [id(atom.root) for axis in labels for atom in axis]
    result = []
    for axis in labels:
        atom = axis[0] if len(axis) == 1 else None
        coarse = atom is not None and atom.inner > 1 and atom.root.kind in SPACE
        if atom is not None and coarse and roots.count(id(atom.root)) == 1 and atom.inner * atom.size == atom.root.size:
            axis = new_axis(atom.root.kind, atom.size)
        result.append(axis)
    return tuple(result)


def _labels_of(call: Call, lost: Lost | None) -> Any:
    x = call.args[0] if call.args else call.kwargs.get("input")
    out = call.out if isinstance(call.out, Tensor) else call.out[0]
    if call.name in OF_SEVERAL:
        return None if lost is not None else OF_SEVERAL[call.name](call)
    if lost is not None and call.name in CHANNELS_SECOND and out.ndim == 4 and len(out) == BATCH:
        return fresh(out.shape)
    if lost is not None and call.name not in RULES and out.ndim != 4:
        return None
    if call.name in RULES and known_labels(x) is not None:
        return RULES[call.name](call)
    if call.name in RULES or call.name in SCRAMBLES:
        return None
    labels, before = pointwise(call) if lost is None else None, known_labels(x)
    if labels is None and before is not None and len(before) == out.ndim and len(out) == BATCH and is_plain(before):
        return fresh(out.shape)
    return labels


@contextmanager
def tracking() -> Iterator[None]:
    """Inside, tensors computed from a `labeled` one carry what their axes are."""
    with _Tracking():
        yield


def labeled(images: Tensor) -> Tensor:
    """Images `(BATCH, C, H, W)`, sequences or volumes, of one `(1, ...)` with their axes."""
    images = images.repeat(BATCH, *[1] * (images.ndim - 1))
    images._axes = fresh(images.shape)  # type: ignore[attr-defined]
    return images


def labels_of(x: Tensor) -> Labels | Lost | None:
    """What a tensor carries at this point of the pass; see `layouts_of`."""
    return getattr(x, "_axes", None)
