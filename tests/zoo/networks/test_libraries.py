"""Cards of torchvision's and timm's networks are made without memory for their weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import circuits
import zoo
from zoo.networks.initialization import outline
from zoo.networks.torchvision import classifiers, detectors, segmenters


def test_every_regnet_has_a_card() -> None:
    names = [name for name in classifiers() if name.startswith("regnet")]
    assert len(names) == 15
    for name in names:
        assert zoo.get_card(f"torchvision/{name}").logits == "fc"


def test_an_outline_has_no_weights_and_leaves_the_random_state() -> None:
    state = torch.get_rng_state()
    net = outline(lambda: torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(int(torch.arange(5).max()))))
    assert next(net.parameters()).is_meta and net[1].normalized_shape == (4,)  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_every_classifier_has_a_card_whose_logits_are_a_layer() -> None:
    for name in classifiers():
        card = zoo.get_card(f"torchvision/{name}")
        assert card.logits in dict(outline(card.build).named_modules()), name


def test_class_maps_of_a_network_for_segmentation_are_its_class_scores() -> None:
    card = zoo.get_card("torchvision/lraspp_mobilenet_v3_large")
    assert card.output == "out" and card.classes()[15] == "person"
    module = card.build().eval()
    model = circuits.wrap(module, circuits.InputSpec(size=64), output="out", classes=card.classes())
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = circuits.capture(model, images, at="logits")["logits"]
    with torch.no_grad():
        out = module(images)["out"]
    assert torch.equal(F.interpolate(maps, size=(64, 64), mode="bilinear", align_corners=False), out)
    assert torch.equal(model(images), out)


@pytest.mark.slow
@pytest.mark.parametrize("name", segmenters())
def test_every_network_for_segmentation_can_be_traced_from_its_class_maps(name: str) -> None:
    module = zoo.get_card(f"torchvision/{name}").build().eval()
    model = circuits.wrap(module, circuits.InputSpec(size=64), output="out")
    assert model.layer("logits").channels == 21
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = circuits.capture(model, images, at="logits")["logits"]
    unit = int((maps.amax(dim=(0, 2, 3)) > 0).nonzero()[0])
    assert circuits.trace(model, f"logits:{unit}", images=images, width=3, by="attribution").edges


@pytest.mark.slow
@pytest.mark.parametrize("name", detectors())
def test_layers_of_every_detector_are_those_that_plain_hooks_see(name: str) -> None:
    torch.manual_seed(0)
    module: Any = zoo.get_card(f"torchvision/{name}").build().eval()
    if module.transform.fixed_size is None:  # images would be enlarged to 800 pixels: ten gigabytes of activations
        module.transform.min_size = (160,)
    model = circuits.wrap(module, circuits.InputSpec(size=64))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    layers = [name for name, layer in model.layers.items() if name == layer.path and name.startswith("backbone")][:40]
    captured, seen = circuits.capture(model, images, at=layers), {}
    hooks = [
        module.get_submodule(n).register_forward_hook(lambda _m, _i, out, n=n: seen.__setitem__(n, out.clone()))
        for n in layers
    ]
    with torch.no_grad():
        module(images)
    assert len(hooks) == len(layers) and all(torch.equal(captured[n], seen[n]) for n in layers)
