"""Curves of rankings that are the user's own, and the ends of what `smallest` takes."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import circuits


@pytest.fixture(scope="module")
def model() -> circuits.Model:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 3)).eval()
    return circuits.wrap(net, input=circuits.InputSpec(size=10, channels=1), name="own")


def images() -> torch.Tensor:
    return torch.rand(8, 1, 10, 10, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("units", [(), ("1:0", "1:3"), ("1:0",) * 6, tuple(f"1:{c}" for c in (0, 1, 2, 3, 4, 4))])
def test_a_ranking_that_lacks_units_is_refused(model: circuits.Model, units: tuple[str, ...]) -> None:
    ranking = circuits.rank(model, "2:0", images=images(), layers="1", method="random")
    with pytest.raises(circuits.CircuitsError, match="each of the 6 units of 1 once"):
        circuits.size_curve(model, replace(ranking, units=units), random=0)


def test_everything_can_be_kept(model: circuits.Model) -> None:
    small = circuits.smallest(model, "2:0", images=images(), layers="1", keep=1, steps=3)
    assert small.found_share == pytest.approx(1)


def test_smallest_needs_images_to_try_it_on(model: circuits.Model) -> None:
    with pytest.raises(circuits.CircuitsError, match="leaves none of 8 images"):
        circuits.smallest(model, "2:0", images=images(), layers="1", share=1.0, steps=3)


@pytest.mark.parametrize("layer", ["2", "1"])
def test_units_that_run_no_earlier_than_the_target_are_no_sources(model: circuits.Model, layer: str) -> None:
    with pytest.raises(circuits.CircuitsError, match=f"{layer} is not before 1"):
        circuits.rank(model, "1:0", images=images(), layers=layer)


class Beside(nn.Module):
    """A response that reads the image beside a layer, and the layer with weights of zero."""

    def __init__(self) -> None:
        super().__init__()
        self.units, self.beside, self.scores = nn.Conv2d(1, 3, 3), nn.Conv2d(1, 2, 3), nn.Conv2d(3, 2, 1)
        nn.init.zeros_(self.scores.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.scores(self.units(x)) + self.beside(x)
        return scores.mean((2, 3))


def test_a_target_that_does_not_depend_on_the_units_is_refused() -> None:
    beside = circuits.wrap(Beside().eval(), input=circuits.InputSpec(size=10, channels=1), name="beside")
    with pytest.raises(circuits.CircuitsError, match="does not depend on them on these images"):
        circuits.rank(beside, lambda out: out[:, 0], images=images(), layers="units", method="gradient")
