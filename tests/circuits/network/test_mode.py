"""A network that moves while it is looked at is refused, by the names of the modules."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import circuits
from circuits.errors import ModelError

SPEC = circuits.InputSpec(size=16)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(body, nn.Conv2d(8, 6, 3, padding=1), nn.Dropout(), nn.ReLU()).eval()


@pytest.mark.parametrize("path", ["0.1", "2"])
def test_a_module_in_training_mode_is_refused_and_nothing_moves(path: str) -> None:
    net = network()
    net.get_submodule(path).train()
    mean = net[0][1].running_mean.clone()
    with pytest.raises(ModelError, match=rf"training mode in {path} \(\w+\); call eval\(\)"):
        circuits.wrap(net, input=SPEC)
    assert torch.equal(net[0][1].running_mean, mean)


def test_a_module_set_back_after_wrapping_is_refused_when_it_would_run() -> None:
    net = network()
    model = circuits.wrap(net, input=SPEC)
    images = torch.rand(3, 3, 16, 16)
    before = circuits.capture(model, images, at="3")["3"]
    net[0][1].train()
    mean = net[0][1].running_mean.clone()
    for verb in (
        lambda: circuits.capture(model, images, at="3"),
        lambda: model(images),
        lambda: circuits.attribute(model, images, source="0.2", target="1:2"),
        lambda: circuits.visualize(model, "1:2", steps=1),
    ):
        with pytest.raises(ModelError, match="0.1 "):
            verb()
    assert torch.equal(net[0][1].running_mean, mean)
    net.eval()
    assert torch.equal(circuits.capture(model, images, at="3")["3"], before)


def test_a_relu_put_in_afterwards_is_no_reason_to_refuse() -> None:
    net = network()
    net[3] = nn.ReLU()  # in training mode, as every new module
    net[0] = nn.Sequential(*net[0])
    images = torch.rand(3, 3, 16, 16)
    values = circuits.capture(circuits.wrap(net, input=SPEC), images, at="3")["3"]
    torch.testing.assert_close(values, net(images).detach())


class Forward(nn.Module):
    """A convolution, and what is given as the rest of the forward."""

    def __init__(self, rest) -> None:
        super().__init__()
        self.conv, self.rest = nn.Conv2d(3, 8, 3), rest
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("var", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self, self.conv(x))


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (lambda net, x: F.dropout(torch.relu(x), 0.5), "another output each time"),
        (lambda net, x: (x, {"noisy": x + torch.randn_like(x)}), "another output each time"),
        (lambda net, x: F.batch_norm(x, net.mean, net.var, training=True), "changes mean, var when it runs"),
    ],
)
def test_a_random_or_changing_forward_is_refused(rest, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        circuits.wrap(Forward(rest).eval(), input=SPEC)


def test_an_output_that_is_not_finite_is_no_random_output() -> None:
    model = circuits.wrap(Forward(lambda net, x: x / 0).eval(), input=SPEC)
    assert "conv" in model.layers


def test_a_network_that_computes_with_the_whole_batch_is_refused() -> None:
    class ByTheBatch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            out: Tensor = x - x.mean(dim=(0, 2, 3), keepdim=True)
            return out

    with pytest.raises(ModelError, match="beside another image"):
        circuits.wrap(ByTheBatch().eval(), input=SPEC)
    net = network()
    net[0][1] = nn.BatchNorm2d(8, track_running_stats=False)
    with pytest.raises(ModelError, match=r"by the batch in 0\.1 \(track_running_stats=False\)"):
        circuits.wrap(net.eval(), input=SPEC)
    net[0][1] = nn.InstanceNorm2d(8)
    images = torch.rand(4, 3, 16, 16)
    values = circuits.capture(circuits.wrap(net.eval(), input=SPEC), images, at="3")["3"]
    torch.testing.assert_close(values, torch.cat([net(image[None]) for image in images]).detach())


def test_a_network_that_takes_no_batches_is_refused() -> None:
    class OneImage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3 * 16 * 16, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.fc(x.reshape(1, 3 * 16 * 16))
            return out

    with pytest.raises(ModelError, match="one image, but not a batch of two"):
        circuits.wrap(OneImage().eval(), input=SPEC)
