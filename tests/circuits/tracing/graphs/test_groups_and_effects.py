"""Nodes set to zero or twice, worked out in plain PyTorch, and groups of units that were planted as copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import circuits
import sae
from circuits.errors import CircuitsError

SPEC = circuits.InputSpec(size=12, channels=1, mean=(0.5,), std=(0.25,))


class Copies(nn.Module):
    """Six random detectors of which 3 is twice 0, and 4 is half of 1 with the same reader; then two layers."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.conv, self.relu = nn.Conv2d(1, 6, 3), nn.ReLU()
        self.second, self.after = nn.Conv2d(6, 4, 1), nn.ReLU()
        self.logits = nn.Linear(4, 3)
        self.requires_grad_(False)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))
            for copy, of, factor in ((3, 0, 2.0), (4, 1, 0.5)):
                self.conv.weight[copy] = factor * self.conv.weight[of]
                self.conv.bias[copy] = factor * self.conv.bias[of]
                self.second.weight[:, copy] = self.second.weight[:, of]

    def forward(self, x: Tensor) -> Tensor:
        x = self.after(self.second(self.relu(self.conv(x))))
        return self.logits(x.mean((2, 3)))


@pytest.fixture(scope="module")
def model() -> circuits.Model:
    return circuits.wrap(Copies().eval(), input=SPEC, name="copies", classes=["cat", "dog", "cow"])


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(2))


def test_groups_are_the_planted_copies(model: circuits.Model, images: Tensor) -> None:
    graph = circuits.graph(model, images[:1], "cat", layers=["relu", "after"], keep=1.0)
    found = circuits.graph_groups(model, graph, images=images[:1], compare=images, threshold=0.9, random=3)
    units = {frozenset(int(u.rpartition(":")[2]) for u in g.units) for g in found.groups if g.layer == "relu"}
    assert units == {frozenset({0, 3}), frozenset({1, 4})} and found.held_out
    net: Any = model.module
    x = (images[:1] - 0.5) / 0.25
    acts = F.relu(net.conv(x)).detach()
    before = net.logits(F.relu(net.second(acts)).mean((2, 3)))[0, 0]
    for group in (g for g in found.groups if g.layer == "relu"):
        without = acts.clone()
        without[:, [int(u.rpartition(":")[2]) for u in group.units]] = 0
        after = net.logits(F.relu(net.second(without)).mean((2, 3)))[0, 0]
        assert group.measured == pytest.approx(float(after - before), abs=1e-5)
        assert group.activations == pytest.approx(1.0) and group.edges == pytest.approx(1.0)
        assert group.value == pytest.approx(sum(graph.node(u).value for u in group.units))
        assert len(group.random) == 3 and group.measured not in group.random
    assert found == circuits.graph_groups(model, graph, images=images[:1], compare=images, threshold=0.9, random=3)
    alone = circuits.graph_groups(model, graph, images=images[:1], threshold=1.0, random=0)
    assert not alone.held_out and all(not g.random for g in alone.groups)


def test_nodes_are_set_to_zero_and_twice(model: circuits.Model, images: Tensor) -> None:
    graph = circuits.graph(model, images[:2], ("cat", "dog"), layers=["relu"], keep=1.0)
    net: Any = model.module
    acts = F.relu(net.conv((images[:2] - 0.5) / 0.25)).detach()
    for factor in (0.0, 2.0):
        effect = circuits.node_effect(model, graph, ["relu:2", "relu:5"], images=images[:2], factor=factor, random=2)
        moved = acts.clone()
        moved[:, [2, 5]] *= factor
        scores = [net.logits(F.relu(net.second(a)).mean((2, 3))).detach() for a in (acts, moved)]
        before, after = (float((s[:, 0] - s[:, 1]).mean()) for s in scores)
        assert effect.before == pytest.approx(before, abs=1e-5)
        assert effect.measured == pytest.approx(after - before, abs=1e-5)
        values = sum(graph.node(unit).value for unit in effect.units)
        assert effect.predicted == pytest.approx((factor - 1) * values)
        for change in effect.classes:
            expected = [float(s.softmax(1)[:, change.index].mean()) for s in scores]
            assert (change.before, change.after) == pytest.approx(expected, abs=1e-5)
        assert {c.name for c in effect.classes} == {"cat", "dog", "cow"}
    assert effect == circuits.node_effect(model, graph, ["relu:2", "relu:5"], images=images[:2], factor=2, random=2)


def test_a_latent_is_scaled_in_what_it_writes() -> None:
    model = circuits.load("scenes")
    torch.manual_seed(0)
    basis = sae.build(sae.TopK(latents=64, k=6), 48)
    model.attach("mixed3b", "d", basis)
    graph = circuits.graph(model, "scenes:1", "car", layers=["mixed3b~d", "mixed4a"])
    unit = next(n.unit for n in graph.strongest() if n.layer == "mixed3b~d")
    effect = circuits.node_effect(model, graph, unit, images="scenes:1", factor=2.0, random=1)
    before = circuits.capture(model, "scenes:1", "logits")["logits"]
    with circuits.edit(model, [circuits.Scale(unit, 2.0)]):
        after = circuits.capture(model, "scenes:1", "logits")["logits"]
    car = model.unit("logits:car").index
    assert effect.measured == pytest.approx(float((after - before)[0, car, 0, 0]), abs=1e-4) != 0


def test_what_cannot_be_scaled_is_refused(model: circuits.Model, images: Tensor) -> None:
    graph = circuits.graph(model, images[:1], "cat", layers=["relu", "after"], keep=1.0)
    for units, match in (
        (["relu:0", "after:1"], "relu, after"),
        ("input", "is none"),
        ("relu:9", "no node"),
        ([], "none"),
    ):
        with pytest.raises(CircuitsError, match=match):
            circuits.node_effect(model, graph, units, images=images[:1])
    with pytest.raises(CircuitsError, match="give its own images"):
        circuits.graph_groups(model, graph, images=images[1:2])
    with pytest.raises(CircuitsError, match="factor"):
        circuits.node_effect(model, graph, "relu:0", images=images[:1], factor=float("nan"))
    assert np.isnan(circuits.node_effect(model, graph, "relu:0", images=images[:1], random=0).larger)
