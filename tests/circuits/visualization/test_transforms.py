"""Transforms do what they say, in one sampling, and each picture draws its own numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.errors import VisualizationError
from circuits.visualization.transforms import (
    BLOCK,
    ColorNoise,
    Crop,
    Jitter,
    Noise,
    Pad,
    Pipeline,
    Rotate,
    Scale,
    Transform,
    standard,
)


def random(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def waves(size: int, count: int = 1) -> Tensor:
    """Smooth pictures, gray towards the rim, whose interpolation errs by less than 0.01."""
    at = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(at, at, indexing="ij")
    window = torch.exp(-6 * (x * x + y * y))
    image = torch.stack([0.5 + 0.4 * window * torch.sin(a * x + b * y) for a, b in ((3.0, 1.0), (-1.0, 4.0))])
    return image.repeat(count, 1, 1, 1)


def once(pictures: Tensor, *transforms: Transform, out: tuple[int, int] | None = None, seed: int = 0) -> Tensor:
    size = (pictures.shape[2], pictures.shape[3])
    return Pipeline(transforms, out=out or size, seeds=range(seed, seed + len(pictures)))(pictures)


def test_with_nothing_to_do_the_input_itself_comes_out() -> None:
    images = random(2, 3, 9, 7)
    assert once(images) is images
    assert once(images, Pad(4)) is images


@pytest.mark.parametrize("out", [(14, 11), (5, 6), (9, 14)])
def test_another_size_is_plain_bilinear_resizing(out: tuple[int, int]) -> None:
    images = random(2, 3, 9, 7)
    expected = F.interpolate(images, out, mode="bilinear", align_corners=False)
    assert torch.allclose(once(images, out=out), expected, atol=1e-6)
    # With a move in between the sampling does both; its rim, a pixel wide, mixes with the gray outside.
    inner = (..., slice(2, -2), slice(2, -2))
    assert torch.allclose(once(images, Scale(1.0), out=out)[inner], expected[inner], atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (21, 35)])
def test_jitter_shifts_by_whole_pixels_exactly(size: tuple[int, int]) -> None:
    images = random(1, 3, *size)
    pipeline = Pipeline([Pad(2, value=0.25), Jitter(5)], out=size, seeds=[3])
    padded = F.pad(images, (3, 3, 3, 3), value=0.25)
    windows = {(y, x): padded[..., y : y + size[0], x : x + size[1]] for y in range(1, 7) for x in range(1, 7)}
    seen = set()
    for _ in range(400):
        moved = pipeline(images)
        (position,) = [p for p, window in windows.items() if torch.equal(window, moved)]
        seen.add(position)
    assert seen == set(windows)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_right_angle_is_rot90(turns: int) -> None:
    images = random(2, 3, 10, 10)
    assert torch.allclose(once(images, Rotate([90.0 * turns])), images.rot90(turns, (2, 3)), atol=1e-5)


def test_scale_2_shows_the_middle_twice_as_large() -> None:
    images = random(1, 3, 16, 12)
    middle = F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)[..., 8:24, 6:18]
    assert torch.allclose(once(images, Scale(2.0)), middle, atol=1e-5)


def test_a_crop_is_a_window_enlarged() -> None:
    images = waves(32, 50)
    output = once(images, Crop(0.5, 0.5), out=(16, 16))
    windows = torch.stack([images[0, :, y : y + 16, x : x + 16] for y in range(17) for x in range(17)])
    nearest = (output[:, None] - windows).abs().amax((2, 3, 4))
    assert float(nearest.amin(1).max()) < 0.06  # places are not whole pixels: half of one changes that much
    assert len(nearest.argmin(1).unique()) > 20


def test_a_crop_after_a_pad_sees_the_rim() -> None:
    images = random(1, 3, 8, 8)
    whole = once(images, Pad(4), Crop(1.0, 1.0), out=(16, 16))
    assert torch.allclose(whole, F.pad(images, (4, 4, 4, 4), value=0.5), atol=1e-5)


def test_one_sampling_equals_one_transform_after_the_other() -> None:
    """On a smooth picture; the difference, below 0.01, is what the second interpolation blurs."""
    images = waves(64)
    moves: list[Transform] = [Scale(1.2), Rotate([25.0]), Scale((0.8,)), Rotate([-70.0])]
    step = images
    for move in moves:
        step = once(step, move)
    together = once(images, *moves)
    assert torch.allclose(together, step, atol=0.01)
    assert not torch.allclose(together, images, atol=0.1)


def test_the_order_of_transforms_counts() -> None:
    images = waves(32)
    crop_first = once(images, Crop(0.4, 0.4), Rotate([90.0]))
    turn_first = once(images.rot90(1, (2, 3)), Crop(0.4, 0.4))
    assert not torch.allclose(crop_first, turn_first, atol=0.05)
    assert torch.allclose(crop_first, once(images, Crop(0.4, 0.4)).rot90(1, (2, 3)), atol=1e-5)


@pytest.mark.parametrize(("pad", "value"), [((), 0.5), ((Pad(3, value=0.1),), 0.1)])
def test_outside_lies_the_color_of_the_pad(pad: tuple[Transform, ...], value: float) -> None:
    output = once(torch.ones(1, 3, 16, 16), *pad, Scale(0.5))
    assert torch.allclose(output[..., :3, :], torch.tensor(value), atol=1e-6)
    assert torch.allclose(output[..., 6:10, 6:10], torch.tensor(1.0), atol=1e-6)


def test_rotations_and_scales_are_sampled_from_the_given_ones() -> None:
    images = waves(16, 200)
    turned = once(images, Rotate((0.0, 90.0)))
    is_turned = [torch.allclose(t, p.rot90(1, (1, 2)), atol=1e-4) for t, p in zip(turned, images, strict=True)]
    assert 70 < sum(is_turned) < 130
    grown = once(torch.ones(200, 1, 32, 32), Scale(0.25, 0.75)).sub(0.5).sum((1, 2, 3)).mul(2).sqrt() / 32
    assert 0.24 < float(grown.min()) < 0.3
    assert 0.7 < float(grown.max()) < 0.76


def test_color_noise_is_a_gain_and_an_offset_per_channel() -> None:
    images = random(3, 2, 4, 4)
    output = once(images, ColorNoise(gain=0.2, offset=0.1))
    for image, changed in zip(images.flatten(0, 1), output.flatten(0, 1), strict=True):
        gain = (changed[0, 0] - changed[1, 1]) / (image[0, 0] - image[1, 1])
        offset = changed[0, 0] - gain * image[0, 0]
        assert abs(float(gain) - 1) <= 0.2
        assert abs(float(offset)) <= 0.1
        assert torch.allclose(changed, gain * image + offset, atol=1e-5)


def test_noise_has_the_given_deviation_and_is_new_at_each_call() -> None:
    pipeline = Pipeline([Noise(0.1)], out=(64, 64), seeds=[0])
    first, second = (pipeline(torch.full((1, 3, 64, 64), 0.5)) - 0.5 for _ in range(2))
    assert float(first.std()) == pytest.approx(0.1, rel=0.03)
    assert abs(float((first * second).mean())) < 5e-4


EVERYTHING: list[Transform] = [*standard(32), Crop(0.8, 1.0), ColorNoise(0.1, 0.1), Noise(0.05)]


@pytest.mark.parametrize("size", [(32, 32), (17, 23)])
def test_an_image_gets_the_same_random_numbers_whatever_batch_it_is_in(size: tuple[int, int]) -> None:
    images, seeds = random(4, 3, *size), [9, 4, -2, 2**50]
    together = Pipeline(EVERYTHING, out=(20, 30), seeds=seeds)
    alone = [Pipeline(EVERYTHING, out=(20, 30), seeds=[seed]) for seed in seeds]
    for _ in range(3):
        output = together(images)
        assert all(torch.equal(item(images[i : i + 1])[0], output[i]) for i, item in enumerate(alone))
    assert not torch.equal(output, together(images))


@pytest.mark.parametrize("calls", [0, 3, BLOCK + 1])
def test_a_run_goes_on_where_it_stopped(calls: int) -> None:
    images = random(2, 3, 6, 6)
    first = Pipeline(EVERYTHING, out=(6, 6), seeds=[0, 1])
    for _ in range(calls):
        first(images)
    second = Pipeline(EVERYTHING, out=(6, 6), seeds=[0, 1])
    second.skip(first.state())
    assert torch.equal(first(images), second(images))


def test_functions_of_a_tensor_are_called_in_order() -> None:
    images = waves(16, 2)
    output = Pipeline([Rotate([90.0]), lambda x: x.flip(3), Rotate([90.0])], out=(16, 16), seeds=[0, 1])(images)
    assert torch.allclose(output, images.flip(3), atol=1e-5)
    resized = Pipeline([lambda x: x[..., :8, :8]], out=(16, 16), seeds=[0, 1])(images)
    assert resized.shape == images.shape


def test_gradients_are_those_of_the_sampling() -> None:
    images = random(2, 1, 7, 6).double().requires_grad_()

    def output(x: Tensor) -> Tensor:
        return once(x, Jitter(2), Scale(0.9, 1.1), Rotate(20), ColorNoise(0.1, 0.1), out=(6, 8))

    assert torch.autograd.gradcheck(output, (images,))


def test_the_standard_is_that_of_lucid_and_smaller_for_small_images() -> None:
    assert [t for t in standard(128) if isinstance(t, Pad | Jitter)] == [Pad(12), Jitter(8), Jitter(4)]
    assert standard((224, 300)) == standard(128)
    assert [t for t in standard(32) if isinstance(t, Pad | Jitter)] == [Pad(3), Jitter(2), Jitter(1)]
    assert standard(4)[1] == Jitter(1)
    assert len(standard(32)[2].low) == 11  # type: ignore[attr-defined]


def test_nothing_is_interpolated_for_networks_of_small_images() -> None:
    """A checkerboard of single pixels stays one under the transforms; those of large networks blur it to gray."""
    assert standard(64, 64) == standard(64, (64, 300)) == (Pad(6), Jitter(4), Jitter(2))
    assert standard(64, 128) == standard(64)
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    images = board.float().expand(20, 3, 64, 64)

    def inside(*transforms: Transform) -> Tensor:
        return once(images, *transforms)[..., 16:48, 16:48]

    assert bool(((inside(*standard(64, 64)) == 0) | (inside(*standard(64, 64)) == 1)).all())
    assert float(inside(*standard(64)).std()) < 0.35 < 0.49 < float(inside(*standard(64, 64)).std())


def test_the_standard_keeps_the_scale_of_the_image_on_average() -> None:
    """What is optimized is what the network sees, pixel for pixel: a pad does not make it smaller."""
    images = waves(32, 300)
    mean = once(images, *standard(32)).mean(0)
    errors = {scale: float((once(images[:1], Scale(scale))[0] - mean).abs().max()) for scale in (0.84, 1.0, 1.19)}
    assert errors[1.0] < 0.06  # averaging blurs
    assert min(errors[0.84], errors[1.19]) > 0.07


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "negative pad": (lambda: Pad(-1), "0 or more"),
    "pad of bytes": (lambda: Pad(2, value=127.0), "[0, 1]"),
    "negative jitter": (lambda: Jitter(-8), "0 or more"),
    "half a pixel": (lambda: Jitter(1.5), "whole"),  # type: ignore[arg-type]
    "scale 0": (lambda: Scale(0.0, 1.0), "above 0"),
    "low above high": (lambda: Scale(1.1, 0.9), "low <= high"),
    "a list and a bound": (lambda: Scale((0.9, 1.0), 1.1), "one list"),
    "no scales": (lambda: Scale(()), "empty"),
    "negative degrees": (lambda: Rotate(-10), "0 or more"),
    "degrees not finite": (lambda: Rotate([math.inf]), "finite"),
    "crop of nothing": (lambda: Crop(0.0, 0.5), "0 < low"),
    "negative noise": (lambda: Noise(-0.1), "0 or more"),
    "a word": (lambda: Pipeline(["jitter"], out=(4, 4), seeds=[0]), "give a transform"),  # type: ignore[list-item]
    "a class": (lambda: Pipeline([Jitter], out=(4, 4), seeds=[0]), "give a transform"),
    "two pads": (lambda: once(random(1, 3, 4, 4), Pad(2), Pad(2, 0.0)), "same value"),
    "no size": (lambda: Pipeline([], out=(0, 4), seeds=[0]), "at least 1 x 1"),
    "standard of no size": (lambda: standard(0), "at least 1 x 1"),
    "too few seeds": (lambda: Pipeline([], out=(4, 4), seeds=[0])(random(2, 3, 4, 4)), "1 seeds need"),
    "a function that gives a word": (
        lambda: Pipeline([lambda x: "x"], out=(4, 4), seeds=[0])(random(1, 3, 4, 4)),  # type: ignore[list-item]
        "not a tensor",
    ),
    "backwards": (lambda: Pipeline([], out=(4, 4), seeds=[0]).skip(-1), "forwards"),
}


@pytest.mark.parametrize(("wrong", "says"), WRONG.values(), ids=list(WRONG))
def test_what_cannot_be_done_is_refused(wrong: Callable[[], object], says: str) -> None:
    with pytest.raises(VisualizationError, match=re.escape(says)):
        wrong()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_shows_the_same() -> None:
    images = random(2, 3, 32, 32)
    output = Pipeline(EVERYTHING, out=(24, 24), seeds=[0, 1], device="cuda")(images.cuda())
    assert torch.allclose(output.cpu(), Pipeline(EVERYTHING, out=(24, 24), seeds=[0, 1])(images), atol=1e-3)
