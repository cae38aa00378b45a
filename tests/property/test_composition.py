"""Whatever stack of linear operations is drawn: exact composition, differentiation and the network itself agree."""

from __future__ import annotations

import copy

import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import Tensor, nn

import circuits
from tests import nets

SIZE = 23


@st.composite
def stacks(draw: st.DrawFn) -> nn.Sequential:
    """One to four operations on 4 channels, so that any may follow any."""
    parts: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["conv", "pointwise", "relu", "max", "mean", "norm", "pad", "branch"]))
        if kind == "conv":
            k, dilation = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2]))
            stride, padding = draw(st.sampled_from([1, 1, 2])), draw(st.integers(0, 2))
            parts.append(nn.Conv2d(4, 4, k, stride, padding, dilation, groups=draw(st.sampled_from([1, 2, 4]))))
        elif kind == "pointwise":
            parts.append(nn.Conv2d(4, 4, 1))
        elif kind == "relu":
            parts.append(nn.ReLU())
        elif kind in ("max", "mean"):
            k, stride = draw(st.sampled_from([(2, 2), (3, 2), (3, 1)]))
            padding, ceil = draw(st.integers(0, 1)), draw(st.booleans())
            parts.append((nn.MaxPool2d if kind == "max" else nn.AvgPool2d)(k, stride, padding, ceil_mode=ceil))
        elif kind == "norm":
            parts.append(nn.BatchNorm2d(4))
        elif kind == "pad":
            parts.append(nn.ZeroPad2d(tuple(draw(st.integers(0, 2)) for _ in range(4))))  # type: ignore[arg-type]
        else:
            parts.append(nn.Sequential(nets.Branches(4), nn.Conv2d(9, 4, 1)))
    # the stem is a convolution and the middle starts with one: a pool right behind the source would move the start
    return nn.Sequential(nn.Conv2d(4, 4, 1), *parts)


class Framed(nn.Module):
    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.middle(self.stem(x))
        return out


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(stacks())
def test_exact_composition_equals_differentiation_and_the_linearized_network(middle: nn.Sequential) -> None:
    model = nets.wrap(nets.randomized(Framed(middle)).double(), SIZE)
    exact = circuits.expanded_weights(model, source="stem", target="middle", method="exact")
    vjp = circuits.expanded_weights(model, source="stem", target="middle", method="vjp")
    assert (exact.offset, exact.stride) == (vjp.offset, vjp.stride)
    torch.testing.assert_close(exact.kernels, vjp.kernels, rtol=1e-9, atol=1e-12)

    linear = nets.linearize(copy.deepcopy(model.module.middle))
    generator = torch.Generator().manual_seed(0)
    acts = torch.randn(1, 4, 40, 40, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        moved = linear(acts) - linear(torch.zeros_like(acts))
    y, x = moved.shape[2] // 2, moved.shape[3] // 2
    patch = exact.patches(acts, [(y, x)])[0]
    torch.testing.assert_close((exact.kernels * patch).sum(dim=(1, 2, 3)), moved[0, :, y, x], rtol=1e-8, atol=1e-10)
