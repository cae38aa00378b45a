"""Tensors as users have them: normalized, in another range, of any number of channels; and what is no image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import circuits
from circuits.errors import CircuitsError, ImageError, ModelError
from tests import nets

SPECS = {
    "photographs": circuits.InputSpec(size=(12, 20), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "Caffe": circuits.InputSpec(size=16, scale=255.0, mean=(104.0, 117.0, 123.0), order="BGR"),
    "decibels": circuits.InputSpec(size=16, channels=4, range=(-30.0, 10.0), mean=(-12.0,), std=(7.0,)),
    "meters": circuits.InputSpec(size=(20, 12), channels=1, range=(0.0, 80.0)),
    "twelve bands": circuits.InputSpec(size=16, channels=12, range=(-1.0, 1.0)),
}


def network(channels: int) -> nn.Module:
    return nets.sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2), nn.ReLU())


@pytest.mark.parametrize("name", list(SPECS))
def test_a_tensor_that_is_normalized_already_gives_what_the_plain_network_gives(name: str) -> None:
    spec = SPECS[name]
    net = network(spec.channels)
    model = circuits.wrap(net, spec, name="net")
    low, high = spec.range
    pixels = nets.pictures(3, spec.hw, spec.channels) * (high - low) + low
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (spec.mean, spec.std))
    fed = ((pixels.flip(1) if spec.order == "BGR" else pixels) * spec.scale - mean) / std
    for images in (spec.denormalize(fed), spec.from_range(pixels)):
        acts = circuits.capture(model, images, at="3")["3"]
        torch.testing.assert_close(acts, net(fed).detach(), rtol=1e-4, atol=1e-4)
    leaf = spec.from_range(pixels).requires_grad_()
    (gradient,) = torch.autograd.grad(net(spec.normalize(leaf))[:, 1].sum(), leaf)
    attribution = circuits.attribute(model, leaf.detach(), source="input", target="2:1", at=(1, 2))
    assert attribution.values.shape == gradient.shape
    trace = circuits.trace(model, "3:1", images=leaf.detach(), width=3)
    assert len(trace.edges) == 3 and circuits.visualize(model, ["3:1"], steps=1)[0].image.shape[1:] == spec.hw


def test_what_no_image_gives_is_refused(tmp_path: object) -> None:
    spec = SPECS["photographs"]
    with pytest.raises(ModelError, match="normalized ones -2.1179 to 2.64"):
        spec.denormalize(torch.full((1, 3, 12, 20), 9.0))
    with pytest.raises(ModelError, match="pixels span -30 to 10"):
        SPECS["decibels"].from_range(torch.full((1, 4, 16, 16), 11.0))
    with pytest.raises(ModelError, match="spans nan"):
        SPECS["meters"].from_range(torch.full((1, 1, 16, 16), float("nan")))
    with pytest.raises(ModelError, match=r"give floats \(N, 4, H, W\)"):
        SPECS["decibels"].from_range(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ModelError, match="low below high"):
        circuits.InputSpec(range=(1.0, 0.0))
    model = circuits.wrap(network(3), spec)
    with pytest.raises(ImageError, match=r"denormalize\(x\)"):
        circuits.capture(model, torch.randn(2, 3, 12, 20), at="3")


class Sequences(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.conv = kind(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


@pytest.mark.parametrize(("kind", "what"), [(nn.Conv1d, "sequences"), (nn.Conv3d, "volumes")])
def test_networks_of_sequences_and_volumes_say_how_they_are_declared(kind: type[nn.Module], what: str) -> None:
    with pytest.raises(CircuitsError, match=f"InputSpec declares what they are of, {what}, size=") as error:
        circuits.wrap(Sequences(kind).eval())
    assert "\n" not in str(error.value)


def test_numbers_and_lists_stand_for_what_they_are_of_each_channel() -> None:
    spec = circuits.InputSpec(size=16, mean=0.5, std=[0.25, 0.5, 0.5])
    assert spec == circuits.InputSpec(size=16, mean=(0.5,), std=(0.25, 0.5, 0.5)) and isinstance(hash(spec), int)
    assert circuits.InputSpec(mean=torch.tensor([0.5, 0.25, 0.0])).mean == (0.5, 0.25, 0.0)
    with pytest.raises(ModelError, match="numbers, got '0.5'"):
        circuits.InputSpec(mean="0.5")
    with pytest.raises(ModelError, match="2 values for 3 channels"):
        circuits.InputSpec(std=[0.5, 0.5])
