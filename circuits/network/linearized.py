"""The linearized network, for any module: ReLUs and normalization skipped, max pools averaging.

Works on the functions themselves, so it does not matter whether the author wrote `nn.ReLU()`,
`F.relu(x, inplace=True)` or `x.relu_()`; nothing in the module is replaced, so nothing needs restoring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from circuits.errors import GraphError
from circuits.network.graph import ReceptiveField
from circuits.network.operations import DROPOUT_FUNCTIONS, Pair, linear_padding, rectifies

_MAX_POOLS = {torch.max_pool2d, F.max_pool2d, F.max_pool2d_with_indices}


class _Linear(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if rectifies(func, args, kwargs) or func in DROPOUT_FUNCTIONS:
            return args[0] if args else kwargs["input"]
        if func is F.pad and (kwargs.get("mode", "constant") if len(args) < 3 else args[2]) == "constant":
            return _padded(*args, **kwargs)
        if func in _MAX_POOLS:
            return _averaged(*args, **kwargs)
        return func(*args, **kwargs)


def _averaged(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    **_: Any,
) -> Tensor:  # fmt: skip
    return F.avg_pool2d(input, kernel_size, stride or kernel_size, padding, ceil_mode=ceil_mode)


def _padded(input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    return F.pad(input, pad, mode, linear_padding(value or 0.0))


@contextmanager
def linearized() -> Iterator[None]:
    """Inside, every network computes as if it were linear (its biases stay)."""
    with _Linear():
        yield


def receptive_fields(
    read: Callable[[Tensor], Mapping[str, Tensor]], shape: Sequence[int], device: torch.device
) -> dict[str, ReceptiveField | None]:
    """Receptive field of every layer that `read` gives as maps `(1, C, h, w)` for an image `(1, *shape)`.

    The linearized network has no dead ReLUs, so a pixel without gradient is one that is not read.
    None where the field reaches the edge of the image, so that its full size cannot be seen, and where it does not
    move with the position: all positions of a window that attention mixes see the same pixels.
    """
    image = torch.full((1, *shape), 0.5, device=device, requires_grad=True)
    with torch.enable_grad(), linearized():
        acts = read(image)
    with torch.enable_grad():
        return {name: _field(values, image) if values.ndim == 4 else None for name, values in acts.items()}


def _field(acts: Tensor, image: Tensor) -> ReceptiveField | None:
    h, w = acts.shape[2:]
    if min(h, w) < 2 or not acts.requires_grad:
        return None
    y, x = (h - 1) // 2, (w - 1) // 2
    boxes = [_box(acts, image, (y + i, x + i)) for i in ((-1, 0, 1) if min(y, x) > 0 else (0, 1))]
    height, width = image.shape[2:]
    if any(box is None for box in boxes):
        return None
    *before, here, next_one = (box for box in boxes if box is not None)
    size = (here[2] - here[0], here[3] - here[1])
    stride = (next_one[0] - here[0], next_one[1] - here[1])
    touches = min(here[0], here[1]) <= 0 or next_one[2] >= height or next_one[3] >= width
    if touches or min(stride) < 1:
        return None
    field = ReceptiveField(size, stride, (here[0] - y * stride[0], here[1] - x * stride[1]))
    moves = all(box == field.box(y - 1, x - 1, within=(height, width)) for box in before)
    return field if moves and next_one == field.box(y + 1, x + 1) else None


def _box(acts: Tensor, image: Tensor, at: Pair) -> tuple[int, int, int, int] | None:
    # weights of either sign could cancel in a plain sum over channels; unequal ones do not
    mixed = acts[0, :, at[0], at[1]] @ torch.linspace(1.0, 2.0, acts.shape[1], device=acts.device, dtype=acts.dtype)
    (gradient,) = torch.autograd.grad(mixed, image, retain_graph=True, allow_unused=True)
    if gradient is None:
        return None
    used = gradient[0].abs().amax(dim=0)
    rows, columns = used.amax(dim=1).nonzero().flatten(), used.amax(dim=0).nonzero().flatten()
    if len(rows) == 0:
        return None
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def measured_kernels(
    begin: Tensor,
    end: Tensor,
    directions: Tensor | None,
    channels: Sequence[int],
    to_maps: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Pair, Pair]:
    """Gradients of some channels (or directions) of `end` `(1, C, h, w)` with respect to `begin`, at its middle.

    `to_maps` makes maps `(1, S, h, w)` of `begin`, or of a gradient with respect to it.

    Returns:
        Kernels cropped to what has a gradient, their offset and their stride, as in `ExpandedWeights`.

    Raises:
        GraphError: no path, or the target reads the source differently at different positions.
    """
    h, w = end.shape[2:]
    position = (h // 2, w // 2)
    row = end[0, :, position[0], position[1]]
    selectors = torch.eye(len(row)).to(row)[list(channels)] if directions is None else directions.to(row)
    gradients = [torch.autograd.grad(row, begin, s, retain_graph=True, allow_unused=True)[0] for s in selectors]
    if any(g is None for g in gradients):
        raise GraphError("no path leads from the source to the target")
    stride = (0, 0) if (h, w) == (1, 1) else tuple(_stride(begin, end, position, a, to_maps) for a in (0, 1))
    kernels, corner = _crop(torch.stack([to_maps(g)[0] for g in gradients]))
    return kernels, (corner[0] - position[0] * stride[0], corner[1] - position[1] * stride[1]), (stride[0], stride[1])


def _stride(begin: Tensor, end: Tensor, position: Pair, axis: int, to_maps: Callable[[Tensor], Tensor]) -> int:
    """Source positions per target position along an axis: how far what is read moves from one position to the next."""
    size, count = to_maps(begin).shape[2 + axis], end.shape[2 + axis]
    near = [p for p in (position[axis] - 1, position[axis], position[axis] + 1) if 0 <= p < count]
    profiles = []
    for p in near:
        y, x = (p, position[1]) if axis == 0 else (position[0], p)
        mixed = end[0, :, y, x] @ torch.linspace(1.0, 2.0, end.shape[1], device=end.device, dtype=end.dtype)
        (gradient,) = torch.autograd.grad(mixed, begin, retain_graph=True)
        profiles.append(to_maps(gradient)[0].abs().sum(dim=(0, 2 - axis)))
    strides, same = set(), True
    for a, b in zip(profiles, profiles[1:], strict=False):
        used_a, used_b = a.nonzero().flatten(), b.nonzero().flatten()
        if len(used_a) == 0 or len(used_b) == 0:
            continue
        low, high = int(used_b[0] - used_a[0]), int(used_b[-1] - used_a[-1])
        # an end that lies at the border of the map has been cut off, and gives no stride
        whole = [int(used_a[0]) > 0 and int(used_b[0]) > 0, int(used_a[-1]) < size - 1 and int(used_b[-1]) < size - 1]
        strides |= {step for step, reliable in zip((low, high), whole, strict=True) if reliable}
        if all(whole) and low == high > 0:
            same &= torch.allclose(a[:-low], b[low:], rtol=1e-3, atol=1e-3 * float(a.max()))
    if not same or len(strides) > 1 or min(strides, default=1) < 1:
        raise GraphError(
            "the target reads the source differently from position to position: there is no one kernel for it"
        )
    return strides.pop() if strides else max(1, round(size / count))


def _crop(kernels: Tensor) -> tuple[Tensor, Pair]:
    """The smallest window that holds every non-zero weight, and its corner."""
    used = kernels.abs().amax(dim=(0, 1))
    rows, columns = used.amax(dim=1).nonzero().flatten(), used.amax(dim=0).nonzero().flatten()
    if len(rows) == 0:
        return kernels[:, :, :1, :1], (0, 0)
    top, left = int(rows[0]), int(columns[0])
    return kernels[:, :, top : int(rows[-1]) + 1, left : int(columns[-1]) + 1], (top, left)
