"""Networks without kernels between their layers, or that torch.fx reads only in part: traced where that needs none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

import circuits
from circuits.errors import AddressError, CircuitsError, GraphError, ModelError

SPEC = circuits.InputSpec(size=24)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 3, 24, 24, generator=torch.Generator().manual_seed(1))


class Gated(nn.Module):
    """Squeeze and excitation between the source and the target."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.gate, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 3, padding=1)

    def rest(self, h: Tensor) -> Tensor:
        return self.c(h * torch.sigmoid(self.gate(h.mean((2, 3), keepdim=True))))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.rest(F.relu(self.a(x))))


class Normalized(Gated):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 8)

    def rest(self, h: Tensor) -> Tensor:
        return self.c(self.norm(h))


class Upsampled(Gated):
    def rest(self, h: Tensor) -> Tensor:
        return self.c(F.interpolate(F.avg_pool2d(h, 2), scale_factor=2, mode="nearest"))


class Transposed(Gated):
    """A transposed convolution, which reads its source differently from position to position."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(8, 6, 3, stride=2, padding=1), nn.ConvTranspose2d(6, 8, 2, stride=2)

    def rest(self, h: Tensor) -> Tensor:
        return self.c(self.up(self.down(h)))


class UNet(Gated):
    """An encoder and a decoder that also reads the encoder's maps."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(8, 6, 3, stride=2, padding=1), nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.c = nn.Conv2d(12, 4, 3, padding=1)

    def rest(self, h: Tensor) -> Tensor:
        return self.c(torch.cat([h, F.relu(self.up(F.relu(self.down(h))))], dim=1))


@pytest.mark.parametrize("kind", [Gated, Normalized, Upsampled, Transposed, UNet])
def test_attribution_and_ablation_need_no_kernels(kind: type[Gated], images: Tensor) -> None:
    net = kind().eval()
    with torch.no_grad():
        net.c.bias += 1.0
    model = circuits.wrap(net, input=SPEC)
    target = f"{model.trunk[-1]}:0"
    with pytest.raises(GraphError):
        circuits.trace(model, target, images=images, layers=["relu"], by="weights")
    traced = circuits.trace(model, target, images=images, layers=["relu"], width=8, by="attribution")
    acts = F.relu(net.a(images)).detach().requires_grad_(True)
    response = net.rest(acts)[:, 0].flatten(1)
    (gradient,) = torch.autograd.grad(response.amax(dim=1).sum(), acts)
    right = (gradient * acts).detach().sum(dim=(2, 3)).mean(dim=0)
    slopes = gradient.sum(dim=(2, 3)).mean(dim=0)
    assert len(traced.edges) == 8
    for edge in traced.edges:
        channel = int(edge.source.rpartition(":")[2])
        assert edge.strength == pytest.approx(float(right[channel]), rel=1e-4, abs=1e-6)
        assert edge.kernel.shape == (1, 1) and edge.weight == pytest.approx(float(slopes[channel]), rel=1e-3, abs=1e-5)
    ablated = circuits.trace(model, target, images=images, layers=["relu"], width=8, by="ablation")
    means = acts.detach().mean(dim=(0, 2, 3))
    peaks = response.argmax(dim=1)
    for edge in ablated.edges:
        channel = int(edge.source.rpartition(":")[2])
        changed = acts.detach().clone()
        changed[:, channel] = means[channel]
        with torch.no_grad():
            drop = (response - net.rest(changed)[:, 0].flatten(1))[torch.arange(6), peaks].mean()
        assert edge.strength == pytest.approx(float(drop), rel=1e-3, abs=1e-5)
    deep = circuits.trace(model, target, images=images, layers=["relu", "a"], depth=2, by="attribution", width=2)
    assert {node.depth for node in deep.nodes} == {0, 1, 2} or len(deep.nodes) >= 3
    options: dict[str, Any] = {"images": images, "by": "attribution", "width": 2}
    assert circuits.trace(model, target, layers=["relu", "a"], **options) == deep, "through all layers that are named"
    for layers, message in ((["a", "relu"], "relu is not before a"), (["relu", "relu"], "relu is not before relu")):
        with pytest.raises(AddressError, match=f"{message}: a trace goes back through earlier layers"):
            circuits.trace(model, target, layers=layers, **options)


class Inline(nn.Module):
    """Modules that are made in the forward."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c1, self.c2, self.c3 = (nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 6), (6, 5), (5, 4)))

    def forward(self, x: Tensor) -> Tensor:
        return self.c3(nn.ReLU()(self.c2(nn.ReLU(inplace=True)(self.c1(x)))))


def test_modules_made_in_the_forward_are_traced_as_functions(images: Tensor) -> None:
    net = Inline().eval()
    with torch.no_grad():
        net.c3.bias += 1.0
    model = circuits.wrap(net, input=SPEC)
    assert model.trunk == ["relu", "relu_1", "c3"]
    acts = circuits.capture(model, images, at=["c1", "relu", "relu_1"])
    with torch.no_grad():
        torch.testing.assert_close(acts["c1"], net.c1(images))
        torch.testing.assert_close(acts["relu_1"], F.relu(net.c2(F.relu(net.c1(images)))))
        kernels = circuits.expanded_weights(model, source="relu", target="c2:0").kernels
        torch.testing.assert_close(kernels[0], net.c2.weight[0])
        with circuits.edit(model, [circuits.Ablate("relu:2")]):
            edited = model(images)
        hidden = F.relu(net.c1(images))
        hidden[:, 2] = 0
        torch.testing.assert_close(edited, net.c3(F.relu(net.c2(hidden))))
    assert {e.source.rpartition(":")[0] for e in circuits.trace(model, "c3:0", images=images).edges} == {"model/relu_1"}


class EarlyExit(nn.Module):
    """Takes another way when its activations are weak, as they are in the linearized network."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.exit, self.head = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)
        with torch.no_grad():
            self.a.weight.abs_()
            self.a.bias.copy_(torch.tensor([-12.0, 0, 0, 0, 0, 0, 0, 0]))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        if float(h.detach().mean()) < 0.05:
            return self.exit(h)
        return self.head(F.relu(self.b(h)))


def test_a_network_that_branches_on_its_activations_is_wrapped_and_read(images: Tensor) -> None:
    net = EarlyExit().eval()
    model = circuits.wrap(net, input=SPEC)
    assert list(model.layers) == ["a", "b", "head"] and model.layers["b"].receptive_field is None
    right = net.b(F.relu(net.a(images))).detach()
    torch.testing.assert_close(circuits.capture(model, images, at="b")["b"], right)
    with pytest.raises(CircuitsError, match="did not run"):
        circuits.capture(model, torch.zeros(1, 3, 24, 24), at="b")
    with pytest.raises(CircuitsError, match="takes another branch.*by='attribution', which needs no kernels"):
        circuits.trace(model, "head:0", images=images, by="weights")
    assert model.trunk == ["a", "b", "head"]
    traced = circuits.trace(model, "head:0", images=images, by="attribution", width=8)
    acts = net.b(F.relu(net.a(images))).detach().requires_grad_(True)
    response = net.head(F.relu(acts))[:, 0].flatten(1)
    response.max(dim=1).values.sum().backward()
    assert acts.grad is not None
    expected = (acts.grad * acts.detach()).sum((2, 3))[response.amax(1) > 0].mean(0)
    for edge in traced.edges:
        index = circuits.Unit.parse(edge.source).index
        assert index is not None and edge.strength == pytest.approx(float(expected[index]), rel=1e-3, abs=1e-5)


def test_a_gate_without_a_graph_is_traced_by_attribution(images: Tensor) -> None:
    class Untraced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.act, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.GroupNorm(2, 8)
            self.c = nn.Conv2d(8, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.c(self.norm(self.act(self.a(x))))
            return out if float(out.detach().abs().sum()) > 0 else x

    net = Untraced().eval()
    model = circuits.wrap(net, input=SPEC)
    assert model.graph is None
    with pytest.raises(GraphError, match="no linear form"):
        circuits.trace(model, "c:1", images=images, layers=["act"], by="weights")
    traced = circuits.trace(model, "c:1", images=images, layers=["act"], width=8, by="attribution", n_positions=6)
    acts = net.act(net.a(images)).detach().requires_grad_(True)
    response = net.c(net.norm(acts))[:, 1].flatten(1)
    response.max(dim=1).values.sum().backward()
    assert acts.grad is not None
    expected = (acts.grad * acts.detach()).sum((2, 3))[response.amax(1) > 0].mean(0)
    strengths = {circuits.Unit.parse(e.source).index: e.strength for e in traced.edges}
    assert len(strengths) == int((expected != 0).sum())
    for index, strength in strengths.items():
        assert index is not None
        torch.testing.assert_close(strength, float(expected[index]), rtol=1e-4, atol=1e-6)
    with pytest.raises(GraphError, match="no path"):
        circuits.trace(model, "a:1", images=images, layers=["norm"], by="attribution")


class Checkpointed(nn.Module):
    """A network whose middle runs again when a gradient is asked for; `untraced` keeps torch.fx out."""

    def __init__(self, reentrant: bool | None, untraced: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = (nn.Conv2d(n, m, 3, padding=1) for n, m in ((3, 8), (8, 8), (8, 4)))
        self.act, self.reentrant, self.untraced = nn.ReLU(), reentrant, untraced

    def middle(self, h: Tensor) -> Tensor:
        out: Tensor = self.act(self.b(h))
        return out

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        if self.reentrant is None:
            h = self.middle(h)
        else:
            h = torch.utils.checkpoint.checkpoint(self.middle, h, use_reentrant=self.reentrant)
        out: Tensor = self.c(h)
        return out if not self.untraced or float(out.detach().abs().sum()) >= 0 else x


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_or_is_refused(reentrant: bool, images: Tensor) -> None:
    plain = circuits.wrap(Checkpointed(None, False).eval(), input=SPEC, name="net")
    model = circuits.wrap(Checkpointed(reentrant, False).eval(), input=SPEC, name="net")
    for of in (plain, model):
        assert of.graph is not None
    for at in ("b", "act", "c"):
        assert torch.equal(circuits.capture(model, images, at=at)[at], circuits.capture(plain, images, at=at)[at])
    for source, target in (("input", "act:1"), ("a", "c:2"), ("b", "c:1"), ("act", "c:3")):
        mine, right = (circuits.attribute(of, images, source=source, target=target).values for of in (model, plain))
        torch.testing.assert_close(mine, right)
    with circuits.edit(model, [circuits.Ablate("b:2")]), circuits.edit(plain, [circuits.Ablate("b:2")]):
        mine, right = (circuits.attribute(of, images, source="a", target="c:2").values for of in (model, plain))
    torch.testing.assert_close(mine, right)
    mine_, right_ = (circuits.trace(of, "c:1", images=images, by="attribution", width=4) for of in (model, plain))
    assert [(e.source, e.strength) for e in mine_.edges] == [(e.source, e.strength) for e in right_.edges]
    with pytest.raises(ModelError, match="checkpoints gradients.*Turn it off"):
        circuits.wrap(Checkpointed(reentrant, True).eval(), input=SPEC)
