"""Data whose dictionary is known, and small SAEs with nothing special about them."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

import sae

ARCHITECTURES: list[sae.SAEConfig] = [
    sae.ReLU(latents=24, l1=1.0),
    sae.Gated(latents=24, l1=1.0),
    sae.TopK(latents=24, k=3),
    sae.BatchTopK(latents=24, k=3),
    sae.JumpReLU(latents=24, coefficient=1.0),
    sae.JumpReLU(latents=24, penalty="l0", coefficient=0.1, bandwidth=0.5),
    sae.Matryoshka(latents=24, k=3, groups=(4, 8, 12)),
]
"""One configuration of every architecture, two where there are two penalties."""


def small(cls: type[sae.SAE], latents: int = 24) -> sae.SAEConfig:
    """A small configuration of any architecture: three active latents or a penalty of 1, else its own defaults."""
    settings = {"k": 3, "group": math.gcd(3, latents), cls.Config.penalty_weight: 1.0}
    names = {field.name for field in dataclasses.fields(cls.Config)}
    return cls.Config(latents=latents, **{name: value for name, value in settings.items() if name in names})


ARCHITECTURES += [
    small(cls)
    for name, cls in sae.list_architectures().items()
    if name not in {config.architecture for config in ARCHITECTURES}
]


TRANSCODERS = [config for config in ARCHITECTURES if ("kind", "transcoder") not in config.refused]
"""Those that can be transcoders."""


def name_of(config: sae.SAEConfig) -> str:
    return config.title


def features(seed: int = 0, n: int = 64, d: int = 32) -> Tensor:
    """`(n, d)` unit directions in random places."""
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(1000 + seed)))


def sparse_sums(directions: Tensor, n: int, active: float = 2.0, offset: float = 0.0, seed: int = 0) -> Tensor:
    """`(n, d)` sums of few of the directions, coefficients uniform in [.5, 1.5], plus one vector of length `offset`."""
    generator = torch.Generator().manual_seed(2000 + seed)
    count, d = directions.shape
    present = torch.rand(n, count, generator=generator) < active / count
    codes = present * (0.5 + torch.rand(n, count, generator=generator))
    return codes @ directions + offset * F.normalize(torch.randn(1, d, generator=generator))


def scrambled(config: sae.SAEConfig, d: int = 10, seed: int = 0, dtype: torch.dtype = torch.float32) -> sae.SAE:
    """An SAE with every parameter and buffer drawn at random, thresholds above zero, mean and scale included."""
    model = sae.build(config, d)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            drawn = torch.randn(value.shape, generator=generator)
            if name == "threshold":
                value.copy_(0.2 + 0.2 * drawn.abs())
            elif name == "scale":
                value.fill_(1.7)
            elif name == "mean":
                value.copy_(3 * drawn)
            elif value.ndim > 1:
                value.copy_(F.normalize(drawn))
            else:
                value.copy_(0.1 * drawn)
    return model.to(dtype).eval()


def acts(n: int = 50, d: int = 10, seed: int = 7, dtype: torch.dtype = torch.float32) -> Tensor:
    return 2 * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
