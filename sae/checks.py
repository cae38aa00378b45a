"""Checks of what users give to dictionary learning; all raise `SAEError`."""

from __future__ import annotations

import torch
from torch import Tensor

from sae.errors import SAEError, shorten


def whole(name: str, value: object) -> None:
    """Raise unless `value` is a whole number above zero."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SAEError(f"{name}={shorten(value)} must be a whole number above zero")


def at_most_latents(name: str, value: int, latents: int) -> None:
    """Raise unless `value` is a number of latents that there are."""
    whole(name, value)
    if value > latents:
        raise SAEError(f"{name}={value} is more than the {latents} latents there are")


def check_activations(acts: Tensor, d: int | None = None) -> Tensor:
    """`acts` when they are `(N, d)` finite real numbers.

    Raises:
        SAEError: they are not; it says what they are.
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
