"""Networks before their weights are loaded: random ones from a seed, and modules made ready to be analyzed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


def he_init(module: nn.Module) -> nn.Module:
    """`module` with He-normal weights and zero biases, in place.

    PyTorch's default shrinks activations layer by layer, so that in a random net of this depth no unit activates;
    He et al. 2015 (arXiv:1502.01852) keeps their variance, which makes random nets usable as controls.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return module


def freeze(module: nn.Module) -> nn.Module:
    """`module` in evaluation mode, with no parameter asking for a gradient."""
    return module.eval().requires_grad_(False)


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """What `build` makes from `seed`, leaving the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


class _WithoutWeights(TorchFunctionMode):
    """Weights take no memory; numbers that a network's shape is computed from do."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func is torch.empty:  # what every layer of torch.nn makes its weights with
            options["device"] = "meta"
        return func(*args, **options)


def outline(build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` makes, without memory for its weights where that can be: for names and shapes alone."""
    for context in (_WithoutWeights(), torch.device("meta"), contextlib.nullcontext()):
        with contextlib.suppress(NotImplementedError, RuntimeError), context:
            return seeded(build, 0)
    return seeded(build, 0)
