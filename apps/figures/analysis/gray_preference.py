"""Preference of units for images without color: black-and-white detectors and color detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.network.model import Model
from circuits.network.responses import pooled_responses
from zoo.images.sources import open_images


def gray_preference(model: Model, images: Any, layers: Sequence[str]) -> dict[str, Tensor]:
    """How much the response of each unit rises when images lose their color, in standard deviations.

    Responses to each image are compared with those to the image with its channels replaced by their mean. The "black
    and white" units of *An Overview of Early Vision* (Olah et al., Distill 2020) lie far above zero, color detectors
    below.

    Args:
        model: with at least two channels of input.
        images: in any form that `capture` takes; at least two.
        layers: whose units.

    Returns:
        Layer -> `(units,)`: mean over images of the difference of mean responses, over its standard deviation; 0 for
        units that do not change.

    Raises:
        CircuitsError: a model of one channel, or too few images.

    >>> gray_preference(load("scenes"), "scenes:20", ["conv2d2"])["conv2d2"].shape
    torch.Size([40])
    """
    if model.input.channels < 2:
        raise CircuitsError(f"{model.name} has one input channel: its images have no color")
    images = open_images(images)
    if len(images) < 2:
        raise CircuitsError("preferences for gray need at least two images")
    color = torch.cat([batch for _, batch in images.batches(model.input, batch_size=32)]).cpu()
    gray = color.mean(dim=1, keepdim=True).expand_as(color).contiguous()
    first = pooled_responses(model, color, layers, pool="mean")
    second = pooled_responses(model, gray, layers, pool="mean")
    preferences = {}
    for layer in first:
        change = (second[layer] - first[layer]).double()
        spread = change.std(dim=0)
        preferences[layer] = torch.where(
            spread > 0, change.mean(dim=0) / spread.clamp_min(1e-30), torch.zeros_like(spread)
        )
    return preferences
