"""Values that bypass the source go with their own images, however their axes are laid out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import circuits
from circuits.attribution.contributions import upstream
from tests.nets import pictures, randomized, wrap


class Gated(nn.Module):
    """A layer multiplied by gates that bypass it: windows of all images in one axis, weights, or a batch size."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.source = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.gate = nn.Conv2d(3, 4, 3, padding=1)
        self.target = nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.ReLU())
        self.table = nn.Parameter(torch.randn(7, 4))

    def forward(self, x: Tensor) -> Tensor:
        side = torch.sigmoid(self.gate(x))
        maps = self.source(x)
        if self.kind == "windows":
            gated = _windows(maps) * _windows(side)
            maps = gated.reshape(-1, 4, 4, 4, 4, 4).permute(0, 5, 1, 3, 2, 4).reshape(-1, 4, 16, 16)
        elif self.kind == "weights":
            maps = maps * torch.sigmoid(self.table)[3].view(1, 4, 1, 1) * side
        else:
            maps = (maps * side).view(x.shape[0], 4, -1).view(x.shape[0], 4, 16, 16)
        return self.target(maps)


def _windows(maps: Tensor) -> Tensor:
    """`(N, 4, 16, 16)` as `(N * 16, 4, 4, 4)`, channels last."""
    return maps.reshape(-1, 4, 4, 4, 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, 4, 4)


@pytest.mark.parametrize("kind", ["windows", "weights", "batch size"])
def test_contributions_are_gradient_times_activation_on_the_same_image(kind: str) -> None:
    model, images = wrap(randomized(Gated(kind))), pictures(6)
    assert model.graph is not None
    for entry in upstream(model, ["target:0", "target:3"], images, source="source", deeper=None, n=4):
        unit = circuits.Unit.parse(entry.unit).index or 0
        for example, parents in zip(entry.examples, entry.parents, strict=True):
            image = images[example.image][None]
            maps: list[Tensor] = []
            handle = model.module.source.register_forward_hook(lambda m, i, out, maps=maps: maps.append(out))  # type: ignore[union-attr, operator]
            before = model.module.get_submodule("target.0").register_forward_hook(lambda m, i, out: maps.append(out))  # type: ignore[func-returns-value] # noqa: B023
            model.module(model.input.normalize(image))
            handle.remove()
            before.remove()
            y, x = example.position
            gradient = torch.autograd.grad(maps[1][0, unit, y, x], maps[0])[0]
            torch.testing.assert_close(torch.from_numpy(parents), (gradient * maps[0]).sum((0, 2, 3)).detach())


@pytest.mark.parametrize("kind", ["windows", "weights", "batch size"])
@pytest.mark.parametrize("count", [1, 3])
def test_drops_of_ablation_are_those_of_a_forward_pass_with_the_channel_at_zero(kind: str, count: int) -> None:
    model, images = wrap(randomized(Gated(kind))), pictures(count)
    values = circuits.attribute(model, images, source="source", target="target.0:0@8,8", method="ablation")
    acts = circuits.capture(model, images, at=["source", "target.0"])
    channel = 2
    maps = acts["source"].clone()
    maps[:, channel] = 0
    handle = model.module.source.register_forward_hook(lambda *_: maps)  # type: ignore[union-attr, operator]
    after = circuits.capture(model, images, at=["target.0"])["target.0"]
    handle.remove()
    torch.testing.assert_close(values.units[:, channel], (acts["target.0"] - after)[:, 0, 8, 8])
