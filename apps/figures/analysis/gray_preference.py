"""Which units prefer pictures without color: black-and-white detectors, and those that need color."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.network.model import Model
from circuits.network.responses import pooled_responses
from zoo.images.sources import open_images


def gray_preference(model: Model, images: Any, layers: Sequence[str], *, batch_size: int = 32) -> dict[str, Tensor]:
    """How much more each unit says to pictures when their color is taken away, in standard deviations.

    Every picture is shown as it is and with its channels replaced by their mean. Units of *An Overview of Early Vision*
    (Olah et al., Distill 2020) that are called "black and white" lie far above zero, color detectors below.

    Args:
        model: with at least two channels of input.
        images: pictures in any form that `capture` takes; at least two.
        layers: whose units.
        batch_size: pictures per forward pass.

    Returns:
        Layer -> `(units,)`: mean over pictures of the difference of mean responses, over its standard deviation; 0 for
        units that do not change.

    Raises:
        CircuitsError: a model of one channel, or too few pictures.

    >>> gray_preference(load("scenes"), "scenes:20", ["conv2d2"])["conv2d2"].shape
    torch.Size([40])
    """
    if model.input.channels < 2:
        raise CircuitsError(f"{model.name} sees one channel: there is no color to take away")
    pictures = open_images(images)
    if len(pictures) < 2:
        raise CircuitsError("preferences for gray are told from at least two pictures")
    shown = torch.cat([batch for _, batch in pictures.batches(model.input, batch_size=batch_size)]).cpu()
    gray = shown.mean(dim=1, keepdim=True).expand_as(shown).contiguous()
    first = pooled_responses(model, shown, layers, pool="mean", batch_size=batch_size)
    second = pooled_responses(model, gray, layers, pool="mean", batch_size=batch_size)
    found = {}
    for layer in first:
        change = (second[layer] - first[layer]).double()
        spread = change.std(dim=0)
        found[layer] = torch.where(spread > 0, change.mean(dim=0) / spread.clamp_min(1e-30), torch.zeros_like(spread))
    return found
