"""Networks as they are deployed, copied and handed to other processes: what works gives the same values."""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Iterator
from multiprocessing.pool import Pool

import pytest
import torch
from torch import Tensor, nn

import circuits
import sae
from circuits import Model
from circuits.errors import ModelError
from zoo.networks import load_language

SPEC = circuits.InputSpec(size=16)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(True), nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    ).eval()  # fmt: skip


@pytest.fixture
def images() -> Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


AROUND = {
    "torch.compile": lambda net: torch.compile(net, backend="eager"),
    "DataParallel": nn.DataParallel,
    "DataParallel in eval mode": lambda net: nn.DataParallel(net).eval(),
    "both": lambda net: torch.compile(nn.DataParallel(net), backend="eager"),
}


@pytest.mark.parametrize("around", AROUND)
def test_the_network_inside_is_taken(around: str, images: Tensor) -> None:
    plain = circuits.wrap(network(), input=SPEC)
    model = circuits.wrap(AROUND[around](network()), input=SPEC)
    assert list(model.layers) == list(plain.layers) and model.digest == plain.digest
    assert torch.equal(circuits.capture(model, images, at="4")["4"], circuits.capture(plain, images, at="4")["4"])
    assert len(circuits.trace(model, "4:0", images=images, depth=1).edges) == 6


@pytest.mark.filterwarnings("ignore")
def test_a_dynamically_quantized_network_is_read_and_has_a_digest(images: Tensor) -> None:
    def quantized() -> nn.Module:
        return torch.ao.quantization.quantize_dynamic(network(), {nn.Linear}, dtype=torch.qint8)

    net = quantized()
    model = circuits.wrap(net, input=SPEC)
    with torch.no_grad():
        assert torch.equal(circuits.capture(model, images, at="4")["4"], network()[:5](images))
        assert torch.equal(circuits.capture(model, images, at="7")["7"][:, :, 0, 0], net(images))
    before = model.digest
    assert before == circuits.wrap(quantized(), input=SPEC).digest
    net[7].set_weight_bias(torch.quantize_per_tensor(torch.ones(4, 6), 0.1, 0, torch.qint8), torch.zeros(4))
    assert model.digest != before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda net: torch.jit.script(net), "it .* is a torch.jit module"),
        (lambda net: torch.jit.trace(net, torch.zeros(1, 3, 16, 16)), "it .* is a torch.jit module"),
        (lambda net: nn.Sequential(torch.jit.script(net[:5]), net[5:]).eval(), "^0 .* is a torch.jit module"),
        (lambda net: nn.Sequential(torch.compile(net[:5]), net[5:]).eval(), "^0 .* is compiled"),
        (lambda net: net.compile() or net, r"it \(Sequential\) is compiled"),
    ],
)
def test_what_calls_no_hooks_is_refused_in_one_line(made, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        circuits.wrap(made(network()), input=SPEC)


def _back(thing: object) -> object:
    return thing


@pytest.fixture(scope="module")
def process() -> Iterator[Pool]:
    """Another process, begun from nothing."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        yield pool


@pytest.mark.parametrize("how", ["deepcopy", "through a process"])
@pytest.mark.parametrize("kind", ["wrapped", "of the zoo"])
def test_a_copy_is_the_same_network_of_its_own(how: str, kind: str, images: Tensor, process: Pool) -> None:
    def copied(model: Model) -> Model:  # pickled, read in the other process, and back again
        return copy.deepcopy(model) if how == "deepcopy" else process.apply(_back, (model,))

    model = circuits.wrap(network(), input=SPEC) if kind == "wrapped" else circuits.load("scenes")
    layer = "3" if kind == "wrapped" else "mixed3b"
    width = model.layers[layer].channels
    model.attach(layer, "own", circuits.Directions(torch.eye(width)[:3]))
    other = copied(model)
    assert list(other.layers) == list(model.layers) and other.digest == model.digest and other.source == model.source
    assert (other.card is None) == (model.card is None)
    shown = images if kind == "wrapped" else "scenes:2"
    for _ in range(2):  # the graph and the module of the copy are one
        right = circuits.capture(other, shown, at=layer)[layer]
        hit = circuits.attribute(other, shown, source=list(model.layers)[0], target=f"{layer}~own:1").values
        assert hit.isfinite().all()
    assert torch.equal(right, circuits.capture(model, shown, at=layer)[layer])
    with circuits.edit(model, [circuits.Ablate(f"{layer}:1")]):  # the copy has hooks and a lock of its own
        assert circuits.capture(other, shown, at=layer)[layer][:, 1].abs().sum() > 0
        with pytest.raises(ModelError, match="being edited"):
            copied(model)


def test_a_deep_copy_has_weights_of_its_own() -> None:  # between processes torch shares them
    model = circuits.wrap(network(), input=SPEC)
    other, before = copy.deepcopy(model), model.digest
    with torch.no_grad():
        next(other.module.parameters()).mul_(2)
    assert model.digest == before != other.digest


def _sum(model: Model, images: Tensor) -> float:
    return float(circuits.capture(model, images, at="3")["3"].double().sum())


def test_a_spawned_worker_gets_the_model(images: Tensor, process: Pool) -> None:
    model = circuits.wrap(network(), input=SPEC)
    assert process.apply(_sum, (model, images)) == pytest.approx(_sum(model, images))


def test_a_site_and_a_language_model_can_be_copied(images: Tensor, process: Pool) -> None:
    site = copy.deepcopy(sae.VisionSite(circuits.wrap(network(), input=SPEC), "2"))
    assert next(iter(site.blocks(images))).acts.shape == (4, 16, 16, 8)
    pytest.importorskip("transformers")
    language = load_language("tales")
    assert copy.deepcopy(language).digest == language.digest
    assert process.apply(_back, (language,)).ids("a dog") == language.ids("a dog")
