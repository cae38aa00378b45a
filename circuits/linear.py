"""The linearised network, for any module: rectifiers and normalisation skipped, max pools averaging.

Works on the functions themselves, so it does not matter whether the author wrote `nn.ReLU()`,
`F.relu(x, inplace=True)` or `x.relu_()`; nothing in the module is replaced, so nothing needs restoring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_SKIPPED = {
    torch.relu, torch.relu_, F.relu, F.relu6, F.leaky_relu, F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish,
    F.hardswish, F.hardtanh, F.softplus, F.prelu, F.rrelu, F.local_response_norm, F.dropout, F.dropout2d,
    F.alpha_dropout, F.feature_alpha_dropout, Tensor.relu, Tensor.relu_,
}  # fmt: skip
_MAX_POOLS = {torch.max_pool2d, F.max_pool2d, F.max_pool2d_with_indices}


class _Linear(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _SKIPPED:
            return args[0] if args else kwargs["input"]
        if func in _MAX_POOLS:
            return _averaged(*args, **kwargs)
        return func(*args, **kwargs)


def _averaged(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    **_: Any,
) -> Tensor:  # fmt: skip
    return F.avg_pool2d(input, kernel_size, stride or kernel_size, padding, ceil_mode=ceil_mode)


@contextmanager
def linearised() -> Iterator[None]:
    """Inside, every network computes as if it were linear (its biases stay)."""
    with _Linear():
        yield
