"""Random numbers: one seed, many independent draws."""

from __future__ import annotations

import numpy as np
import torch

INITIAL, ORDER, RESAMPLING, CONTROL, SAMPLING, WINDOW = range(6)
"""What random numbers are drawn for; draws for one never repeat those for another, nor those of a bare seed."""


def generator(seed: int, *purpose: int) -> torch.Generator:
    """A generator on the CPU for one purpose under a seed."""
    state = np.random.SeedSequence([seed, *purpose]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
