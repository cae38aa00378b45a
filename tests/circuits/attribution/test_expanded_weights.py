"""Expanded weights: exact composition, batched differentiation and brute force are one and the same."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import circuits
from circuits.errors import AddressError, GraphError
from tests import nets

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

SOURCES, SIZE = 4, 28
MIDDLES: dict[str, Callable[[], nn.Module]] = {
    "one 3x3 conv": lambda: nn.Conv2d(4, 5, 3, padding=1),
    "one 5x3 conv without padding": lambda: nn.Conv2d(4, 5, (5, 3)),
    "strided": lambda: nn.Conv2d(4, 5, 3, stride=2, padding=1),
    "stride differs by axis": lambda: nn.Conv2d(4, 5, (3, 5), stride=(2, 3), padding=(0, 2)),
    "dilated": lambda: nn.Conv2d(4, 5, 3, padding=2, dilation=2),
    "padding same, even kernel": lambda: nn.Conv2d(4, 5, 4, padding="same"),
    "grouped": lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4),
    "grouped, strided and dilated": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2),
    "depthwise then pointwise": lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 5, 1)),
    "batch norm folded": lambda: nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5)),
    "batch norm first": lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3, padding=1)),
    "bottleneck": lambda: nn.Sequential(nn.Conv2d(4, 3, 1), nn.ReLU(), nn.Conv2d(3, 5, 5, padding=2)),
    "two hops": lambda: nn.Sequential(nn.Conv2d(4, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 5, 3, padding=1)),
    "three hops, strides": lambda: nn.Sequential(
        nn.Conv2d(4, 3, 3, 2, 1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 5, 3, 2, 1)
    ),
    "strided 1x1": lambda: nn.Sequential(nn.Conv2d(4, 3, 1, 2), nn.Conv2d(3, 5, 3, padding=1)),
    "branches concatenated": lambda: nets.Branches(4),
    "residual sum": lambda: nets.Residual(4),
    "uneven zero padding": lambda: nn.Sequential(nn.ZeroPad2d((2, 3, 1, 0)), nn.Conv2d(4, 5, 7, 2)),
    "max pool inside": lambda: nn.Sequential(nn.Conv2d(4, 3, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(3, 5, 3)),
    "ceil mode inside": lambda: nn.Sequential(
        nn.Conv2d(4, 3, 3), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(3, 5, 3, padding=1)
    ),
    "average pool inside": lambda: nn.Sequential(
        nn.Conv2d(4, 3, 3), nn.AvgPool2d(2, 2, 1), nn.Conv2d(3, 5, 3, padding=1)
    ),
    "padding left out of averages": lambda: nn.Sequential(
        nn.Conv2d(4, 3, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.Conv2d(3, 5, 3)
    ),
    "local normalization inside": lambda: nn.Sequential(
        nn.Conv2d(4, 3, 1), nn.LocalResponseNorm(3), nn.Conv2d(3, 5, 3)
    ),
    "dropout and identity inside": lambda: nn.Sequential(
        nn.Dropout(), nn.Conv2d(4, 3, 1), nn.Identity(), nn.Conv2d(3, 5, 3)
    ),
}


class Framed(nn.Module):
    """A stem, the module under test, and something behind it."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, SOURCES, 1)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.middle(self.stem(x))
        return out


def framed(middle: nn.Module, size: int = SIZE) -> circuits.Model:
    return nets.wrap(nets.randomized(Framed(middle)).double(), size)


@pytest.fixture(params=list(MIDDLES), scope="module")
def case(request: pytest.FixtureRequest) -> circuits.Model:
    return framed(MIDDLES[request.param]())


def target_of(model: circuits.Model) -> str:
    """The layer whose output the middle gives; what a rectifier reads where it ends in one."""
    return "middle.bn2" if isinstance(model.module.middle, nets.Residual) else "middle"


def test_exact_composition_equals_batched_differentiation(case: circuits.Model) -> None:
    exact = circuits.expanded_weights(case, source="stem", target="middle", method="exact")
    vjp = circuits.expanded_weights(case, source="stem", target="middle", method="vjp")
    assert exact.method == "exact" and vjp.method == "vjp"
    assert (exact.offset, exact.stride, exact.start) == (vjp.offset, vjp.stride, vjp.start)
    assert exact.kernels.shape == vjp.kernels.shape and exact.kernels.dtype == torch.float64
    scale = float(exact.kernels.abs().max())
    assert float((exact.kernels - vjp.kernels).abs().max()) < 1e-12 * max(scale, 1)


def test_kernels_equal_autograd_on_the_linearized_net_and_lie_in_the_right_place(case: circuits.Model) -> None:
    weights = circuits.expanded_weights(case, source="stem", target="middle")
    linear = nets.linearize(copy.deepcopy(case.module.middle))
    acts = torch.randn(1, SOURCES, SIZE, SIZE, dtype=torch.float64, requires_grad=True)
    out, bias = linear(acts), linear(torch.zeros_like(acts)).detach()
    y, x = out.shape[2] // 2, out.shape[3] // 2
    for channel in range(out.shape[1]):
        (gradient,) = torch.autograd.grad(out[0, channel, y, x], acts, retain_graph=True)
        placed = torch.zeros_like(gradient)
        top, left = y * weights.stride[0] + weights.offset[0], x * weights.stride[1] + weights.offset[1]
        kh, kw = weights.kernels.shape[2:]
        placed[0, :, top : top + kh, left : left + kw] = weights.kernels[channel]
        torch.testing.assert_close(placed, gradient, rtol=1e-9, atol=1e-12)
        patch = weights.patches(acts.detach(), [(y, x)])[0]
        total = (patch * weights.kernels[channel]).sum() + bias[0, channel, y, x]
        assert total.item() == pytest.approx(out[0, channel, y, x].item(), abs=1e-9)


def test_patches_read_zero_outside_the_map_as_padding_does() -> None:
    model = framed(nn.Conv2d(4, 5, 3, stride=2, padding=1))
    weights = circuits.expanded_weights(model, source="stem", target="middle")
    acts = torch.randn(4, SOURCES, SIZE, SIZE, dtype=torch.float64)
    places = [(0, 0), (0, 5), (13, 13), (7, 0)]
    out = model.module.middle(acts)
    patches = weights.patches(acts, places)
    for i, (y, x) in enumerate(places):
        sums = (patches[i] * weights.kernels).sum(dim=(1, 2, 3)) + model.module.middle.bias
        torch.testing.assert_close(sums, out[i, :, y, x])


def test_memory_is_bounded_by_chunks_that_change_no_number() -> None:
    model = framed(MIDDLES["two hops"]())
    at_once = circuits.expanded_weights(model, source="stem", target="middle", method="vjp")
    one_by_one = circuits.expanded_weights(model, source="stem", target="middle", method="vjp", max_memory=1)
    torch.testing.assert_close(one_by_one.kernels, at_once.kernels, rtol=1e-12, atol=1e-14)
    assert one_by_one.offset == at_once.offset


@pytest.mark.parametrize(
    "name", ["one 3x3 conv", "two hops", "max pool inside", "branches concatenated", "residual sum"]
)
def test_without_a_graph_the_whole_network_is_differentiated_and_the_answer_is_the_same(name: str) -> None:
    with_graph = framed(MIDDLES[name]())
    without = nets.wrap(nets.Undecided(copy.deepcopy(with_graph.module)).double(), SIZE)
    assert without.graph is None and with_graph.graph is not None
    a = circuits.expanded_weights(with_graph, source="stem", target=target_of(with_graph))
    b = circuits.expanded_weights(without, source="inner.stem", target=f"inner.{target_of(with_graph)}")
    assert a.stride == b.stride
    rows, columns = a.kernels.shape[2:]
    placed = torch.zeros_like(a.kernels)
    y, x = b.offset[0] - a.offset[0], b.offset[1] - a.offset[1]
    placed[:, :, y : y + b.kernels.shape[2], x : x + b.kernels.shape[3]] = b.kernels
    assert (rows, columns) == tuple(placed.shape[2:])
    torch.testing.assert_close(placed, a.kernels, rtol=1e-9, atol=1e-12)


def test_functional_nets_that_torch_fx_can_and_cannot_trace_agree() -> None:
    inner = nets.randomized(nets.Functional()).double()
    plain, hidden = nets.wrap(inner), nets.wrap(nets.Undecided(inner))
    a = circuits.expanded_weights(plain, source="b", target="c", method="exact")
    b = circuits.expanded_weights(hidden, source="inner.b", target="inner.c")
    torch.testing.assert_close(a.kernels, b.kernels)
    assert a.offset == b.offset


def test_across_a_pool_the_kernels_start_at_the_pools_output() -> None:
    module = nets.sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.LocalResponseNorm(2), nn.Conv2d(4, 5, 3, padding=1)
    )
    model = nets.wrap(module, 20)
    weights = circuits.expanded_weights(model, source="1", target="4")
    assert (weights.source, weights.start) == ("1", "3")
    torch.testing.assert_close(weights.kernels, module[4].weight)
    assert weights.offset == (-1, -1) and weights.stride == (1, 1)


def test_a_pool_called_as_a_function_is_a_start_as_well() -> None:
    model = nets.wrap(nets.randomized(nets.Functional()))
    weights = circuits.expanded_weights(model, source="relu", target="b")
    assert weights.start == "max_pool2d"
    torch.testing.assert_close(weights.kernels, model.module.b.weight)


def test_a_pool_with_stride_one_is_part_of_the_kernel(inception: circuits.Model) -> None:
    weights = circuits.expanded_weights(inception, source="mixed3a", target="mixed3b_pool_proj")
    assert weights.start == "mixed3a"
    projection = inception.module.mixed3b_pool_proj_pre.weight[:, :, 0, 0]
    assert weights.kernels.shape[2:] == (3, 3)
    torch.testing.assert_close(weights.kernels, (projection / 9)[:, :, None, None].expand(-1, -1, 3, 3))


def test_inception_blocks_compose_to_one_einsum_per_branch(inception: circuits.Model) -> None:
    weights = circuits.expanded_weights(inception, source="mixed3a", target="mixed3b", method="exact")
    m = inception.module
    assert weights.kernels.shape == (12, 12, 5, 5) and weights.offset == (-2, -2)
    five = torch.einsum("obyx,bi->oiyx", m.mixed3b_5x5_pre.weight, m.mixed3b_5x5_bottleneck_pre.weight[:, :, 0, 0])
    three = torch.einsum("obyx,bi->oiyx", m.mixed3b_3x3_pre.weight, m.mixed3b_3x3_bottleneck_pre.weight[:, :, 0, 0])
    torch.testing.assert_close(weights.kernels[6:10], five)
    torch.testing.assert_close(weights.kernels[2:6], F.pad(three, (1, 1, 1, 1)))
    torch.testing.assert_close(weights.kernels[:2], F.pad(m.mixed3b_1x1_pre.weight, (2, 2, 2, 2)))


def test_a_branch_as_a_source_is_its_channels_of_the_whole(inception: circuits.Model) -> None:
    whole = circuits.expanded_weights(inception, source="mixed3a", target="mixed3b:7")
    branch = circuits.expanded_weights(inception, source="mixed3a_5x5", target="mixed3b:7")
    assert branch.source == "mixed3a_5x5"
    torch.testing.assert_close(branch.kernels, whole.kernels[:, 7:10])
    assert branch.offset == whole.offset


def test_a_unit_of_a_branch_is_the_same_unit_of_the_block(inception: circuits.Model) -> None:
    a = circuits.expanded_weights(inception, source="mixed3a", target="mixed3b_5x5:1")
    b = circuits.expanded_weights(inception, source="mixed3a", target="mixed3b:7")
    assert a.targets == b.targets == ["mixed3b:7"]
    torch.testing.assert_close(a.kernels, b.kernels)


def test_class_scores_read_the_whole_map_through_the_global_pool(inception: circuits.Model) -> None:
    weights = circuits.expanded_weights(inception, source="mixed4a", target="logits:3")
    h, w = inception.layers["mixed4a"].size or (0, 0)
    row = inception.module.softmax_pre.weight[3] / (h * w)
    assert weights.stride == (0, 0)
    torch.testing.assert_close(weights.kernels[0], row[:, None, None].expand(-1, h, w))
    acts = circuits.capture(inception, nets.pictures(2, 64), ["mixed4a", "softmax_pre"])
    sums = (weights.patches(acts["mixed4a"], [(0, 0), (0, 0)]) * weights.kernels).sum(dim=(1, 2, 3))
    torch.testing.assert_close(
        sums + inception.module.softmax_pre.bias[3], acts["softmax_pre"][:, 3, 0, 0], rtol=1e-4, atol=1e-5
    )


def test_two_blocks_away_all_methods_agree(inception: circuits.Model) -> None:
    exact = circuits.expanded_weights(inception, source="conv2d2", target="mixed3b", method="exact")
    vjp = circuits.expanded_weights(inception, source="conv2d2", target="mixed3b", method="vjp")
    assert exact.start == "conv2d2_maxpool" and exact.kernels.shape == (12, 6, 9, 9)
    torch.testing.assert_close(exact.kernels, vjp.kernels, rtol=1e-4, atol=1e-6)


def test_a_flattened_map_keeps_its_places_in_the_weights() -> None:
    model = nets.wrap(nets.sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 5)), 8)
    for method in ("exact", "vjp"):
        weights = circuits.expanded_weights(model, source="1", target="3", method=method)  # type: ignore[arg-type]
        torch.testing.assert_close(weights.kernels, model.module[3].weight.view(5, 4, 6, 6))


def test_directions_are_sums_of_channels() -> None:
    model = framed(MIDDLES["two hops"]())
    directions = torch.randn(3, 5, dtype=torch.float64)
    model.attach("middle", "mix", nets.LinearBasis(directions))
    whole = circuits.expanded_weights(model, source="stem", target="middle")
    for method in ("exact", "vjp"):
        units = ["middle~mix:2", "middle~mix:0"]
        mixed = circuits.expanded_weights(model, source="stem", target=units, method=method)  # type: ignore[arg-type]
        expected = torch.einsum("tc,csyx->tsyx", directions[[2, 0]], whole.kernels)
        torch.testing.assert_close(mixed.kernels, expected)
        assert mixed.targets == ["middle~mix:2", "middle~mix:0"]


def test_chosen_units_come_in_the_order_asked_for() -> None:
    model = framed(MIDDLES["branches concatenated"]())
    whole = circuits.expanded_weights(model, source="stem", target="middle")
    some = circuits.expanded_weights(model, source="stem", target=["middle:8", "middle:0", "middle:4", "middle:4"])
    torch.testing.assert_close(some.kernels, whole.kernels[[8, 0, 4, 4]])
    lone = circuits.expanded_weights(model, source="stem", target="middle:0")  # the 1x1 branch alone
    assert lone.kernels.shape[2:] == (1, 1) and lone.offset == (0, 0)


def test_the_strongest_sources_and_the_rest_make_up_the_whole() -> None:
    model = framed(MIDDLES["one 3x3 conv"]())
    weights = circuits.expanded_weights(model, source="stem", target="middle:1")
    top = weights.top(n=2)
    norms = model.module.middle.weight[1].flatten(1).norm(dim=1)
    assert [c for c, _ in top] == norms.argsort(descending=True)[:2].tolist()
    for channel, value in top:
        assert abs(value) == pytest.approx(norms[channel].item())
        assert (value > 0) == (model.module.middle.weight[1, channel].sum().item() > 0)
    shown = weights.kernels[0, [c for c, _ in top]].sum(dim=0)
    torch.testing.assert_close(shown + weights.rest([c for c, _ in top]), weights.kernels[0].sum(dim=0))


# -- per example and best case ------------------------------------------------------------------------------


def test_example_weights_are_the_gradients_of_the_real_network() -> None:
    module = nets.sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 3, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 2, 3),
    )
    model = nets.wrap(module, 12)
    images, places = nets.pictures(3, 12), [(2, 3), (4, 4), (0, 0)]
    mean, each = circuits.example_weights(model, images, source="0", target="4:1", positions=places)
    plain = copy.deepcopy(module)
    for part in plain:
        if isinstance(part, nn.ReLU):
            part.inplace = False
    acts = plain[1](plain[0](images)).detach().requires_grad_(True)
    out = plain[4](plain[3](plain[2](acts)))
    total = out[0, 1, 2, 3] + out[1, 1, 4, 4] + out[2, 1, 0, 0]
    (gradient,) = torch.autograd.grad(total, acts)
    assert mean.start == "1" and each.shape == (3, 4, 5, 5)
    expected = [gradient[i, :, y : y + 5, x : x + 5] for i, (y, x) in enumerate(places)]
    torch.testing.assert_close(each, torch.stack(expected))
    torch.testing.assert_close(mean.kernels[0], each.mean(dim=0))


def test_where_the_network_is_linear_every_example_has_the_expanded_weights() -> None:
    module = nets.sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3), nn.Conv2d(3, 2, 3))
    model = nets.wrap(module, 12)
    linear = circuits.expanded_weights(model, source="0", target="2:0")
    mean, each = circuits.example_weights(model, nets.pictures(2, 12), source="0", target="2:0@3,3")
    torch.testing.assert_close(mean.kernels, linear.kernels)
    best = circuits.best_case_weights(model, nets.pictures(2, 12), source="0", target="2:0@3,3")
    torch.testing.assert_close(best.kernels, linear.kernels)
    assert (mean.method, best.method) == ("example", "best case")


def test_example_weights_of_a_branch_are_its_channels_of_the_whole(inception: circuits.Model) -> None:
    images = nets.pictures(2, 64)
    whole, _ = circuits.example_weights(inception, images, source="mixed3a", target="mixed3b_pre:7@3,3")
    branch, each = circuits.example_weights(inception, images, source="mixed3a_5x5", target="mixed3b_pre:7@3,3")
    torch.testing.assert_close(branch.kernels, whole.kernels[:, 7:10])
    assert each.shape[1] == 3


def test_vectors_are_sources_too() -> None:
    inner = nets.sequential(nn.Conv2d(3, 4, 8), nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    for model, prefix in ((nets.wrap(inner, 8), ""), (nets.wrap(nets.Undecided(inner), 8), "inner.")):
        weights = circuits.expanded_weights(model, source=f"{prefix}2", target=f"{prefix}4")
        torch.testing.assert_close(weights.kernels[:, :, 0, 0], inner[4].weight)
        mean, _ = circuits.example_weights(model, nets.pictures(2, 8), source=f"{prefix}3", target=f"{prefix}4:1")
        torch.testing.assert_close(mean.kernels[0, :, 0, 0], inner[4].weight[1])


def test_positions_are_one_for_each_picture(inception: circuits.Model) -> None:
    with pytest.raises(GraphError, match="one \\(y, x\\) for each of the 2 images"):
        circuits.example_weights(
            inception, nets.pictures(2, 64), source="mixed3a", target="mixed3b:7", positions=[(1, 1)]
        )


# -- what cannot be answered --------------------------------------------------------------------------------


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.gate = nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(4, 5, 1)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x * torch.sigmoid(self.gate(x))
        out: Tensor = self.fc(self.last(x).mean(dim=(2, 3)))
        return out


@pytest.mark.parametrize("method", ["auto", "exact", "vjp"])
@pytest.mark.parametrize("target", ["last", "fc"])
def test_a_nonlinear_path_is_an_error_that_names_the_operation(method: str, target: str) -> None:
    model = nets.wrap(Product(), 8)
    with pytest.raises(GraphError, match="no (exact )?linear form"):
        circuits.expanded_weights(model, source="stem", target=target, method=method)  # type: ignore[arg-type]


def test_an_unknown_operation_that_is_linear_is_differentiated() -> None:
    class Halved(Product):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.fc(torch.roll(self.last(self.stem(x)) * 0.5, 1, dims=1).mean(dim=(2, 3)))
            return out

    model = nets.wrap(nets.randomized(Halved()).double(), 8)
    weights = circuits.expanded_weights(model, source="stem", target="fc")
    m = model.module
    matrix = m.fc.weight @ torch.roll(m.last.weight[:, :, 0, 0], 1, dims=0) * 0.5 / 64
    assert weights.method == "vjp"
    torch.testing.assert_close(weights.kernels, matrix[:, :, None, None].expand(-1, -1, 8, 8))


def test_no_path_is_an_error(inception: circuits.Model) -> None:
    for source, target in (("mixed3b", "mixed3a"), ("mixed3a", "mixed3a"), ("mixed3b_1x1_pre", "mixed3b_3x3_pre")):
        with pytest.raises(GraphError):
            circuits.expanded_weights(inception, source=source, target=target)


def test_bad_questions_are_answered_with_one_line(inception: circuits.Model) -> None:
    with pytest.raises(AddressError, match="source of expanded weights is a layer"):
        circuits.expanded_weights(inception, source="mixed3a:1", target="mixed3b")
    with pytest.raises(AddressError, match="units of one layer"):
        circuits.expanded_weights(inception, source="conv2d2", target=["mixed3a:1", "mixed3b:1"])
    with pytest.raises(AddressError, match="none"):
        circuits.expanded_weights(inception, source="conv2d2", target=[])
    with pytest.raises(GraphError, match="method"):
        circuits.expanded_weights(inception, source="conv2d2", target="mixed3a", method="magic")  # type: ignore[arg-type]


def test_shuffled_and_split_channels_are_measured_on_the_whole_map() -> None:
    """As in ShuffleNet: operations whose meaning is unknown here, but which are linear."""

    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            self.conv = nn.Conv2d(2, 2, 3, padding=1)
            self.last = nn.Conv2d(4, 3, 3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            left, right = self.stem(x).chunk(2, dim=1)
            both = torch.cat([left * 2, self.conv(right)], dim=1)
            n, c, h, w = both.shape
            out: Tensor = self.last(both.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))
            return out

    model = nets.wrap(nets.randomized(Shuffled()).double(), 20)
    weights = circuits.expanded_weights(model, source="stem", target="last")
    assert weights.method == "vjp" and weights.stride == (2, 2) and weights.offset == (-2, -2)
    with pytest.raises(GraphError, match="no exact linear form"):
        circuits.expanded_weights(model, source="stem", target="last", method="exact")
    acts = circuits.capture(model, nets.pictures(1, 20), ["stem", "last"])
    nothing = torch.zeros(1, 2, 20, 20, dtype=torch.float64)
    with torch.no_grad():
        biased = torch.cat([nothing, model.module.conv(nothing)], dim=1)[:, [0, 2, 1, 3]]
        quiet = model.module.last(biased)
    sums = (weights.patches(acts["stem"], [(4, 5)]) * weights.kernels).sum(dim=(1, 2, 3))
    torch.testing.assert_close(sums, (acts["last"] - quiet)[0, :, 4, 5])


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize(
    "middle",
    [
        lambda: nn.ConvTranspose2d(4, 3, 2, 2),
        lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 3, 3)),
        lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 3, 1)),
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d(11), nn.Conv2d(4, 3, 3)),
    ],
)
def test_what_reads_differently_from_place_to_place_has_no_kernel(middle: Callable[[], nn.Module], graph: bool) -> None:
    module = nets.randomized(Framed(middle())).double()
    model = nets.wrap(module if graph else nets.Undecided(module), SIZE)
    prefix = "" if graph else "inner."
    assert (model.graph is not None) == graph
    with pytest.raises(GraphError, match="differently from position to position"):
        circuits.expanded_weights(model, source=f"{prefix}stem", target=f"{prefix}middle")


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_reflecting_padding_has_the_kernel_of_its_interior(stride: int) -> None:
    model = framed(nn.Conv2d(4, 5, 3, stride, 1, padding_mode="reflect"))
    weights = circuits.expanded_weights(model, source="stem", target="middle")
    torch.testing.assert_close(weights.kernels, model.module.middle.weight)
    assert (weights.offset, weights.stride, weights.method) == ((-1, -1), (stride, stride), "vjp")
