"""Traces through bottlenecks: each step is linear, and what it gives is worked out again in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import Bottleneck

import circuits
from circuits.errors import CircuitsError
from circuits.plot.drawing.wording import circuit_reading, sum_sentences
from circuits.tracing.circuit import Circuit, FoldedSum
from tests import nets


class Gated(nn.Module):
    """A product of two maps, as in a squeeze-excitation block."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(4, 4, 1)
        self.gate = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * torch.sigmoid(self.gate(x))


class ConvPoolRelu(nn.Module):
    """The ReLU of a pooled convolution, so that a unit's value before its ReLU is a maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 5, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()
        self.last = nn.Sequential(nn.Conv2d(5, 4, 3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.relu(self.pool(self.conv(x))))


def behind_a_stem(*blocks: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), *blocks, nn.Conv2d(4, 2, 1))


MODELS: dict[str, tuple[Callable[[], nn.Module], int, str]] = {
    "inception": (nets.tiny_inception, 64, "mixed4a"),
    "residual": (behind_a_stem(nets.Residual(4), nets.Residual(4)), 16, ""),
    "resnet bottleneck": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.ReLU(), Bottleneck(16, 4), Bottleneck(16, 4), nn.Conv2d(16, 2, 1)
        ), 16, "",
    ),
    "mobilenet": (behind_a_stem(InvertedResidual(4, 4, 1, 3), InvertedResidual(4, 4, 1, 3)), 16, ""),
    "max before the ReLU": (behind_a_stem(ConvPoolRelu()), 16, ""),
}  # fmt: skip


def unit_of(model: circuits.Model, images: Tensor, layer: str, some: slice = slice(None)) -> str:
    """The most active unit of some channels of a layer."""
    acts = circuits.capture(model, images, layer)[layer].amax(dim=(0, 2, 3))
    return f"{layer}:{(some.start or 0) + int(acts[some].argmax())}"


def trunk_layer(model: circuits.Model, name: str) -> str:
    return name or [layer for layer in model.trunk if model.layers[layer].size not in (None, (1, 1))][-2]


@pytest.mark.parametrize("name", list(MODELS))
def test_nothing_is_left_over_in_any_step(name: str) -> None:
    make, size, layer = MODELS[name]
    model, images = nets.wrap(nets.randomized(make()), size), nets.pictures(6, size)
    target = unit_of(model, images, trunk_layer(model, layer))
    circuit = circuits.trace(model, target, images=images, depth=2, width=3, through_bottlenecks=True)
    inner = [at for at in circuit.layers if at not in model.trunk]
    assert inner, circuit.layers
    assert len(circuit.rest) > 2
    for rest in circuit.rest:
        listed = sum(e.strength for e in circuit.into(rest.target))
        scale = max(1.0, abs(rest.pre_activation))
        assert abs(rest.remainder) <= 2e-6 * scale, rest
        assert listed + rest.strength == pytest.approx(rest.total, abs=1e-6 * scale)
        assert rest.total + rest.bias + rest.remainder == pytest.approx(rest.pre_activation, abs=1e-6 * scale)
    assert [node.depth for node in circuit.nodes] == [circuit.layers.index(node.layer) for node in circuit.nodes]


@pytest.mark.parametrize("branch", ["1x1", "3x3", "5x5", "pool_proj"])
def test_contributions_in_an_inception_block_are_those_of_plain_pytorch(branch: str) -> None:
    module = nets.randomized(nets.tiny_inception(), 1)  # with these weights each branch has an active unit
    model, images = nets.wrap(module, 64), nets.pictures(5, 64)
    part = model.layers[f"mixed3b_{branch}"]
    assert part.part is not None
    start = part.part[1]
    target = unit_of(model, images, "mixed3b", slice(start, start + part.channels))
    circuit = circuits.trace(model, target, images=images, width=99, through_bottlenecks=True)
    channel = int(target.rpartition(":")[2])
    inside = {"1x1": "mixed3a", "3x3": "mixed3b_3x3_bottleneck", "5x5": "mixed3b_5x5_bottleneck"}
    source = inside.get(branch, "mixed3b_pool")
    acts = circuits.capture(model, images, [source, "mixed3b", "mixed3a"])
    conv = module.get_submodule(f"mixed3b_{branch}_pre")
    assert isinstance(conv, nn.Conv2d)
    peaks = acts["mixed3b"][:, channel].flatten(1).argmax(dim=1)
    active = acts["mixed3b"][:, channel].flatten(1).amax(dim=1) > 0
    expected = []
    for c in range(acts[source].shape[1]):
        alone = torch.zeros_like(acts[source])
        alone[:, c] = acts[source][:, c]
        maps = nn.functional.conv2d(alone, conv.weight.detach(), None, conv.stride, conv.padding)[:, channel - start]
        expected.append(float(maps.flatten(1).gather(1, peaks[:, None])[active].mean()))
    strengths = {circuits.Unit.parse(e.source).index: e.strength for e in circuit.into(circuit.target)}
    layers = {circuits.Unit.parse(e.source).layer for e in circuit.into(circuit.target)}
    assert layers == {inside.get(branch, "mixed3a")}  # what is pooled is still the layer before
    torch.testing.assert_close(
        torch.tensor([strengths.get(c, 0.0) for c in range(len(expected))]),
        torch.tensor(expected),
        rtol=1e-4,
        atol=1e-5,
    )
    assert circuit.rest[0].bias == pytest.approx(float(conv.bias.detach()[channel - start]), abs=1e-5)  # type: ignore[union-attr]


def test_a_residual_block_reads_its_bottleneck_and_the_stream() -> None:
    make, size, _ = MODELS["resnet bottleneck"]
    module = nets.randomized(make())
    model, images = nets.wrap(module, size), nets.pictures(6, size)
    block = module.get_submodule("3")
    assert isinstance(block, Bottleneck)
    target = unit_of(model, images, "3")
    channel = int(target.rpartition(":")[2])
    circuit = circuits.trace(model, target, images=images, width=99, through_bottlenecks=True)
    assert circuit.layers == ("3", "3.relu.call1", "3.relu.call0", "2")
    acts = circuits.capture(model, images, ["2", "3.relu.call1", "3"])
    peaks = acts["3"][:, channel].flatten(1).argmax(dim=1)
    active = acts["3"][:, channel].flatten(1).amax(dim=1) > 0
    scale = block.bn3.weight[channel] / (block.bn3.running_var[channel] + block.bn3.eps).sqrt()  # type: ignore[index]
    inner = acts["3.relu.call1"].flatten(2).gather(2, peaks[:, None, None].expand(-1, 4, 1))[:, :, 0][active]
    expected = (inner * block.conv3.weight[channel, :, 0, 0] * scale).mean(dim=0).detach()
    strengths = {circuits.Unit.parse(e.source).short: e.strength for e in circuit.into(circuit.target)}
    for c in range(4):
        assert strengths.get(f"3.relu.call1:{c}", 0.0) == pytest.approx(float(expected[c]), abs=1e-5)
    stream = acts["2"][:, channel].flatten(1).gather(1, peaks[:, None])[active].mean()
    assert strengths[f"2:{channel}"] == pytest.approx(float(stream), abs=1e-5)
    assert [unit for unit in strengths if unit.startswith("2:")] == [f"2:{channel}"]


def test_both_readings_are_kept_and_the_folded_one_is_the_plain_trace(inception: circuits.Model) -> None:
    images = nets.pictures(6, 64)
    part = inception.layers["mixed3b_5x5"]
    assert part.part is not None
    target = unit_of(inception, images, "mixed3b", slice(part.part[1], part.part[1] + part.channels))
    plain = circuits.trace(inception, target, images=images, width=3, by="weights")
    circuit = circuits.trace(inception, target, images=images, width=3, through_bottlenecks=True)
    whole, folded = plain.rest[0], circuit.rest[0].folded
    assert folded is not None
    expected = (whole.total, whole.bias, whole.remainder)
    assert (folded.total, folded.bias, folded.remainder) == pytest.approx(expected, abs=1e-4)
    assert plain.provenance.get("through_bottlenecks") is None and circuit.provenance["through_bottlenecks"]


def test_a_baseline_counts_from_the_mean_of_every_layer_on_the_way(inception: circuits.Model) -> None:
    images = nets.pictures(6, 64)
    target = unit_of(inception, images, "mixed3b", slice(2, 6))
    zero, mean = (
        circuits.trace(inception, target, images=images, width=99, baseline=baseline, through_bottlenecks=True)
        for baseline in ("zero", "mean")
    )
    assert mean.rest[0].total != pytest.approx(zero.rest[0].total, abs=1e-3)
    for rest in mean.rest:
        assert abs(rest.remainder) < 1e-5
    layer = "mixed3b_3x3_bottleneck"
    means = circuits.capture(inception, images, layer)[layer].mean(dim=(0, 2, 3))
    edge = next(e for e in zero.into(zero.target) if e.offset == (-1, -1))
    counted = {e.source: e.strength for e in mean.into(mean.target)}[edge.source]
    held = float(means[circuits.Unit.parse(edge.source).index or 0]) * edge.kernel  # type: ignore[arg-type]
    # at positions inside of the map the baseline gives the mean times the sum of the kernel
    positions = [e.position for e in zero.node(zero.target).examples]
    if all(0 < y < 6 and 0 < x < 6 for y, x in positions):
        assert edge.strength - counted == pytest.approx(float(held.sum()), abs=1e-4)


def test_it_is_stored_and_scored(inception: circuits.Model, tmp_path: Path) -> None:
    images = nets.pictures(8, 64)
    target = unit_of(inception, images, "mixed4a")
    circuit = circuits.trace(inception, target, images=images, width=3, through_bottlenecks=True)
    circuit.save(tmp_path / "circuit.json")
    again = Circuit.load(tmp_path / "circuit.json")
    assert again.rest == circuit.rest and again.edges == circuit.edges and again.layers == circuit.layers
    plain = circuits.trace(inception, target, images=images, width=3, by="weights")
    assert "folded" not in plain.to_json()["rest"][0]
    score = circuits.score(inception, again, images=images, random=3)
    assert set(score.minimality) == {node.unit for node in circuit.nodes[1:]}


def test_a_report_says_when_contributions_are_not_to_be_interpreted(inception: circuits.Model) -> None:
    images = nets.pictures(6, 64)
    circuit = circuits.trace(inception, unit_of(inception, images, "mixed4a"), images=images, width=3, by="weights")
    rest = circuit.rest[0]
    bent = replace(circuit, rest=(replace(rest, remainder=0.6, pre_activation=1.0),))
    assert "Do not interpret" in circuit_reading(bent) and "--through-bottlenecks" in circuit_reading(bent)
    good = replace(circuit, rest=(replace(rest, remainder=0.4, pre_activation=1.0),))
    assert not sum_sentences(good)
    both = replace(good, rest=(replace(rest, remainder=0.0, pre_activation=2.0, folded=FoldedSum(0.5, 0.1, 1.4)),))
    (sentence,) = sum_sentences(both)
    assert "+1.4" in sentence and "unexplained" in sentence


def test_ranked_contributions_are_whole_and_the_kernels_are_judged_by_their_own_sum(inception: circuits.Model) -> None:
    images = nets.pictures(6, 64)
    part = inception.layers["mixed3b_5x5"]
    assert part.part is not None
    target = unit_of(inception, images, "mixed3b", slice(part.part[1], part.part[1] + part.channels))
    ranked = circuits.trace(inception, target, images=images, width=3)
    rest, linear = (
        ranked.rest[0],
        circuits.trace(inception, target, images=images, by="weights", baseline="mean").rest[0],
    )
    assert abs(rest.remainder) < 0.01 * abs(rest.pre_activation) < abs(linear.remainder)
    assert rest.folded is not None
    sums = (rest.folded.total, rest.folded.bias, rest.folded.remainder)
    assert sums == pytest.approx((linear.total, linear.bias, linear.remainder), abs=1e-5)
    bent = replace(ranked, rest=(replace(rest, pre_activation=1.0, folded=FoldedSum(0.3, 0.1, 0.6)),))
    (sentence,) = sum_sentences(bent)
    assert "Do not interpret the kernels" in sentence and "+0.6 of its +1" in sentence
    assert sentence in circuit_reading(bent)
    assert not sum_sentences(replace(bent, rest=(replace(rest, pre_activation=1.0, folded=FoldedSum(0.5, 0.1, 0.4)),)))


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("not by='gradient'", {"by": "gradient"}),
        ("is a latent", {"target": "mixed3b~mix:0"}),
    ],
)
def test_what_has_no_linear_steps_is_refused(message: str, options: dict[str, str]) -> None:
    model, images = nets.wrap(nets.tiny_inception(), 64), nets.pictures(4, 64)
    model.attach("mixed3b", "mix", nets.LinearBasis(torch.rand(3, 12, generator=torch.Generator().manual_seed(0))))
    settings = {"target": unit_of(model, images, "mixed3b"), **options}
    with pytest.raises(CircuitsError, match=message):
        circuits.trace(model, images=images, through_bottlenecks=True, **settings)  # type: ignore[arg-type]


def test_products_and_networks_without_a_graph_are_refused() -> None:
    gated = nets.wrap(nets.randomized(behind_a_stem(Gated(), nn.Conv2d(4, 4, 1), nn.ReLU())()), 8)
    images = nets.pictures(4, 8)
    with pytest.raises(CircuitsError, match="2:. comes out of 'mul', which has no linear form"):
        circuits.trace(gated, unit_of(gated, images, "4"), images=images, layers=["1"], through_bottlenecks=True)
    free = nets.wrap(nets.Undecided(nets.randomized(nets.Functional())), 16)
    with pytest.raises(CircuitsError, match="torch.fx cannot trace"):
        circuits.trace(free, "inner.c:0", images=nets.pictures(4, 16), layers=["inner.a"], through_bottlenecks=True)
