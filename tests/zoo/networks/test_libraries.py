"""Cards of torchvision's and timm's networks are made without memory for their weights."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.networks.initialization import outline
from zoo.networks.torchvision import classifiers


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
