"""The share of an image's variance at high spatial frequencies."""

from __future__ import annotations

import torch
from torch import Tensor

from circuits.errors import VisualizationError


def high_frequency_share(image: Tensor, above: float = 0.25) -> float:
    """Share of an image's variance at frequencies above `above`, in [0, 1]; 0 for an image of one color.

    White noise has 0.80 of it above 0.25 cycles per pixel; of photographs it is a few hundredths.

    Args:
        image: `(C, H, W)`.
        above: cycles per pixel, along the wave; 0.5 is the finest that a row of pixels can hold.

    Raises:
        VisualizationError: another shape, or a frequency that no image can have.

    >>> y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    >>> round(high_frequency_share(torch.cos(2 * torch.pi * x * 0.375)[None]), 3)
    1.0
    """
    if image.ndim != 3 or not 0 < above < 0.71:
        raise VisualizationError(f"an image is (C, H, W), a frequency between 0 and 0.7; got {above:g}")
    values = image.detach().double().cpu()
    power = torch.fft.fft2(values - values.mean(dim=(1, 2), keepdim=True)).abs().square().sum(0)
    rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64) for n in values.shape[1:])
    fine = (rows[:, None].square() + columns.square()).sqrt() > above
    total = float(power.sum())
    return float(power[fine].sum()) / total if total > 1e-12 * values.numel() else 0.0
