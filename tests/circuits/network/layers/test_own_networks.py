"""Networks as users write them: names, class scores and activations are those of plain PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import circuits
from circuits.attribution.attribute import attribute
from circuits.errors import AddressError, GraphError


class Block(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.ln1, self.attn, self.ln2 = nn.LayerNorm(d), nn.MultiheadAttention(d, 2, batch_first=True), nn.LayerNorm(d)
        self.mlp = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln1(x)
        y, _ = self.attn(y, y, y)
        x = x + y
        return x + self.mlp(self.ln2(x))


class Transformer(nn.Module):
    """Asks for `len(x)`, which torch.fx refuses."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, d, 8, 8), nn.Parameter(torch.randn(1, 1, d))
        self.blocks, self.head = nn.ModuleList(Block(d) for _ in range(2)), nn.Linear(d, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


def test_a_forward_that_asks_for_the_number_of_images_has_a_graph() -> None:
    torch.manual_seed(0)
    net = Transformer().eval()
    model = circuits.wrap(net, circuits.InputSpec(size=16), name="own")
    assert model.graph is not None and {"patch", "blocks.0", "blocks.1", "head"} <= set(model.trunk)
    assert "len" not in globals()
    images, seen = torch.rand(3, 3, 16, 16), {}  # not as many as it was traced with
    for name in ("blocks.0", "blocks.1.mlp.1", "head"):
        net.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        net(images)
    acts = circuits.capture(model, images, at=[*seen, "blocks.0.cls"])
    for name in ("blocks.0", "blocks.1.mlp.1"):
        assert torch.equal(acts[name].flatten(2), seen[name][:, 1:].transpose(1, 2))
    assert torch.equal(acts["blocks.0.cls"][:, :, 0, 0], seen["blocks.0"][:, 0])
    assert torch.equal(acts["head"][:, :, 0, 0], seen["head"])


class Sound(nn.Module):
    """Of sequences, with a recurrent layer whose steps come first or second."""

    def __init__(self, kind: str, batch_first: bool, state: bool) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv1d(1, 6, 5, stride=2), nn.Linear(4, 3)
        self.rnn = getattr(nn, kind)(6, 4, batch_first=batch_first, num_layers=2)
        self.batch_first, self.state = batch_first, state

    def after(self, x: Tensor) -> Tensor:
        out, state = self.rnn(torch.relu(x).permute(*((0, 2, 1) if self.batch_first else (2, 0, 1))))
        last = out[:, -1] if self.batch_first else out[-1]
        return self.fc((state[0] if isinstance(state, tuple) else state)[-1] if self.state else last)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.conv(x))


@pytest.mark.parametrize(
    ("kind", "batch_first", "state"),
    [("GRU", True, False), ("GRU", False, True), ("LSTM", True, True), ("LSTM", False, False), ("RNN", True, False)],
)
def test_what_follows_a_recurrent_layer_is_read_and_attributed(kind: str, batch_first: bool, state: bool) -> None:
    torch.manual_seed(0)
    net = Sound(kind, batch_first, state).eval()
    model = circuits.wrap(net, circuits.InputSpec(size=(32,), channels=1), name="sound")
    waves = torch.rand(3, 1, 32)
    assert model.logits == "fc"
    with torch.no_grad():  # where torch runs another kernel
        assert torch.equal(circuits.capture(model, waves, at=["fc"])["fc"][:, :, 0, 0], net(waves))
    leaf = net.conv(waves).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.after(leaf)[:, 1].sum(), leaf)
    values = attribute(model, waves, source="conv", target="fc:1").values
    torch.testing.assert_close(values[:, :, 0], gradient * leaf.detach())


class Branching(nn.Module):
    """Goes another way on what torch.fx traces with, which is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x) if isinstance(x, Tensor) else self.second(x))
        return self.head(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def test_a_branch_that_only_tracing_takes_is_not_taken_for_the_network() -> None:
    torch.manual_seed(0)
    net = Branching().eval()
    model = circuits.wrap(net, circuits.InputSpec(size=8), name="branching")
    images = torch.rand(2, 3, 8, 8)
    assert "first" in model.layers and "second" not in model.layers
    with torch.no_grad():
        assert torch.equal(circuits.capture(model, images, at=["head"])["head"][:, :, 0, 0], net(images))
    leaf = net.first(images).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.head(torch.relu(leaf).mean(dim=(2, 3)))[:, 1].sum(), leaf)
    values = attribute(model, images, source="first", target="head:1").values
    torch.testing.assert_close(values, gradient * leaf.detach())


class Encoder(nn.Module):
    """Gives an embedding of length one, and the map that it was made from."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3, 2), nn.Linear(6 * 9, 5)

    def after(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(self.fc(torch.flatten(x, 1)), dim=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = nn.functional.gelu(self.conv(x))
        return self.after(x), x


def test_an_embedding_that_is_normalized_is_attributed_but_not_by_weights() -> None:
    torch.manual_seed(0)
    net = Encoder().eval()
    model = circuits.wrap(net, circuits.InputSpec(size=8), name="pairs", output=0)
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(circuits.capture(model, images, at=["logits"])["logits"][:, :, 0, 0], net(images)[0])
    leaf = nn.functional.gelu(net.conv(images)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.after(leaf)[:, 2].sum(), leaf)
    values = attribute(model, images, source="gelu", target="logits:2").values
    torch.testing.assert_close(values, gradient * leaf.detach())
    with pytest.raises(GraphError, match=r"'normalize', which has no linear form; method='grad\*act' needs no weights"):
        attribute(model, images, source="gelu", target="logits:2", method="weight*act")


@pytest.mark.parametrize("rectifier", [nn.LeakyReLU(0.1), nn.ReLU()])
def test_class_maps_that_end_in_a_rectifier_are_those_that_the_network_gives(rectifier: nn.Module) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), rectifier).eval()
    model = circuits.wrap(net, circuits.InputSpec(size=12), name="maps")
    images = torch.rand(2, 3, 12, 12)
    assert model.logits == "3" and torch.equal(circuits.capture(model, images, at=["logits"])["logits"], net(images))


class Wrapper(nn.Module):
    """As a module of a training library: the network is one of its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))

    def forward(self, x: Tensor) -> Any:
        return self.model(x)


def test_every_name_of_the_layer_of_class_scores_has_the_classes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = circuits.wrap(Wrapper().eval(), circuits.InputSpec(size=8), name="lit", classes=["cat", "dog"])
    scan = circuits.scan(model, torch.rand(6, 3, 8, 8), tmp_path)
    indices = {model.unit(address).index for address in ("logits:dog", "model:dog", "lit/model.3:dog")}
    assert indices == {1} and "model.3" in scan.layers
    for address in ("logits:dog", "model:1", "model.3:dog"):  # the scan has one of the names
        assert circuits.explain(model, address, scan).unit == "lit/model.3:1"
    with pytest.raises(AddressError, match="write logits:dog"):
        model.unit("model.1:dog")
