"""Every network of the zoo, and torchvision's, is after every verb what it was before, also after an error."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import circuits
from circuits.errors import CircuitsError, EditError, GraphError
from tests import nets
from zoo.registry import cards

OWN = list(cards())
TORCHVISION: dict[str, dict[str, object]] = {
    "alexnet": {},
    "vgg11": {},
    "vgg11_bn": {},
    "resnet18": {},
    "googlenet": {"aux_logits": False, "init_weights": False},
    "densenet121": {},
    "mobilenet_v2": {},
    "squeezenet1_1": {},
    "shufflenet_v2_x0_5": {},
    "efficientnet_b0": {},
    "convnext_tiny": {},
}
#: products of two maps, attention, or normalization by the picture's own statistics: there are no weights to expand
GATED = {"efficientnet_b0", "convnext_tiny", "scenes-vit"}
SLOW = {"densenet121", "vgg11", "vgg11_bn", "efficientnet_b0", "convnext_tiny", "googlenet-bvlc"}


def torchvision_module(name: str) -> nn.Module:
    """torchvision's network with random weights; the wide classifiers of AlexNet and VGG are left narrow."""
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        module: nn.Module = models.get_model_builder(name)(weights=None, **TORCHVISION[name])
        if isinstance(module, (models.AlexNet, models.VGG)):
            inside = 256 * 6 * 6 if name == "alexnet" else 512 * 7 * 7
            module.classifier = nn.Sequential(nn.Linear(inside, 16), nn.ReLU(inplace=True), nn.Linear(16, 10))
    module = module.to_empty(device="cpu")
    for _, buffer in module.named_buffers():
        buffer.zero_()
    return nets.randomized(module)


def build(name: str) -> circuits.Model:
    if name in OWN:
        return circuits.load(name, weights="random", device="cpu")
    return circuits.wrap(torchvision_module(name), circuits.InputSpec(size=64), name=name)


def named(names: list[str]) -> list[object]:
    return [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in names]


@pytest.fixture(scope="module", params=named([*OWN, *TORCHVISION]))
def model(request: pytest.FixtureRequest) -> circuits.Model:
    return build(request.param)


@pytest.fixture(scope="module")
def images(model: circuits.Model) -> Tensor:
    return nets.pictures(2, model.input.hw, model.input.channels)


def target_and_source(model: circuits.Model, images: Tensor) -> tuple[str, str]:
    """A unit of a trunk layer in the middle that fires on the pictures, and the trunk layer before."""
    maps = [n for n in model.trunk if model.layers[n].size is not None and model.before(n) is not None]
    for layer in maps[len(maps) // 2 :] + maps[: len(maps) // 2]:
        acts = circuits.capture(model, images, layer)[layer]
        spread = acts.amax(dim=(0, 2, 3)) * (acts.std(dim=(0, 2, 3)) > 0)
        if float(spread.max()) > 0:
            source = model.before(layer)
            assert source is not None
            return f"{layer}:{int(spread.argmax())}", source
    raise AssertionError("no unit fires")


def test_every_verb_leaves_the_network_as_it_was(model: circuits.Model, images: Tensor) -> None:
    before = nets.state(model)
    target, source = target_and_source(model, images)
    layer = target.partition(":")[0]

    circuits.capture(model, images, [source, layer])
    with circuits.edit(model, [circuits.Ablate(f"{source}:0"), circuits.Scale(layer, 2.0)]), torch.no_grad():
        model(images)
    linear = model.name not in GATED
    if linear:
        weights = circuits.expanded_weights(model, source=source, target=target)
        assert weights.kernels.shape[:2] == (1, model.layers[source].channels)
    else:
        with pytest.raises(GraphError, match="no (exact )?linear form"):
            circuits.expanded_weights(model, source=source, target=target)
    for method in ("weight*act", "grad*act", "ablation") if linear else ("grad*act", "ablation"):
        result = circuits.attribute(model, images, source=source, target=target, method=method)  # type: ignore[arg-type]
        total = result.units.sum(dim=1) + result.bias + result.remainder
        torch.testing.assert_close(total, result.response, rtol=1e-3, atol=1e-3)
    circuits.attribute(model, images, source="input", target=target, method="integrated", steps=2)
    circuits.find(model, positive=images, negative=images.flip(0), layers=[source, layer])
    if not linear:
        assert nets.state(model) == before
        return
    circuit = circuits.trace(model, target, images=images, width=2)
    (rest,) = circuit.rest
    assert rest.total + rest.bias + rest.remainder == pytest.approx(rest.pre_activation, rel=1e-3, abs=1e-3)
    circuits.score(model, circuit, images=images, random=2)
    circuits.best_case_weights(model, images[:1], source=source, target=target)
    assert nets.state(model) == before


def test_an_error_at_any_place_leaves_the_network_as_it_was(model: circuits.Model, images: Tensor) -> None:
    before = nets.state(model)
    target, source = target_and_source(model, images)
    with pytest.raises(ZeroDivisionError), circuits.edit(model, [circuits.Ablate(source), circuits.Ablate(target)]):
        raise ZeroDivisionError  # inside the context
    with pytest.raises(EditError), circuits.edit(model, [circuits.Set(source, torch.zeros(1, 2, 3, 5, 7))]):
        circuits.capture(model, images, target.partition(":")[0])  # inside the hook
    with pytest.raises(CircuitsError):
        circuits.capture(model, torch.rand(1, 7, 9, 9), source)
    with pytest.raises(CircuitsError):
        circuits.trace(model, target, images=torch.rand(0, 3, 9, 9))
    with pytest.raises(CircuitsError):
        circuits.attribute(model, images, source=source, target=f"{source}:999999")
    assert nets.state(model) == before
    assert nets.hook_count(model.module) == 0


def test_what_is_captured_is_what_the_network_computes(model: circuits.Model, images: Tensor) -> None:
    """Layer by layer: every layer alone gives what all together give, and the last is the output."""
    names = [n for n in nets.every_layer(model) if model.layers[n].path is not None]
    picked = [*names[:: max(1, len(names) // 6)], names[-1]]
    together = circuits.capture(model, images[:1], names)
    for name in dict.fromkeys(picked):
        torch.testing.assert_close(circuits.capture(model, images[:1], name)[name], together[name])
    with torch.no_grad():
        out = model(images[:1])
    last = together[names[-1]]
    torch.testing.assert_close(last.flatten(), out.flatten())


def test_the_graph_computes_what_the_module_does(model: circuits.Model, images: Tensor) -> None:
    if model.graph is None:
        pytest.skip("torch.fx cannot trace it")
    x = model.input.normalize(images[:1])
    last = next(n for n in model.graph.nodes if n.op == "output").all_input_nodes[0]
    with torch.no_grad():
        torch.testing.assert_close(model.graph.run({model.graph.input: x}, [last])[last], model.module(x))


def test_torchvisions_googlenet_is_captured_before_its_functional_in_place_relu() -> None:
    module = torchvision_module("googlenet")
    model = circuits.wrap(module, circuits.InputSpec(size=64), name="googlenet")
    images = nets.pictures(2, 64)
    acts = circuits.capture(model, images, ["conv1.conv", "conv1.bn", "conv1"])
    stem = module.conv1
    with torch.no_grad():
        conv = F.conv2d(images, stem.conv.weight, None, 2, 3)
        bn = stem.bn(conv)
    assert float(bn.min()) < 0
    torch.testing.assert_close(acts["conv1.conv"], conv)
    torch.testing.assert_close(acts["conv1.bn"], bn)
    torch.testing.assert_close(acts["conv1"], bn.clamp_min(0))
    assert model.layers["inception3a"].trunk and model.before("inception3b") == "inception3a"


def test_resnets_first_norm_is_captured_before_its_in_place_relu() -> None:
    module = torchvision_module("resnet18")
    model = circuits.wrap(module, circuits.InputSpec(size=64), name="resnet18")
    images = nets.pictures(2, 64)
    acts = circuits.capture(model, images, ["bn1", "relu", "layer1.0.bn1", "layer1.0.relu.call0", "layer1.0"])
    with torch.no_grad():
        bn = module.bn1(module.conv1(images))
        x = F.max_pool2d(bn.clamp_min(0), 3, 2, 1)
        block = module.layer1[0]
        inner = block.bn1(block.conv1(x))
        out = (block.bn2(block.conv2(inner.clamp_min(0))) + x).clamp_min(0)
    torch.testing.assert_close(acts["bn1"], bn)
    torch.testing.assert_close(acts["relu"], bn.clamp_min(0))
    torch.testing.assert_close(acts["layer1.0.bn1"], inner)
    torch.testing.assert_close(acts["layer1.0.relu.call0"], inner.clamp_min(0))
    torch.testing.assert_close(acts["layer1.0"], out)


PAIRS: list[tuple[str, str, str]] = [
    ("resnet18", "layer1.0", "layer1.1.bn2"),
    ("resnet18", "layer1.1", "layer2.0.bn2"),
    ("googlenet", "inception3a", "inception3b.branch3.1.bn"),
    ("mobilenet_v2", "features.2", "features.3.conv.3"),
    ("squeezenet1_1", "features.3", "features.4"),
]


@pytest.mark.parametrize(("name", "source", "target"), PAIRS)
def test_exact_weights_equal_differentiation_in_torchvisions_networks(name: str, source: str, target: str) -> None:
    model = circuits.wrap(torchvision_module(name).double(), circuits.InputSpec(size=64), name=name)
    units = [f"{target}:{c}" for c in (0, model.layer(target).channels - 1)]
    exact = circuits.expanded_weights(model, source=source, target=units, method="exact")
    vjp = circuits.expanded_weights(model, source=source, target=units, method="vjp")
    assert (exact.offset, exact.stride) == (vjp.offset, vjp.stride)
    scale = exact.kernels.abs().max()
    assert float((exact.kernels - vjp.kernels).abs().max() / scale) < 1e-6
