"""Without a graph, trunk layers are those whose output cannot be cut off without cutting off the image."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import circuits
from tests import nets
from tests.circuits.network.test_receptive_fields import NETS, Patches

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def is_crossed(module: nn.Module, path: str, images: Tensor) -> bool:
    """Whether nothing of the image reaches the output when a module's output is detached."""

    def detached(_module: nn.Module, _inputs: object, out: Tensor) -> Tensor:
        return out.detach()

    handle = module.get_submodule(path).register_forward_hook(detached)
    out = module(images.clone().requires_grad_())
    handle.remove()
    return not out.requires_grad


@pytest.mark.parametrize("name", list(NETS))
def test_it_is_that_of_the_graph(name: str) -> None:
    make, size = NETS[name]
    inner = nets.randomized(make())
    traced, untraced = nets.wrap(inner, size), nets.wrap(nets.Undecided(inner), size)
    assert untraced.graph is None
    assert [layer.removeprefix("inner.") for layer in untraced.trunk] == traced.trunk


def test_residual_streams_of_a_transformer_are_crossed_and_their_branches_are_not() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
            self.mlp = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x)
            x = x + self.attention(y, y, y, need_weights=False)[0]
            out: Tensor = x + self.mlp(x)
            return out

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 8, 4, stride=4)
            self.blocks = nn.Sequential(Block(), Block())
            self.head = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.blocks(self.patch(x).flatten(2).transpose(1, 2))
            return self.head(tokens.mean(1)) if float(tokens.detach().abs().sum()) > 0 else tokens

    net = nets.randomized(Net()).eval().requires_grad_(False)
    model = nets.wrap(net, 16)
    assert model.graph is None and model.trunk == ["patch", "blocks.0", "blocks.1", "head"]
    images = torch.rand(1, 3, 16, 16)
    for name, layer in model.layers.items():
        if layer.trunk:
            assert layer.path is not None and is_crossed(net, layer.path, images), name
    assert not is_crossed(net, "blocks.0.mlp.2", images) and not model.layers["blocks.0.mlp.2"].trunk


def test_a_network_that_writes_into_its_input_and_one_without_gradients_are_wrapped() -> None:
    def centered(x: Tensor) -> Tensor:
        return x.sub_(0.5)

    def without_gradient(x: Tensor) -> Tensor:
        return x.detach()

    for change, trunk in ((centered, ["conv", "head"]), (without_gradient, ["head"])):

        class Net(nn.Module):
            def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
                super().__init__()
                self.conv, self.head, self.change = nn.Conv2d(3, 4, 3), nn.Linear(4, 3), change

            def forward(self, x: Tensor) -> Tensor:
                x = self.change(x)
                x = self.conv(x).mean((2, 3)) if float(x.detach().abs().sum()) >= 0 else x
                out: Tensor = self.head(x)
                return out

        model = nets.wrap(Net(change).eval(), 12)
        assert model.graph is None and model.trunk == trunk


@pytest.mark.slow
def test_blocks_of_timms_convit_are_its_trunk() -> None:
    pytest.importorskip("timm")
    model = circuits.load("timm/convit_tiny", weights="random")
    assert model.graph is None
    assert model.trunk == ["pos_drop", *(f"blocks.{n}" for n in range(11)), "norm", "head"]
    model.module.requires_grad_(False)
    images = torch.rand(1, 3, 224, 224)
    for name in model.trunk:
        assert is_crossed(model.module, name, images), name


def test_patches_alone_are_read_where_attention_follows() -> None:
    model = nets.wrap(nets.Undecided(nets.randomized(Patches())).eval(), 40)
    assert model.trunk == ["inner.patch", "inner.end"]
