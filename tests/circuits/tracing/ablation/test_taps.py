"""A convolution to a few channels as one product for all taps is that convolution."""

from itertools import product

import torch
from torch import fx, nn

from circuits.network.subnetwork import _Part


def test_the_sum_of_shifted_taps_is_the_convolution() -> None:
    node = fx.Graph().placeholder("x")
    values = torch.rand(3, 6, 9, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    compared = 0
    for kernel, stride, padding, dilation in product(
        [(3, 3), (5, 5), (1, 3), (2, 4)], [1, 2, (3, 1)], [0, 2, (3, 0)], [1, 2]
    ):
        conv = nn.Conv2d(6, 7, kernel, stride=stride, padding=padding, dilation=dilation).double()
        part = _Part(node, conv, [1, 4], [0, 1], rectified=False)
        torch.testing.assert_close(part.take_by_taps(values), part.take(values), atol=1e-12, rtol=1e-12)
        compared += 1
    assert compared == 72
