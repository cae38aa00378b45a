"""Modes of feature visualization: known answers, nothing left behind, bad input refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import circuits
from circuits.errors import AddressError, CircuitsError
from circuits.visualization import (
    VisualizationError,
    accentuate,
    caricature_strip,
    decomposed,
    objectives,
    spectrum,
    trajectory,
)
from circuits.visualization.modes.caricature import log_spaced
from circuits.visualization.modes.spectrum import SLIGHTLY
from tests import nets

WEIGHTS = ((2.0, 0.0, 0.0), (0.0, 3.0, 4.0), (0.0, 0.0, -1.0))
"""Of channels 0, 1, 2 of the source at the left, the middle and the right of the middle row of a 3 x 3 kernel."""


def _planted(*, rectified: bool = True) -> circuits.Model:
    """Red, green and blue, each passed on as it is; then a unit with hand-set weights, and one that is zero."""
    net = nets.sequential(
        nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1), nn.ReLU() if rectified else nn.Identity()
    )
    with torch.no_grad():
        for part in (net[0], net[2]):
            part.weight.zero_()
            part.bias.zero_()
        net[0].weight[:, :, 0, 0] = torch.eye(3)
        net[2].weight[0, :, 1] = torch.tensor(WEIGHTS).T
    return nets.wrap(net, 16)


def _levels(values: list[float]) -> Tensor:
    """Pictures of one gray each."""
    return torch.stack([torch.full((3, 16, 16), v) for v in values])


# -- the spectrum -----------------------------------------------------------------------------------------------


def test_the_groups_of_a_spectrum_are_those_that_brute_force_finds(inception: circuits.Model) -> None:
    photographs = nets.pictures(23, 64)
    result = spectrum(inception, "mixed3a:2", photographs, k=3, steps=1, batch_size=5)
    values = circuits.capture(inception, photographs, "mixed3a_pre")["mixed3a_pre"][:, 2]
    flat = values.flatten(1)
    assert result.layer == "mixed3a_pre" and result.count == 23
    assert [e.image for e in result.maximum] == flat.amax(1).argsort(descending=True)[:3].tolist()
    assert [e.image for e in result.minimum] == flat.amin(1).argsort()[:3].tolist()
    for output in result.examples.values():
        for e in output:
            assert e.value == pytest.approx(float(values[e.image][e.position]), rel=1e-4, abs=1e-5)
            assert e.id == f"tensor-{e.image:06d}" and e.box[0] < e.box[2] and e.box[1] < e.box[3]
    assert result.mean == pytest.approx(float(values.mean()), rel=1e-4, abs=1e-6)
    assert result.spread == pytest.approx(float(values.std(correction=0)), rel=1e-4)


def test_slightly_is_nearest_to_a_quarter_of_a_standard_deviation_and_of_the_right_sign(
    planted: circuits.Model,
) -> None:
    result = spectrum(planted, f"parts:{nets.RISING}", nets.clutter(40), k=4, steps=1)
    for sign, output in ((-1, result.slightly_negative), (1, result.slightly_positive)):
        far = [abs(sign * e.value - SLIGHTLY * result.spread) for e in output]
        assert len(output) == 4 and all(sign * e.value > 0 for e in output) and far == sorted(far)


def test_the_brightest_image_is_the_maximum_of_a_brightness_unit() -> None:
    model = nets.wrap(nets.sequential(nn.Conv2d(3, 1, 1), nn.ReLU()), 16)
    with torch.no_grad():
        model.module[0].weight.fill_(1.0)  # type: ignore[index, union-attr]
        model.module[0].bias.fill_(-1.5)  # type: ignore[index, union-attr]
    result = spectrum(model, "1:0", _levels([0.5, 0.9, 0.1, 0.45, 0.7]), k=2, steps=30)
    assert [e.image for e in result.maximum] == [1, 4] and [e.image for e in result.minimum] == [2, 3]
    assert result.maximum[0].value == pytest.approx(1.2, abs=1e-5)  # 3 * 0.9 - 1.5
    assert result.minimum[0].value == pytest.approx(-1.2, abs=1e-5)  # below the rectifier
    assert [e.image for e in result.slightly_negative] == [3, 2]
    assert result.positive.response > 0.3 and result.negative.response < -0.3


def test_a_sign_that_never_occurs_has_no_examples() -> None:
    model = nets.wrap(nets.sequential(nn.Conv2d(3, 1, 1)), 16)
    with torch.no_grad():
        model.module[0].weight.fill_(1.0)  # type: ignore[index, union-attr]
        model.module[0].bias.zero_()  # type: ignore[index, union-attr]
    result = spectrum(model, "0:0", _levels([0.2, 0.4]), k=5, steps=1)
    assert result.slightly_negative == () and len(result.slightly_positive) == len(result.maximum) == 2


def test_a_direction_of_a_basis_has_a_spectrum_of_inner_products() -> None:
    model = nets.wrap(nets.tiny_inception(), 64)
    along = torch.randn(2, model.layers["mixed3a"].channels, generator=torch.Generator().manual_seed(0))
    model.attach("mixed3a", "mine", circuits.Directions(along))
    photographs = nets.pictures(9, 64)
    result = spectrum(model, "mixed3a~mine:1", photographs, k=2, steps=1)
    values = torch.einsum("nchw,c->nhw", circuits.capture(model, photographs, "mixed3a")["mixed3a"], along[1])
    assert result.maximum[0].value == pytest.approx(float(values.max()), rel=1e-4)
    assert result.minimum[0].value == pytest.approx(float(values.min()), rel=1e-4)


def test_a_class_has_a_spectrum(inception: circuits.Model) -> None:
    result = spectrum(inception, f"{inception.logits}:1", nets.pictures(6, 64), k=2, steps=1)
    scores = circuits.capture(inception, nets.pictures(6, 64), inception.logits)[inception.logits][:, 1].flatten()
    assert result.maximum[0].image == int(scores.argmax()) and result.maximum[0].position == (0, 0)


def test_a_spectrum_is_ready_for_json(inception: circuits.Model) -> None:
    document = spectrum(inception, "mixed3a:2", nets.pictures(6, 64), k=2, steps=1).describe()
    assert json.loads(json.dumps(document))["examples"]["maximum"][0]["image"] in range(6)


# -- decomposed -------------------------------------------------------------------------------------------------


def test_directions_and_norms_are_the_columns_of_the_kernel() -> None:
    result = decomposed(_planted(), "3:0", "1", steps=2)
    want = torch.zeros(3, 3, 3)
    want[:, 1] = torch.tensor(WEIGHTS).T
    torch.testing.assert_close(result.directions, want)
    assert result.largest == pytest.approx(5.0)
    torch.testing.assert_close(result.norms[1], torch.tensor([0.4, 1.0, 0.2]))
    torch.testing.assert_close(result.excitation[1], torch.tensor([0.4, 1.0, 0.0]))
    torch.testing.assert_close(result.opacity, result.excitation)
    assert result.offset == (-1, -1) and (result.target, result.source) == ("model/3:0", "1")


def test_positions_without_weights_or_with_inhibition_only_have_no_image() -> None:
    result = [[p is not None for p in row] for row in decomposed(_planted(), "3:0", "1", steps=1).visualizations]
    assert result == [[False] * 3, [True, True, False], [False] * 3]
    few = decomposed(_planted(), "3:0", "1", steps=1, keep=0.5)
    assert [p is not None for p in few.visualizations[1]] == [False, True, False]
    whole = decomposed(_planted(), "3:0", "1", steps=1, inhibition=True)
    assert [p is not None for p in whole.visualizations[1]] == [True, True, True]
    torch.testing.assert_close(whole.opacity, whole.norms)


def test_each_position_shows_the_color_that_it_reads() -> None:
    left, middle, _ = decomposed(_planted(), "3:0", "1", steps=40).visualizations[1]
    assert left is not None and middle is not None
    red, green, blue = left.image.flatten(1).mean(1).tolist()
    assert red > green + 0.05 and red > blue + 0.05
    red, green, blue = middle.image.flatten(1).mean(1).tolist()
    assert min(green, blue) > red + 0.05
    assert left.unit == "3:0[1,0]" and left.response > 0.6


def test_positions_with_the_same_weights_share_an_image() -> None:
    net = nets.sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AvgPool2d(3, 1, 1), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        net[3].weight.abs_()
    results = decomposed(nets.wrap(net, 16), "3:0", "1", steps=3)
    result = [p for row in results.visualizations for p in row if p is not None]
    assert len(result) == results.norms.numel() and all(torch.equal(p.image, result[0].image) for p in result)
    torch.testing.assert_close(results.norms, torch.ones_like(results.norms))


def test_images_of_all_positions_have_the_same_start() -> None:
    left, middle, _ = decomposed(_planted(), "3:0", "1", steps=1, rate=0.0).visualizations[1]
    assert left is not None and middle is not None and torch.equal(left.image, middle.image)


def test_a_crop_is_the_middle_of_the_kernel() -> None:
    result = decomposed(_planted(), "3:0", "1", steps=1, crop=1)
    assert result.norms.shape == (1, 1) and result.offset == (0, 0)
    torch.testing.assert_close(result.directions[:, 0, 0], torch.tensor(WEIGHTS[1]))


def test_a_branch_is_decomposed_over_its_own_channels(inception: circuits.Model) -> None:
    result = decomposed(inception, "mixed3b:3", "mixed3a_5x5", steps=1, keep=0.9)
    whole = circuits.expanded_weights(inception, source="mixed3a_5x5", target="mixed3b:3").kernels[0]
    torch.testing.assert_close(result.directions, whole.float())
    assert result.source == "mixed3a_5x5" and any(p is not None for row in result.visualizations for p in row)


# -- caricatures ------------------------------------------------------------------------------------------------


def test_a_caricature_is_more_similar_to_the_image_in_its_layer_than_noise(planted: circuits.Model) -> None:
    car = nets.car_picture()
    short, long = (caricature_strip(planted, car, ["edges", "parts"], steps=s, transforms=[]) for s in (1, 40))
    assert long.layers == ("edges", "parts") and long.id == "tensor-000000" and torch.equal(long.image, car)
    assert all(b > a for a, b in zip(short.similarity, long.similarity, strict=True)) and min(long.similarity) > 0.7
    assert all(b > a for a, b in zip(short.exaggeration, long.exaggeration, strict=True))
    for name, result, likeness in zip(long.layers, long.visualizations, long.similarity, strict=True):
        assert result.unit == f"planted/{name}" and result.image.shape == (3, 32, 32)
        acts = circuits.capture(planted, torch.stack([car, result.image]), name)[name].flatten(1)
        assert likeness == pytest.approx(float(torch.cosine_similarity(acts[:1], acts[1:])), rel=1e-4)


def test_a_strip_has_the_given_size(inception: circuits.Model) -> None:
    result = caricature_strip(inception, nets.pictures(1, 64), "conv2d1", steps=1, size=(32, 40))
    assert result.image.shape == result.visualizations[0].image.shape == (3, 32, 40)


# -- accentuation -----------------------------------------------------------------------------------------------


def test_accentuation_raises_the_unit_less_and_stays_nearer_the_stronger_the_penalty(
    inception: circuits.Model,
) -> None:
    photographs = nets.pictures(2, 64)
    before = circuits.capture(inception, photographs, ["mixed3a", "mixed3b"])
    responses, distances = [], []
    for strength in (0.0, 2.0, 50.0):
        result = accentuate(inception, "mixed3b:3", photographs, steps=25, strength=strength, transforms=[])
        stored = circuits.capture(inception, torch.stack([m.image for m in result]), "mixed3a")["mixed3a"]
        responses.append(sum(m.response for m in result))
        distances.append(float((stored - before["mixed3a"]).norm()))
    assert responses[0] > responses[1] > responses[2]
    assert distances[0] > distances[1] > distances[2]
    assert responses[1] > float(before["mixed3b"][:, 3].mean((1, 2)).sum())


def test_accentuation_starts_from_the_image_and_keeps_its_size(inception: circuits.Model) -> None:
    photograph = nets.pictures(1, (48, 72))[0].clamp(0.02, 0.98)
    result = accentuate(inception, "mixed3a:2", photograph, steps=3, frames=[2])[0]
    assert result.image.shape == photograph.shape and sorted(result.frames) == [0, 2]
    torch.testing.assert_close(result.frames[0], photograph, atol=1e-3, rtol=0)
    assert result.steps == 3 and result.input_size == (48, 72) and len(result.history) == 3


def test_the_history_of_an_accentuation_is_the_unit_activation(inception: circuits.Model) -> None:
    photograph = nets.pictures(1, 64).clamp(0.02, 0.98)
    acts = circuits.capture(inception, photograph, "mixed3b")["mixed3b"][0, 3]
    result = accentuate(inception, "mixed3b:3", photograph, steps=2, transforms=[], strength=9.0)[0]
    assert result.history[0] == pytest.approx(float(acts.mean()), rel=1e-2)


def test_an_accentuated_image_does_not_depend_on_its_batch(inception: circuits.Model) -> None:
    photographs = nets.pictures(3, 64)
    seen: list[tuple[int, int]] = []
    together = accentuate(inception, "mixed3a:2", photographs, steps=4)
    diverse = accentuate(inception, "mixed3a:2", photographs, steps=4, batch_size=1, progress=lambda *a: seen.append(a))
    for item, other in zip(together, diverse, strict=True):
        torch.testing.assert_close(item.image, other.image, atol=2e-3, rtol=0)
    assert [r.variant for r in diverse] == [0, 1, 2] and seen[-1] == (12, 12)


def test_what_is_kept_may_be_any_layer_or_the_pixels() -> None:
    model = _planted()
    photograph = nets.pictures(1, 16)
    far, near = (
        accentuate(model, "3:0", photograph, layer="input", strength=s, steps=15, transforms=[])[0] for s in (0, 50)
    )
    assert (near.image - photograph[0]).norm() < (far.image - photograph[0]).norm()
    assert accentuate(model, "1:0", photograph, steps=1)[0].status == "ok"  # before it only the picture itself
    assert accentuate(model, "3:0", photograph, layer="0", steps=1)[0].status == "ok"


def test_a_unit_that_no_gradient_reaches_is_dead() -> None:
    assert accentuate(_planted(rectified=False), "3:1", nets.pictures(1, 16), steps=2)[0].status == "dead"


# -- trajectories -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "count"), [(1, 1), (1, 16), (2, 2), (5, 5), (20, 16), (256, 16), (2048, 7), (9, 1)])
def test_log_spaced_steps_are_different_and_end_at_the_last(steps: int, count: int) -> None:
    chosen = log_spaced(steps, count)
    assert len(chosen) == min(steps, count) and chosen[-1] == steps
    assert all(a < b for a, b in zip(chosen, chosen[1:], strict=False)) and chosen[0] >= 1
    if count > 1:
        assert chosen[0] == 1
    # even in their logarithm where whole numbers allow it
    for i, step in enumerate(chosen):
        if step > count and count > 1:
            assert math.isclose(step, steps ** (i / (count - 1)), abs_tol=0.5)


def test_a_trajectory_is_the_visualization_with_its_frames(inception: circuits.Model) -> None:
    result = trajectory(inception, "mixed3a:2", steps=6, frames=3, size=32)
    assert sorted(result.frames) == [1, 2, 6] and torch.equal(result.frames[6], result.image)
    plain = circuits.visualize(inception, "mixed3a:2", steps=6, size=32)[0]
    assert torch.equal(result.image, plain.image)
    assert trajectory(inception, objectives.channel("mixed3a", 2), steps=2, size=32).steps == 2


# -- all of them ------------------------------------------------------------------------------------------------

MODES: dict[str, Callable[..., Any]] = {
    "spectrum": lambda m, **o: spectrum(m, "mixed3a:2", nets.pictures(4, 64), steps=2, **o),
    "decomposed": lambda m, **o: decomposed(m, "mixed3b:3", "mixed3a", steps=2, keep=0.8, **o),
    "caricature": lambda m, **o: caricature_strip(m, nets.pictures(1, 64), ["conv2d1"], steps=2, **o),
    "accentuate": lambda m, **o: accentuate(m, "mixed3a:2", nets.pictures(1, 64), steps=2, **o),
    "trajectory": lambda m, **o: trajectory(m, "mixed3a:2", steps=2, **o),
}


def _images(result: Any) -> list[Tensor]:
    if isinstance(result, list):
        return [r.image for r in result]
    if hasattr(result, "positive"):
        return [result.negative.image, result.positive.image]
    if hasattr(result, "norms"):
        return [p.image for row in result.visualizations for p in row if p is not None]
    return [r.image for r in getattr(result, "visualizations", [result])]


@pytest.mark.parametrize("mode", list(MODES))
def test_the_same_seed_gives_the_same_bits_and_the_model_is_left_as_it_was(
    mode: str, inception: circuits.Model, unchanged: list[circuits.Model]
) -> None:
    unchanged.append(inception)
    once, again, other = (_images(MODES[mode](inception, seed=s)) for s in (3, 3, 4))
    assert once and all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(once, other, strict=True))


@pytest.mark.parametrize("mode", list(MODES))
def test_the_model_is_left_as_it_was_after_an_error(
    mode: str, inception: circuits.Model, unchanged: list[circuits.Model]
) -> None:
    unchanged.append(inception)

    def fails(images: Tensor) -> Tensor:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        MODES[mode](inception, transforms=[fails])


NOISE = nets.pictures(2, 64)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (AddressError, "is a layer; name one", lambda m: spectrum(m, "mixed3a", NOISE)),
        (VisualizationError, "is a neuron", lambda m: spectrum(m, "mixed3a:2@1,1", NOISE)),
        (
            VisualizationError,
            "k=0 must be a whole",
            lambda m: spectrum(m, "mixed3a:2", NOISE, k=0),
        ),
        (VisualizationError, "variants= has no meaning", lambda m: spectrum(m, "mixed3a:2", NOISE, variants=2)),
        (VisualizationError, "optimum= has no meaning", lambda m: spectrum(m, "mixed3a:2", NOISE, optimum="negative")),
        (CircuitsError, "unit of another", lambda m: spectrum(m, "another/mixed3a:2", NOISE)),
        (AddressError, "is a layer; name one", lambda m: decomposed(m, "mixed3b", "mixed3a")),
        (CircuitsError, "mixed3b.*mixed3a|no path|weights", lambda m: decomposed(m, "mixed3a:1", "mixed3b")),
        (
            VisualizationError,
            "keep=2 must .* at most 1",
            lambda m: decomposed(m, "mixed3b:3", "mixed3a", keep=2),
        ),
        (VisualizationError, "crop=0 must be a whole", lambda m: decomposed(m, "mixed3b:3", "mixed3a", crop=0)),
        (VisualizationError, "one image; 2", lambda m: caricature_strip(m, NOISE, "mixed3a")),
        (VisualizationError, "at least one layer", lambda m: caricature_strip(m, NOISE[:1], [])),
        (AddressError, "has no layer 'nowhere'", lambda m: caricature_strip(m, NOISE[:1], "nowhere")),
        (
            VisualizationError,
            "cossim_pow=-1 must",
            lambda m: caricature_strip(m, NOISE[0], "mixed3a", cossim_pow=-1),
        ),
        (VisualizationError, "show= has no meaning", lambda m: caricature_strip(m, NOISE[0], "mixed3a", show=32)),
        (
            VisualizationError,
            "strength=-1 must be",
            lambda m: accentuate(m, "mixed3a:2", NOISE, strength=-1),
        ),
        (VisualizationError, "steps=0 must be a whole", lambda m: accentuate(m, "mixed3a:2", NOISE, steps=0)),
        (VisualizationError, "batch_size=0 must be a whole", lambda m: accentuate(m, "mixed3a:2", NOISE, batch_size=0)),
        (
            AddressError,
            "layer= takes a layer",
            lambda m: accentuate(m, "mixed3a:2", NOISE, layer="conv2d1:3"),
        ),
        (AddressError, "is a layer; name one", lambda m: accentuate(m, "mixed3a", NOISE)),
        (AddressError, "is a layer; name one", lambda m: trajectory(m, "mixed3a")),
        (VisualizationError, "frames=0 must be a whole", lambda m: trajectory(m, "mixed3a:2", frames=0)),
        (VisualizationError, "steps=0 must be a whole", lambda m: trajectory(m, "mixed3a:2", steps=0)),
        (VisualizationError, "variants= has no meaning", lambda m: trajectory(m, "mixed3a:2", variants=3)),
    ],
)
def test_what_makes_no_sense_is_refused(
    inception: circuits.Model, error: type[CircuitsError], message: str, call: Callable[[circuits.Model], object]
) -> None:
    with pytest.raises(error, match=message):
        call(inception)


def test_weights_that_are_all_zero_and_layers_that_say_nothing_are_refused() -> None:
    model = _planted()
    with pytest.raises(VisualizationError, match="all zero"):
        decomposed(model, "3:1", "1", steps=1)
    with pytest.raises(VisualizationError, match="is all zero on this image"):
        caricature_strip(model, torch.zeros(1, 3, 16, 16), "1", steps=1)


def test_training_mode_is_refused() -> None:
    model = _planted()
    model.module.train()
    for call in (
        lambda: accentuate(model, "3:0", nets.pictures(1, 16), steps=1),
        lambda: trajectory(model, "3:0", steps=1),
    ):
        with pytest.raises(VisualizationError, match="training mode"):
            call()
