"""Weights of paths that are written in every way, beside plain PyTorch; what has none is refused, graph or not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import circuits
from circuits.attribution.first_layer import first_kernels
from circuits.errors import GraphError
from tests import nets


class Path(nn.Module):
    """`first`, some function of it, `second`: the source is `relu`, the target `second`."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.middle = nn.Conv2d(4, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 2, 3, padding=1)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.between(self.middle(self.relu(self.first(x)))))
        return out


def gated_far_from_zero(x: Tensor) -> Tensor:
    """A gate that is half open at zero, and open where the network works."""
    return x * F.hardsigmoid(100 * x.mean(dim=(2, 3), keepdim=True).abs())


RECTIFIERS: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp": lambda x: x.clamp(min=0),
    "torch.clamp": lambda x: torch.clamp(x, 0),
    "relu6 by hand": lambda x: torch.clip(x, 0, 6),
    "clamp_min": lambda x: x.clamp_min(0.0),
    "in place": lambda x: x.clamp_(min=0),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "leaky in place": lambda x: F.leaky_relu_(x),
}
NONLINEAR: dict[str, Callable[[Tensor], Tensor]] = {
    "product": lambda x: x * x.flip(1),
    "gate": lambda x: x * torch.sigmoid(x),
    "gate far from zero": gated_far_from_zero,
    "norm": lambda x: x / x.norm(dim=1, keepdim=True),
    "layer norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "clamp above zero": lambda x: x.clamp(min=0.1),
    "softmax": lambda x: x.softmax(1),
    "infinite": lambda x: x + 1 / (x - x),
}


def brute_force(net: Path) -> Tensor:
    """Kernels `(2, 4, 5, 5)` from `relu` to `second` without the function in between, by autograd."""
    source = torch.zeros(1, 4, 16, 16, requires_grad=True)
    out = net.second(net.middle(source))[0, :, 8, 8]
    return torch.stack([torch.autograd.grad(v, source, retain_graph=True)[0][0, :, 6:11, 6:11] for v in out])


@pytest.mark.parametrize("traced", [True, False], ids=["graph", "no graph"])
@pytest.mark.parametrize("name", list(RECTIFIERS))
def test_however_a_rectifier_is_written_it_is_passed(name: str, traced: bool) -> None:
    net = nets.randomized(Path(RECTIFIERS[name]))
    model = nets.wrap(net if traced else nets.Undecided(net))
    at = "" if traced else "inner."
    weights = circuits.expanded_weights(model, source=f"{at}relu", target=f"{at}second")
    torch.testing.assert_close(weights.kernels, brute_force(net), rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]
    assert weights.offset == (-2, -2) and weights.stride == (1, 1)


@pytest.mark.parametrize("traced", [True, False], ids=["graph", "no graph"])
@pytest.mark.parametrize("name", list(NONLINEAR))
def test_what_is_not_linear_has_no_weights(name: str, traced: bool) -> None:
    net = nets.randomized(Path(NONLINEAR[name]))
    model = circuits.Model(net if traced else nets.Undecided(net).eval(), circuits.InputSpec(size=16), name="net")
    at = "" if traced else "inner."
    with pytest.raises(GraphError, match="no linear form"):
        circuits.expanded_weights(model, source=f"{at}relu", target=f"{at}second")
    if name == "gate" and traced:
        with pytest.raises(GraphError, match="passes through 'sigmoid'"):
            circuits.expanded_weights(model, source="relu", target="second:1")


class Gated(nn.Module):
    """A gate for all positions between two convolutions, of the means of the channels."""

    def __init__(self, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.relu, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        out: Tensor = self.second(x * self.gate(x.mean((2, 3), keepdim=True)))
        return out


#: on images, and at their size, none of these moves by more than a few thousandths
GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "open": lambda means: F.hardsigmoid(4 + means - means.roll(1, 1)),
    "shut": lambda means: F.hardsigmoid(means[:, :1] - means[:, 3:4] - 4),
    "comparing": lambda means: 0.5 + (means[:, 3:4] - means[:, :1] > 2).to(means),
    "comparing the other way": lambda means: 0.5 + (means[:, :1] - means[:, 3:4] > 2).to(means),
    "nearly constant": lambda means: torch.sigmoid(0.005 * means.roll(1, 1)),
}


@pytest.mark.parametrize("traced", [True, False], ids=["graph", "no graph"])
@pytest.mark.parametrize("name", list(GATES))
def test_a_gate_that_hardly_moves_on_images_has_no_weights_either(name: str, traced: bool) -> None:
    torch.manual_seed(0)
    net = Gated(GATES[name]).eval()
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        gates = net.gate(torch.relu(net.first(images)).mean((2, 3), keepdim=True))
    assert float(gates.amax(0).sub(gates.amin(0)).max()) < 0.005
    model = circuits.Model(net if traced else nets.Undecided(net).eval(), circuits.InputSpec(size=32), name="net")
    at = "" if traced else "inner."
    with pytest.raises(GraphError, match="no linear form"):
        circuits.expanded_weights(model, source=f"{at}relu", target=f"{at}second:1")


class PaddedPool(nn.Module):
    """A max pool whose padding it never chooses, as TensorFlow has it, and then a convolution."""

    def __init__(self, lowest: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.before = nn.Conv2d(4, 4, 1)
        self.second = nn.Conv2d(4, 2, 3, padding=1)
        self.lowest = lowest

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(self.relu(self.first(x)))
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=self.lowest), 3, 2)
        out: Tensor = self.second(x)
        return out


@pytest.mark.parametrize("lowest", [float("-inf"), torch.finfo(torch.float32).min])
@pytest.mark.parametrize("traced", [True, False], ids=["graph", "no graph"])
def test_padding_that_a_max_pool_never_chooses_is_none(lowest: float, traced: bool) -> None:
    net = nets.randomized(PaddedPool(lowest))
    model = nets.wrap(net if traced else nets.Undecided(net), 32)
    at = "" if traced else "inner."
    weights = circuits.expanded_weights(model, source=f"{at}relu", target=f"{at}second:1")
    assert isinstance(net, PaddedPool)
    with torch.enable_grad():
        source = torch.zeros(1, 4, 32, 32, requires_grad=True)
        pooled = F.avg_pool2d(F.pad(net.before(source), (0, 1, 0, 1)), 3, 2)
        (expected,) = torch.autograd.grad(net.second(pooled)[0, 1, 8, 8], source)
    window = torch.zeros(1, 4, 32, 32)
    top, left = (8 * s + o for s, o in zip(weights.stride, weights.offset, strict=True))
    kh, kw = weights.kernels.shape[2:]
    window[0, :, top : top + kh, left : left + kw] = weights.kernels[0]
    torch.testing.assert_close(window, expected)
    assert float(weights.kernels.abs().max()) > 0 and weights.stride == (2, 2)


class Standardized(nn.Conv2d):
    """A convolution whose weights are standardized in each forward pass (Qiao et al. 2019, arXiv:1903.10520)."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0, eps=1e-6).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def used(self) -> Tensor:
        """The weight of the next forward pass, in plain arithmetic."""
        mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return (self.weight - mean) / (self.weight.var(dim=(1, 2, 3), keepdim=True, unbiased=False) + 1e-6).sqrt()


class Functions(nn.Module):
    """Everything is a function: standardized and plain convolutions, batch norm, scales, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Standardized(3, 4, 3, stride=2, padding=1)
        self.weight = nn.Parameter(torch.randn(6, 4, 3, 3))
        self.gain = nn.Parameter(torch.randn(6, 1, 1))
        self.register_buffer("running_mean", torch.randn(6))
        self.register_buffer("running_var", torch.rand(6) + 0.5)
        self.deep = Standardized(6, 6, 3, padding=1, groups=2)
        self.fc = nn.Parameter(torch.randn(5, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.conv2d(x, self.weight, padding=1)
        x = F.batch_norm(x, self.running_mean, self.running_var, None, None, False, 0.1, 1e-5)
        x = torch.relu(x * self.gain * 0.5)
        y = x + self.deep(x)
        y = F.relu(y - 0.1)
        return F.linear(y.mean((2, 3)), self.fc)


@pytest.fixture
def functions() -> circuits.Model:
    return nets.wrap(nets.randomized(Functions()), 24)


def test_functions_have_the_kernels_of_modules(functions: circuits.Model) -> None:
    net = functions.module
    assert isinstance(net, Functions)
    first = circuits.expanded_weights(functions, source="relu", target="relu_1")
    scale = 0.5 * net.gain[:, 0, 0] * (net.running_var + 1e-5).rsqrt()
    assert first.method == "exact"
    torch.testing.assert_close(first.kernels, (net.weight * scale[:, None, None, None]).detach())
    second = circuits.expanded_weights(functions, source="relu_1", target="relu_2")
    expected = torch.zeros(6, 6, 3, 3)
    for group in range(2):
        expected[3 * group : 3 * group + 3, 3 * group : 3 * group + 3] = net.deep.used()[3 * group : 3 * group + 3]
    expected[range(6), range(6), 1, 1] += 1
    torch.testing.assert_close(second.kernels, expected.detach(), rtol=1e-4, atol=1e-5)
    logits = circuits.expanded_weights(functions, source="relu_2", target="logits:3")
    torch.testing.assert_close(logits.kernels, (net.fc[3] / 144)[None, :, None, None].expand(1, 6, 12, 12).detach())


def test_functions_have_the_geometry_and_the_trunk_of_modules(functions: circuits.Model) -> None:
    assert functions.trunk == ["relu", "relu_1", "relu_2", "linear"]
    fields = [functions.layers[name].receptive_field for name in functions.trunk]
    assert [f and (f.size, f.stride, f.offset) for f in fields] == [
        ((3, 3), (2, 2), (-1, -1)), ((7, 7), (2, 2), (-3, -3)), ((11, 11), (2, 2), (-5, -5)), None,
    ]  # fmt: skip
    circuit = circuits.trace(functions, "linear:2", images=nets.pictures(4, 24), depth=3, width=2)
    assert list(circuit.layers) == ["linear", "relu_2", "relu_1", "relu"] and circuit.edges
    kernels = first_kernels(functions)
    assert isinstance(functions.module, Functions)
    torch.testing.assert_close(kernels, functions.module.stem.used().detach(), rtol=1e-4, atol=1e-5)


class SizedPadding(nn.Conv2d):
    """Padding computed from the size of what comes in, which torch.fx cannot look into."""

    def forward(self, x: Tensor) -> Tensor:
        short = max((-(-int(x.shape[-1]) // 2) - 1) * 2 + 3 - int(x.shape[-1]), 0)
        return F.conv2d(F.pad(x, (short // 2, short - short // 2) * 2), self.weight, self.bias, 2)


def test_one_operation_that_cannot_be_traced_does_not_cost_the_graph() -> None:
    net = nets.sequential(SizedPadding(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 2, 3))
    model = nets.wrap(net, 16)
    assert model.graph is not None and model.trunk == ["1", "2"]
    same = nets.wrap(nets.sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 2, 3)))
    assert model.layers["2"].receptive_field == same.layers["3"].receptive_field is not None
    torch.testing.assert_close(circuits.capture(model, nets.pictures(2), at="2")["2"], net(nets.pictures(2)))
    kernels = first_kernels(model)
    torch.testing.assert_close(kernels, net[0].weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("dim", [1, 3])
def test_a_softmax_over_positions_sees_the_whole_row(dim: int) -> None:
    net = nets.sequential(nn.Conv2d(3, 4, 3), nn.Softmax(dim=dim), nn.Conv2d(4, 2, 3))
    field = nets.wrap(net, 16).layers["2"].receptive_field
    assert (field is None) == (dim == 3)


def test_moving_along_the_map_is_not_pointwise() -> None:
    class Rolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.relu(self.conv(x).roll(4, 2))
            return out

    assert nets.wrap(Rolled(), 16).layers["relu"].receptive_field is None


def test_lucents_own_inception_has_the_weights_of_its_convolution() -> None:
    inception = pytest.importorskip("lucent.modelzoo.inceptionv1.InceptionV1")
    torch.manual_seed(0)
    for redirected in (True, False):
        net = inception.InceptionV1(redirected_ReLU=redirected).eval()
        model = circuits.wrap(net, circuits.InputSpec(size=224))
        assert model.trunk[:4] == ["conv2d0", "conv2d1", "conv2d2", "mixed3a"]
        weights = circuits.expanded_weights(model, source="mixed3a", target="mixed3b:3")
        torch.testing.assert_close(weights.kernels[0], net.mixed3b_1x1_pre_relu_conv.weight[3].detach())
        # across the pool that is padded with -inf, and the normalization after it
        across = circuits.expanded_weights(model, source="conv2d2", target="mixed3a:5")
        torch.testing.assert_close(across.kernels[0], net.mixed3a_1x1_pre_relu_conv.weight[5].detach())
        assert circuits.trace(model, "mixed3b:3", images=nets.pictures(3, 224), width=3).edges


class Tupled(nn.Module):
    """Sizes of one branch shape another: nothing of the first reaches the target but its size."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3, padding=1)
        self.two = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.Identity()
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x)
        shape = one.shape
        y = self.two(x).view(shape[0], 2, 2, shape[2], shape[3]).flip(1).reshape(shape)
        out: Tensor = self.last(self.act(F.batch_norm(y, self.norm.running_mean, self.norm.running_var)))
        return out


def test_a_size_of_what_is_not_on_the_path_is_no_crash() -> None:
    net = nets.randomized(Tupled())
    model = nets.wrap(net)
    with pytest.raises(GraphError, match="no linear form"):
        circuits.expanded_weights(model, source="two", target="last:1")
    assert model.trunk == ["act", "last"]  # the batch norm is a function: the module that passes it on names it
    edges = circuits.trace(model, "last:1", images=nets.pictures(4), layers=["two"], by="attribution", width=4).edges
    assert len(edges) == 4
