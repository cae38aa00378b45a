"""Our local response normalization and our max pools are torch's, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import circuits
from zoo.networks.normalization import LocalResponseNorm
from zoo.networks.pooling import MaxPool2d

CASES = [(5, 1e-4, 0.75, 1.0), (11, 11e-4, 0.5, 2.0), (4, 0.3, 0.75, 1.5), (1, 0.5, 0.5, 1.0), (3, 0.2, 0.6, 0.7)]


def pictures(channels: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, channels, 5, 4, generator=generator, dtype=torch.float64) * 10


@pytest.mark.parametrize("channels", [1, 3, 12, 64])
@pytest.mark.parametrize("parameters", CASES)
def test_values_and_gradients_are_those_of_torch(parameters: tuple[int, float, float, float], channels: int) -> None:
    x = pictures(channels).requires_grad_(True)
    ours, torchs = LocalResponseNorm(*parameters)(x), nn.LocalResponseNorm(*parameters)(x)
    torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=1e-12)
    weight = torch.randn(ours.shape, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad(ours, x, weight), torch.autograd.grad(torchs, x, weight), rtol=1e-10, atol=1e-10
    )


def test_without_a_gradient_the_values_are_the_same_to_the_bit() -> None:
    """One image at a time, which keeps what lies between in the cache."""
    x = pictures(12).float()
    for parameters in CASES[:4]:
        norm = LocalResponseNorm(*parameters)
        assert torch.equal(norm(x), norm(x.requires_grad_(True)).detach())
        x = x.detach()


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "stride": 2, "ceil_mode": True},
        {"kernel_size": 3, "stride": 1, "padding": 1},
        {"kernel_size": (2, 3), "stride": (1, 2), "dilation": 2},
    ],
)
def test_pools_are_those_of_torch_to_the_bit(options: dict[str, Any]) -> None:
    """After a ReLU many values of a window are equal, of which one gets the gradient; and NaN stays."""
    x = torch.relu(torch.randn(3, 7, 12, 11, generator=torch.Generator().manual_seed(0))).round(decimals=1)
    x[0, 0, 4, 4] = torch.nan
    ours, torchs = MaxPool2d(**options)(x), nn.MaxPool2d(**options)(x)
    assert ours.stride() == torchs.stride()
    assert torch.equal(ours.nan_to_num(-1), torchs.nan_to_num(-1)) and ours.isnan().any()
    x = x.requires_grad_(True)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad(pool(**options)(x), x, weight)[0] for pool in (MaxPool2d, nn.MaxPool2d)]
    assert torch.equal(*gradients) and gradients[0].stride() == gradients[1].stride()


def test_many_gradients_at_once_are_the_single_ones() -> None:
    x = pictures(6).requires_grad_(True)
    y = LocalResponseNorm(5)(x)
    weights = torch.randn(3, *y.shape, dtype=torch.float64)
    (together,) = torch.autograd.grad(y, x, weights, is_grads_batched=True, retain_graph=True)
    for weight, gradient in zip(weights, together, strict=True):
        torch.testing.assert_close(torch.autograd.grad(y, x, weight, retain_graph=True)[0], gradient)


def test_the_memory_format_is_kept() -> None:
    x = pictures(8).contiguous(memory_format=torch.channels_last)
    assert LocalResponseNorm(5)(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("name", "size", "alpha", "beta", "k"),
    [("googlenet-bvlc", 5, 1e-4 / 5, 0.75, 1.0), ("inceptionv1", 11, 1e-4, 0.5, 2.0)],
)
def test_googlenets_normalize_as_published(name: str, size: int, alpha: float, beta: float, k: float) -> None:
    """x / (k + alpha * sum of the squares of `size` neighbors) ^ beta, in NumPy.

    The prototxt of BVLC has local_size 5, alpha 1e-4 (of the mean), beta .75; the graph of TensorFlow's network
    depth_radius 5, bias 2, alpha 1e-4 (of the sum), beta .5.
    """
    module = circuits.load(name, weights="random").module
    x = torch.randn(2, 15, 3, 3, generator=torch.Generator().manual_seed(0)) * 300
    squares = np.pad(x.double().numpy() ** 2, ((0, 0), (size // 2, size // 2), (0, 0), (0, 0)))
    around = sum(squares[:, i : i + 15] for i in range(size))
    expected = x.double().numpy() / (k + alpha * around) ** beta
    for norm in (module.lrn0, module.lrn1):
        np.testing.assert_allclose(norm(x).numpy(), expected, rtol=1e-4)
