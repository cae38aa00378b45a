"""Facts behind the figures of Zoom In, High-Low Frequency Detectors and Branch Specialization."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from apps.figures.analysis.arc_fit import arc_fit
from apps.figures.analysis.mirror_pairs import mirrors
from apps.figures.analysis.texture_side import fine_side
from apps.figures.context import FigureContext, NotApplicable, Settings
from apps.figures.figure import Claim, FigureResult
from apps.figures.helpers import unit_roles
from apps.figures.scripts.circuits_thread.zoom_in import car, curve_weights, dogs, families
from circuits import InputSpec, wrap
from circuits.errors import AddressError, CircuitsError

Draw = Callable[[str], FigureResult]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FigureContext]:
    settings = Settings(effort="test")
    yield FigureContext(settings, tmp_path_factory.mktemp("figures") / settings.digest)


@pytest.fixture(scope="module")
def draw(context: FigureContext) -> Draw:
    """Each figure made once for all tests."""
    scripts = {
        "car": car.draw,
        "curves": families.curves,
        "dog": dogs.unit,
        "dogs": dogs.circuit,
        "patch": curve_weights.patch,
    }
    return cache(lambda name: scripts[name](context))


def claim(result: FigureResult, start: str) -> Claim:
    matching = [c for c in result.claims if c.statement.startswith(start)]
    assert len(matching) == 1, [c.statement for c in result.claims]
    return matching[0]


# -- facts of scenes ----------------------------------------------------------------------------------------------


def test_wheels_excite_the_car_unit_from_below_the_windows(draw: Draw) -> None:
    wheels = claim(draw("car"), "wheels excite")
    assert wheels.holds and wheels.value > wheels.control


def test_the_dog_unit_has_one_input_for_each_direction(draw: Draw) -> None:
    result = draw("dogs")
    labels = set(result.numbers["names"].values())
    assert {name.partition(" ")[0] for name in labels} == {"dog_left", "dog_right"}
    assert claim(result, "each separates one direction").value > 0.8
    assert claim(result, "both units excite").holds


def test_mirroring_affects_the_dog_unit_less_than_other_units(draw: Draw) -> None:
    result = draw("dog")
    assert claim(result, "mirrored dogs").holds
    assert claim(result, "it separates dogs").value > 0.95


def test_where_too_few_are_curve_detectors_the_caption_states_it(draw: Draw) -> None:
    result = draw("curves")
    assert result.numbers["passed"] < len(result.numbers["units"])
    assert "none passes" in result.caption or "only" in result.caption


def test_no_published_unit_is_printed_on_another_network(context: FigureContext, draw: Draw) -> None:
    assert not context.published
    for name in ("car", "dogs", "patch"):
        result = draw(name)
        text = result.caption + json.dumps(result.numbers, default=str)
        for number in ("mixed4c:447", "mixed4b:418", "mixed3b:379", "mixed4e:55", "mixed3a:110"):
            assert re.search(rf"{number}\b", text) is None


def test_a_role_needs_images_of_its_class(context: FigureContext) -> None:
    with pytest.raises(NotApplicable, match="needs images of zebra"):
        unit_roles.split(context.images, ["zebra"])


def test_the_dogs_of_imagenet_are_118_breeds() -> None:
    breeds = unit_roles.dogs()[2:]
    assert len(breeds) == 118
    assert breeds[0] == "Chihuahua" and breeds[-1] == "Mexican hairless" and "tabby" not in breeds


def test_random_units_exclude_the_units_they_are_compared_with(context: FigureContext) -> None:
    units = unit_roles.random_units(context, "mixed4b", 39, but=["scenes/mixed4b:3"])
    assert len(set(units)) == 39 and "scenes/mixed4b:3" not in units


# -- mirrored units -----------------------------------------------------------------------------------------------


def leaning() -> nn.Module:
    """Four units: an edge that faces left, plain light, the edge mirrored, and a horizontal edge."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()).eval()
    edge = torch.tensor([[1.0, 0.0, -1.0]]).expand(3, 3)
    kernels = torch.stack([edge, torch.ones(3, 3) / 9, edge.flip(-1), edge.T])
    with torch.no_grad():
        net[0].weight.copy_(kernels[:, None])  # type: ignore[operator]
        net[0].bias.copy_(torch.tensor([0.0, 0.0, 0.0, -0.1]))  # type: ignore[operator]
    return net


@pytest.fixture(scope="module")
def halves() -> torch.Tensor:
    """Pictures with a bright half to one side, ramps towards it, at random contrast: edges of one direction each."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 1, 12)[None, None, None].expand(1, 1, 12, 12)
    images = []
    for i in range(24):
        contrast = 0.2 + 0.8 * float(torch.rand(1, generator=generator))
        image = 0.5 + (ramp - 0.5) * contrast
        images.append(image.flip(-1) if i % 3 else image)
    return torch.cat(images)


def test_planted_mirror_pairs_are_the_only_pairs(halves: torch.Tensor) -> None:
    model = wrap(leaning(), InputSpec(size=12, channels=1), name="leaning")
    mirrored = mirrors(model, list(model.layers)[-1], halves)
    assert [pair[:2] for pair in mirrored.pairs()] == [(0, 2)]
    assert mirrored.swapped[0, 2] == pytest.approx(1.0)
    assert mirrored.retained[0] == pytest.approx(0.0, abs=1e-6)
    assert mirrored.retained[1] == pytest.approx(1.0)


def test_a_unit_that_never_fires_has_no_counterpart(halves: torch.Tensor) -> None:
    model = wrap(leaning(), InputSpec(size=12, channels=1), name="leaning")
    mirrored = mirrors(model, list(model.layers)[-1], halves)
    assert np.isnan(mirrored.retained[3])
    assert mirrored.pairs(among=[0, 1, 3]) == []


def test_mirrors_refuse_what_they_cannot_compare(halves: torch.Tensor) -> None:
    model = wrap(leaning(), InputSpec(size=12, channels=1), name="leaning")
    layer = list(model.layers)[-1]
    with pytest.raises(CircuitsError, match="at least 8 images"):
        mirrors(model, layer, halves[:4])
    with pytest.raises(AddressError, match="in a layer"):
        mirrors(model, f"{layer}:1", halves)


# -- textures and kernels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", [0.0, 90.0, 135.0, 250.0])
def test_the_finer_side_does_not_depend_on_contrast(orientation: float) -> None:
    from circuits import stimuli

    image = stimuli.high_low([orientation], (4.0,), samples=1).tensor(InputSpec(size=64))[0].permute(1, 2, 0).numpy()
    octaves = fine_side(image, orientation)
    assert octaves > 0.8  # wavelengths two octaves apart, cut off in the coarse half
    assert fine_side(image, orientation + 180) == pytest.approx(-octaves)
    assert fine_side(0.5 + 0.1 * (image - 0.5), orientation) == pytest.approx(octaves)


def test_fine_side_refuses_what_has_no_halves() -> None:
    with pytest.raises(CircuitsError, match="8 by 8"):
        fine_side(np.zeros((4, 4)), 0)


def test_a_kernel_drawn_as_an_arc_fits_its_own_orientation_best() -> None:
    kernel = np.zeros((5, 5))
    for y, x in ((0, 3), (1, 2), (2, 1), (3, 2), (4, 3)):
        kernel[y, x] = 1.0  # "(": open to the right
    fit = arc_fit(kernel, 0.0, steps=4)
    assert int(fit.by_orientation.argmax()) == 0
    assert fit.own > 0.6 > 0.2 > fit.by_orientation[2]
    assert arc_fit(np.rot90(kernel), 90.0).own == pytest.approx(fit.own)
    with pytest.raises(CircuitsError, match="3 by 3"):
        arc_fit(np.ones((1, 1)), 0.0)
