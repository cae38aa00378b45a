"""Gradients of our own, whatever autograd context the caller is in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def outside_inference_mode(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that takes gradients inside: it works under `torch.inference_mode`, too.

    `torch.enable_grad` does not undo inference mode, and no tensor made in it can be differentiated later. Outside of
    inference mode nothing changes; inside, gradients are off until the function itself turns them on.

    >>> with torch.inference_mode():
    ...     outside_inference_mode(lambda: torch.ones(1).is_inference())()
    False
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        if not torch.is_inference_mode_enabled():
            return function(*args, **kwargs)
        with torch.inference_mode(False), torch.no_grad():
            return function(*args, **kwargs)

    return called
