"""Random numbers: independent generators from one seed."""

from __future__ import annotations

import numpy as np
import torch

INITIAL, ORDER, RESAMPLING, CONTROL, SAMPLING, WINDOW = range(6)
"""Purposes of random numbers. The generators of two purposes, and of a bare seed, are independent."""


def generator(seed: int, *purpose: int) -> torch.Generator:
    """A generator on the CPU for a seed and a purpose."""
    state = np.random.SeedSequence([seed, *purpose]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
