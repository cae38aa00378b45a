"""Checks of arguments and activations; all raise `SAEError`."""

from __future__ import annotations

import torch
from torch import Tensor

from sae.errors import SAEError
from zoo.common.checks import whole_number


def whole(name: str, value: object) -> int:
    """`value` as an int, when it is a whole number of at least 1.

    Raises:
        SAEError: it is not.
    """
    return whole_number(name, value, error=SAEError)


def at_most_latents(name: str, value: object, latents: int) -> int:
    """`value` as an int, when it is a whole number from 1 to `latents`.

    Raises:
        SAEError: it is not.
    """
    count = whole(name, value)
    if count > latents:
        raise SAEError(f"{name}={count} is more than the {latents} latents there are")
    return count


def check_activations(acts: Tensor, d: int | None = None) -> Tensor:
    """`acts`, when they are `(N, d)` finite real numbers.

    Raises:
        SAEError: they are not; the message has their type or shape.
    """
    if not isinstance(acts, Tensor) or not acts.is_floating_point():
        kind = acts.dtype if isinstance(acts, Tensor) else type(acts).__name__
        raise SAEError(f"activations are a float tensor (N, d); got {kind}")
    if acts.ndim != 2:
        raise SAEError(
            f"activations are (N, d); got {tuple(acts.shape)}. Of a map (N, C, h, w) take movedim(1, -1).flatten(0, 2)"
        )
    if d is not None and acts.shape[1] != d:
        raise SAEError(f"this SAE reads {d} channels; the activations have {acts.shape[1]}")
    if acts.numel() == 0:
        raise SAEError(f"no activations: the tensor is empty, {tuple(acts.shape)}")
    if not bool(torch.isfinite(acts.detach()).all()):
        bad = int((~torch.isfinite(acts)).any(dim=1).sum())
        raise SAEError(f"{bad} of {len(acts)} activation vectors have values that are not finite")
    return acts
