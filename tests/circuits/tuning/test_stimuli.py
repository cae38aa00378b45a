"""Stimuli: smooth, about the model's gray, turned the way the convention says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from circuits import stimuli
from circuits.stimuli import Axis, StimuliError, gray
from zoo.images.sources import open_images
from zoo.inputs import InputSpec

GREY = InputSpec(size=65, channels=1, mean=(0.5,))
EVERY = [
    stimuli.lines(4), stimuli.lines(4, length=20), stimuli.curves(4, (10,)), stimuli.curves(4, (10,), variant="filled"),
    stimuli.edges(4), stimuli.angle_to_curve(4), stimuli.high_low(4, (1, 4), samples=2),
    stimuli.high_low(4, (4,), texture="grating", samples=1), stimuli.color_contrast(4, ("light-dark",)),
]  # fmt: skip


@pytest.mark.parametrize("stimulus", EVERY, ids=lambda s: s.name)
def test_a_quarter_turn_of_a_stimulus_is_the_stimulus_of_that_orientation(stimulus: stimuli.Stimuli) -> None:
    images = stimulus.tensor(GREY).view(*stimulus.shape, 65, 65)
    quarter = 2 if stimulus.axis("orientation").period == 180 else 1
    turned = torch.rot90(images[0], 1, dims=(-2, -1))  # counter-clockwise as seen
    torch.testing.assert_close(images[quarter], turned, atol=2e-6, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 33.0, 90.0, 201.0])
def test_a_small_turn_changes_no_pixel_by_more_than_the_edge_moves(angle: float) -> None:
    """At 30 pixels from the center one degree is half a pixel: an edge that jumped would change a pixel fully."""
    for turn in (1.0, 0.1):
        result = stimuli.curves((angle, angle + turn), (20,), polarity="light").tensor(GREY)
        most = float((result[0] - result[1]).abs().max())
        assert 0 < most <= 0.5 * math.radians(turn) * 45, (turn, most)


@pytest.mark.parametrize("orientation", [0.0, 10.0, 29.0, 45.0])
def test_a_line_has_the_same_ink_whatever_its_orientation(orientation: float) -> None:
    """A column cuts it along width / cos(orientation), over all ways to lie between the pixels exactly."""
    line = stimuli.lines((orientation,), (3.0,), polarity="light")
    moved = torch.cat([line.tensor(GREY, center=(32 + k / 8, 32)) for k in range(8)])[:, 0, :, 8:57] - 0.5
    ink = moved.sum(dim=1).mean(dim=1) / 0.5
    wanted = 3 / math.cos(math.radians(orientation))
    assert float(ink.mean()) == pytest.approx(wanted, rel=1e-3)
    assert float((ink - wanted).abs().max()) < 0.03 * wanted


def test_the_conventions_of_orientation_are_as_documented() -> None:
    line = stimuli.lines((0, 90, 45), polarity="light").tensor(GREY)[:, 0] - 0.5
    assert line[0, 32].min() > 0.4 and line[1, :, 32].min() > 0.4
    assert line[2, 10, 54] > 0.4 and line[2, 54, 54] == 0  # 45 degrees rises to the right: row 10 is above
    curve = stimuli.curves((0, 90), (15,), polarity="light").tensor(GREY)[:, 0] - 0.5
    assert curve[0, :, 33:].sum() > 5 * curve[0, :, :31].sum()  # opens to the right
    assert curve[1, :31].sum() > 5 * curve[1, 33:].sum()  # opens upwards
    assert curve[0, 32, 32] > 0.4  # its middle lies on the center
    edge = stimuli.edges((90,)).tensor(GREY)[0, 0]
    assert edge[0, 0] > 0.9 and edge[-1, 0] == 0.5
    sides = stimuli.color_contrast((180,), ("red-cyan",)).tensor(InputSpec(size=32))[0]
    assert sides[0, 5, 2] > 0.9 > sides[0, 5, 29]
    fine = stimuli.high_low((0,), (8,), samples=1).tensor(GREY)[0, 0]
    steps = (fine[:, 1:] - fine[:, :-1]).abs()
    assert steps[:, 34:].mean() > 3 * steps[:, :30].mean()


def test_a_straight_curve_is_the_line_that_the_curve_touches() -> None:
    straight = stimuli.curves((20,), (math.inf,), polarity="light").tensor(GREY)
    torch.testing.assert_close(straight, stimuli.lines((110,), polarity="light").tensor(GREY), atol=1e-6, rtol=0)
    wide = stimuli.curves((20,), (1e6,), polarity="light").tensor(GREY)
    torch.testing.assert_close(wide, straight, atol=1e-2, rtol=0)


def test_a_morph_goes_from_a_corner_to_an_arc() -> None:
    result = (
        stimuli.angle_to_curve((0,), (0.0, 0.5, 1.0), turning=90, radius=20, polarity="light").tensor(GREY)[:, 0] - 0.5
    )
    for k in range(3):
        assert result[k, 32, 32] > 0.4  # the corner stays on the center
    arc = stimuli.curves((0,), (20,), arc=89, polarity="light").tensor(GREY)[0, 0] - 0.5
    drawn = arc > 0.45
    assert bool((result[2][drawn] > 0.4).all()) and not bool((result[0][drawn] > 0.4).all())
    on_arms = [result[0, 32 - d, 32 + d] for d in (5, 10, 20)]  # the sharp corner's arms lie on the diagonals
    assert min(on_arms) > 0.4


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (InputSpec(mean=(104.0, 117.0, 123.0), scale=255.0, order="BGR"), [123 / 255, 117 / 255, 104 / 255]),
        (InputSpec(mean=(0.485, 0.456, 0.406)), [0.485, 0.456, 0.406]),
        (InputSpec(), [0.5] * 3),
        (InputSpec(channels=5, mean=(0.3,)), [0.3] * 5),
        (InputSpec(channels=1, mean=(0.05,)), [0.5]),
    ],
)
def test_stimuli_lie_about_the_models_own_gray(spec: InputSpec, wanted: list[float]) -> None:
    np.testing.assert_allclose(gray(spec), wanted)
    small = InputSpec(16, spec.channels, spec.mean, spec.std, spec.scale, spec.order)
    drawn = stimuli.gratings(2, (1 / 8,), 4).tensor(small)
    assert drawn.shape == (8, spec.channels, 16, 16) and drawn.min() >= 0 and drawn.max() <= 1
    # four phases add up to nothing
    np.testing.assert_allclose(drawn[:4].mean(dim=0)[:, 3, 5], wanted, atol=1e-6)
    light, dark = stimuli.lines((0,)).tensor(small)[:, :, 8, 8]
    np.testing.assert_allclose((light + dark) / 2, wanted, atol=1e-6)


def test_contrast_scales_the_departure_from_gray() -> None:
    full, half = (stimuli.circles((5,), contrast=c).tensor(GREY) - 0.5 for c in (1.0, 0.5))
    torch.testing.assert_close(half, full / 2)


def test_hues_differ_in_nothing_but_hue() -> None:
    drawn = stimuli.color_contrast(1).tensor(InputSpec(size=16))
    means = drawn[:-1].mean(dim=1)
    torch.testing.assert_close(means, torch.full_like(means, 0.5), atol=1e-6, rtol=0)
    assert float(drawn[-1].mean(dim=0).std()) > 0.3  # but for light beside dark


def test_stimuli_are_images_like_any_others() -> None:
    result = stimuli.curves(4, (8,), polarity="light")
    opened = open_images(result.tensor(InputSpec(size=32)))
    assert len(opened) == len(result) == 4 and opened.tensor(InputSpec(size=32)).shape == (4, 3, 32, 32)


def test_stimuli_can_be_moved_picked_and_cut_down() -> None:
    result = stimuli.curves(8, (6, 12), polarity="light")
    whole = result.tensor(GREY)
    assert result.values(3) == {"orientation": 45.0, "radius": 12.0, "polarity": "light"}
    torch.testing.assert_close(result.tensor(GREY, indices=[3]), whole[3:4])
    torch.testing.assert_close(result.only(orientation=45, radius=12).tensor(GREY), whole[3:4])
    moved = result.tensor(GREY, indices=[3], center=(22.0, 42.0))
    torch.testing.assert_close(moved[0, :, 5:45, 25:60], whole[3, :, 15:55, 15:50], atol=1e-6, rtol=0)


def test_the_same_seed_draws_the_same_textures_and_the_digest_tells_stimuli_apart() -> None:
    a, b = stimuli.high_low(4, (4,), samples=2, seed=5), stimuli.high_low(4, (4,), samples=2, seed=5)
    assert torch.equal(a.tensor(GREY), b.tensor(GREY)) and a.digest == b.digest
    c = stimuli.high_low(4, (4,), samples=2, seed=6)
    assert not torch.equal(a.tensor(GREY), c.tensor(GREY)) and a.digest != c.digest
    assert stimuli.curves().describe()["axes"][1]["values"][-1] == "straight"


def test_what_counts_as_all_the_way_round() -> None:
    assert stimuli.lines(6).axis("orientation").is_full_circle
    assert not stimuli.lines((0, 10, 20)).axis("orientation").is_full_circle
    assert not Axis("radius", (1.0, 2.0, 3.0)).is_full_circle


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: stimuli.lines(0), "must be a whole number of at least 1"),
        (lambda: stimuli.lines(True), "must be a whole number of at least 1"),
        (lambda: stimuli.lines((0, 0)), "none twice"),
        (lambda: stimuli.lines(4, (0.5,)), "at least 1"),
        (lambda: stimuli.lines(4, length=-1), "above 0"),
        (lambda: stimuli.lines(4, polarity=("bright",)), "use one of .light., .dark."),  # type: ignore[arg-type]
        (lambda: stimuli.curves(4, (-3,)), "above 0"),
        (lambda: stimuli.curves(4, (math.nan,)), "above 0"),
        (lambda: stimuli.curves(4, ()), "at least one"),
        (lambda: stimuli.curves(4, variant="dotted"), "outline"),  # type: ignore[arg-type]
        (lambda: stimuli.curves(4, arc=400), "360"),
        (lambda: stimuli.curves(4, contrast=2), "contrast"),
        (lambda: stimuli.circles((math.inf,)), "above 0"),
        (lambda: stimuli.angle_to_curve(turning=180), "between 0 and 180"),
        (lambda: stimuli.gratings(frequencies=(0.7,)), "at most 0.5"),
        (lambda: stimuli.high_low(ratios=(0.5,)), "at least 1"),
        (lambda: stimuli.high_low(wavelength=1), "at least 2"),
        (lambda: stimuli.high_low(samples=0), "at least 1"),
        (lambda: stimuli.high_low(texture="dots"), "waves"),  # type: ignore[arg-type]
        (lambda: stimuli.color_contrast(pairs=("red",)), "red-cyan"),
        (lambda: stimuli.color_contrast(pairs=("rad-cyan",)), "red"),
        (lambda: stimuli.color_contrast(pairs=("red-cyan", "red-cyan")), "twice"),
        (lambda: stimuli.color_contrast(pairs=("red-cyan",)).tensor(GREY), "three channels"),
        (lambda: stimuli.color_contrast(pairs=(((1, 0), (0, 1)),)).tensor(GREY), "1 numbers"),
        (lambda: stimuli.curves(4, variant="colored").tensor(GREY), "curves has 3 channels; the model takes 1"),
        (lambda: stimuli.lines(4).tensor(GREY, indices=[99]), "0 to 7"),
        (lambda: stimuli.lines(4).axis("radius"), "no axis"),
        (lambda: stimuli.lines(4).only(width=7), "no value"),
    ],
)
def test_stimuli_that_cannot_be_rendered_are_refused(make: Any, says: str) -> None:
    with pytest.raises(StimuliError, match=says):
        make()


def test_colors_of_any_channels_are_given_as_numbers() -> None:
    result = stimuli.color_contrast((0,), (((1, -1), "gray"),)).tensor(InputSpec(size=9, channels=2))
    assert result[0, :, 0, 8].tolist() == [1.0, 0.0] and result[0, :, 0, 0].tolist() == [0.5, 0.5]
