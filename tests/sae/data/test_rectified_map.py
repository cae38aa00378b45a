"""Blocks solved by least squares: a rectified linear block is found exactly, others better than by a linear map."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import circuits
import sae
from sae.errors import SAEError
from sae.training.linear_map import fit_linear_map, fit_rectified_map


class OneConvolution(nn.Module):
    """A block that is a convolution of 3 x 3 positions and a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu1 = nn.Conv2d(3, 5, 1), nn.ReLU()
        self.second, self.relu2 = nn.Conv2d(5, 6, 3, padding=1), nn.ReLU()
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.relu2(self.second(self.relu1(self.first(x)))).mean(dim=(2, 3)))
        return logits


def network() -> circuits.Model:
    torch.manual_seed(0)
    spec = circuits.InputSpec(size=10, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return circuits.wrap(OneConvolution().eval(), input=spec, name="one-convolution")


def test_a_convolution_with_a_relu_is_its_own_kernel() -> None:
    model = network()
    pair = sae.VisionPair(model, "relu1", "relu2")
    images = torch.rand(60, 3, 10, 10, generator=torch.Generator().manual_seed(1))
    t = sae.rectified_map(pair, images, sae.TopK(latents=8, k=6, kind="transcoder"))
    assert t.target_scale is not None
    kernel = model.module.get_parameter("second.weight").detach()
    read = t.read.view(8, 3, 3, 5).movedim(3, 1)[:6] / t.target_scale  # a latent's unit is that of the decoder's row
    torch.testing.assert_close(read, kernel, atol=2e-3, rtol=0)
    torch.testing.assert_close(t.row_lengths(), torch.ones(8))
    evaluated = sae.evaluate(t, pair, torch.rand(8, 3, 10, 10), training=images)
    assert evaluated.reconstruction.fvu < 1e-3 < 0.05 < evaluated.reconstruction.baselines["linear"].fvu


def test_targets_below_zero_do_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 6, generator=generator)
    hidden = torch.relu(x @ torch.randn(6, 24, generator=generator)) - 0.4
    z = hidden @ torch.randn(24, 5, generator=generator) - 2.0
    pairs = torch.cat([x, z], dim=1)

    def error(rounds: int) -> float:
        found = fit_rectified_map(lambda: torch.split(pairs[:3000], 100), (6, 5), rounds=rounds)
        return float((found(x[3000:]).relu() - z[3000:].relu()).square().sum())

    linear = fit_linear_map(torch.split(pairs[:3000], 100), (6, 5))
    plain = float((linear(x[3000:]).relu() - z[3000:].relu()).square().sum())
    assert error(0) == pytest.approx(plain, rel=0.02)
    assert error(3) < 0.95 * error(0)


def test_what_has_no_rectified_map_is_refused() -> None:
    model = network()
    pair, images = sae.VisionPair(model, "relu1", "relu2"), torch.rand(4, 3, 10, 10)
    config = sae.TopK(latents=8, k=6, kind="transcoder")
    with pytest.raises(SAEError, match="thresholds"):
        sae.rectified_map(pair, images, sae.BatchTopK(latents=8, k=6, kind="transcoder"))
    with pytest.raises(SAEError, match="each of the 6 channels"):
        sae.rectified_map(pair, images, sae.TopK(latents=5, k=5, kind="transcoder"))
    with pytest.raises(SAEError, match="no ReLU"):
        sae.rectified_map(sae.VisionPair(model, "relu1", "second"), images, config)
    with pytest.raises(SAEError, match="two batches"):
        fit_rectified_map(lambda: [torch.rand(8, 5)], (3, 2))
