from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import circuits
from circuits.attribution.kernel_composition import source_window
from circuits.errors import GraphError
from circuits.network.address import Unit
from circuits.network.subnetwork import Segment
from circuits.tracing.ablation import position_contributions
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.baselines import Baseline, Mean, Resample
from circuits.tracing.target import target_of
from tests import nets
from zoo.images.sources import open_images


class Branches(nn.Module):
    """1x1, dilated 3x3 and a pool, joined; then an even kernel with a stride, and a pool that rounds up."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one, self.three = nn.Conv2d(8, 3, 1), nn.Conv2d(8, 3, 3, padding=2, dilation=2)
        self.down = nn.Conv2d(14, 6, 4, stride=2, padding=1)
        self.last, self.valid = nn.Conv2d(6, 5, 3, padding="same"), nn.Conv2d(5, 4, (1, 3), stride=(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(torch.cat([self.one(x), self.three(x), F.max_pool2d(x, 3, 1, 1)], dim=1))
        x = F.max_pool2d(torch.relu(self.down(x)), 3, 2, ceil_mode=True)
        x = torch.relu(self.last(F.local_response_norm(x, 3)))
        return torch.relu(self.valid(F.pad(x, (-1, 2, 0, 1))))


class Placed(nn.Module):
    """Adds a constant map, which differs by position, and scales by the mean of the whole map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.place = nn.Parameter(torch.randn(1, 3, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x)) + self.place))
        return torch.relu(self.third(x * x.mean((2, 3), keepdim=True)))


@pytest.mark.parametrize("size", [(39, 46), (48, 33)])
def test_a_window_gives_at_every_position_what_the_whole_map_gives(size: tuple[int, int]) -> None:
    model, images = nets.wrap(nets.randomized(Branches()), size), nets.pictures(1, size)
    tried = 0
    for source, target in combinations(model.layers, 2):
        for channel in (0, model.layers[target].channels - 1):
            try:
                segment = Segment(model, source, Unit(target, channel), pre=True)
                window = source_window(segment)
            except GraphError:  # a branch does not come before the next one
                continue
            if window is None:
                continue
            with torch.no_grad():
                acts, context = segment.begin(images)
                whole = segment.respond(acts, context)[0, 0]
                positions = [(y, x) for y in range(whole.shape[0]) for x in range(whole.shape[1])]
                crops = window.crops(acts, positions, images=[0] * len(positions))
                out = segment.respond(crops, {})[:, 0]
            here = torch.stack([out[i, y, x] for i, (y, x) in enumerate(map(window.within, positions))])
            assert crops[0, 0].numel() < acts[0, 0].numel()
            torch.testing.assert_close(here, whole.flatten(), rtol=1e-4, atol=1e-5)
            tried += 1
    assert tried > 20


def test_what_a_window_alone_does_not_give_has_none() -> None:
    model = nets.wrap(nets.randomized(Placed()))
    first, second, third = (next(n for n in model.layers if n.startswith(k)) for k in ("relu", "relu_1", "relu_2"))
    assert source_window(Segment(model, first, Unit(second, 0))) is None
    assert source_window(Segment(model, second, Unit(third, 0))) is None


@pytest.mark.parametrize("baseline", [Mean(), Mean(per_position=True), Resample(seed=0)])
def test_contributions_of_windows_are_those_of_whole_maps(baseline: Baseline, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = nets.wrap(nets.randomized(nets.tiny_inception()), 128), nets.pictures(6, 128)
    source, target = next((a, b) for a, b in zip(model.trunk, model.trunk[1:], strict=False) if b.startswith("mixed4a"))
    unit = circuits.Unit(target, model.layers[target].channels - 1, model.name)
    size = model.layers[target].size
    assert size is not None
    positions = [(i % size[0], (2 * i) % size[1]) for i in range(5)] + [(size[0] - 1, size[1] - 1)]
    ablation = Ablation(model, target_of(model, unit), [source], open_images(images), baseline)
    others = None if isinstance(baseline, Mean) else images.flip(0)
    segment = Segment(model, source, unit, pre=True)
    assert source_window(segment) is not None and bool(ablation.pools[source]) == isinstance(baseline, Mean)
    by_windows = position_contributions.contributions_at(ablation, segment, images, others, positions, 4)
    monkeypatch.setattr(position_contributions, "source_window", lambda _: None)
    whole = position_contributions.contributions_at(ablation, segment, images, others, positions, 4)
    for ours, theirs in zip(by_windows, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
