"""Rendering: each picture its own, nothing left behind, dead units said, bad input refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import circuits
from circuits.errors import AddressError, CircuitsError
from circuits.visualization import (
    RenderSettings,
    VisualizationError,
    examine,
    objectives,
    parametrizations,
    render as rendering,
    visualize,
)
from circuits.visualization.transforms import standard
from tests import nets

NETS: dict[str, Callable[[], circuits.Model]] = {
    "functional and in place": lambda: nets.wrap(nets.randomized(nets.Functional()), 32),
    "modules that run twice": lambda: nets.wrap(nets.randomized(nets.Twice()), 32),
    "tiny InceptionV1": lambda: nets.wrap(nets.tiny_inception(), 64),
    "one channel": lambda: nets.wrap(nets.sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3)), 20, 1),
    "five channels": lambda: nets.wrap(nets.sequential(nn.Conv2d(5, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3)), 20, 5),
}


@pytest.mark.parametrize("name", list(NETS))
def test_any_network_is_rendered_and_left_as_it_was(name: str, unchanged: list[circuits.Model]) -> None:
    model = NETS[name]()
    unchanged.append(model)
    layer = [n for n, evidence in model.layers.items() if evidence.size not in (None, (1, 1))][-1]
    results = visualize(model, [f"{layer}:0", f"{layer}:1"], steps=6)
    for result in results:
        assert result.image.shape[0] == model.input.channels
        assert 0 <= float(result.image.min()) and float(result.image.max()) <= 1
        assert len(result.history) == 6 and result.status in ("ok", "dead")


def test_hooks_and_weights_are_as_before_also_after_an_error(
    inception: circuits.Model, unchanged: list[circuits.Model]
) -> None:
    unchanged.append(inception)

    def fails(images: Tensor) -> Tensor:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        visualize(inception, "mixed3a:0", steps=2, transforms=[fails])


def test_the_same_seed_gives_the_same_bits_and_another_does_not(inception: circuits.Model) -> None:
    once, again = (visualize(inception, "mixed3a:1", steps=5, seed=3)[0] for _ in range(2))
    assert torch.equal(once.image, again.image) and once.history == again.history
    assert not torch.equal(once.image, visualize(inception, "mixed3a:1", steps=5, seed=4)[0].image)


def test_settings_give_what_their_keywords_give(inception: circuits.Model) -> None:
    settings = RenderSettings(steps=2, size=32, frames=[2, 1, 2], transforms=[])
    by_settings, by_keywords, replaced = (
        visualize(inception, "mixed3a:1", **options)[0]  # type: ignore[arg-type]
        for options in (
            {"settings": settings},
            {"steps": 2, "size": 32, "frames": (1, 2), "transforms": []},
            {"settings": replace(settings, steps=9), "steps": 2},
        )
    )
    assert settings.frames == (1, 2) and by_settings.frames.keys() == {1, 2}
    assert torch.equal(by_settings.image, by_keywords.image) and torch.equal(by_settings.image, replaced.image)


def test_an_image_does_not_depend_on_its_batch(inception: circuits.Model) -> None:
    units = [f"mixed3a:{i}" for i in (4, 0, 7)]
    together = visualize(inception, units, steps=5)
    for unit, result in zip(units, together, strict=True):
        alone = visualize(inception, unit, steps=5)[0]
        # the sums of a convolution are rounded differently in another batch, no more
        torch.testing.assert_close(result.image, alone.image, atol=2e-3, rtol=0)
        assert result.unit.endswith(unit) and result.response == pytest.approx(alone.response, rel=1e-2, abs=1e-3)


def test_a_layer_is_all_of_its_units_and_a_branch_those_of_the_branch(inception: circuits.Model) -> None:
    whole = visualize(inception, "mixed3a", steps=1, size=32, retries=0)
    assert [r.unit.rpartition("/")[2] for r in whole] == [f"mixed3a:{i}" for i in range(len(whole))]
    assert len(whole) == inception.layers["mixed3a"].channels
    branch = visualize(inception, "mixed3a_5x5", steps=1, size=32, retries=0)
    base, start = inception.layers["mixed3a_5x5"].part or ("", 0)
    assert branch[0].unit.endswith(f"{base}:{start}") and len(branch) == inception.layers["mixed3a_5x5"].channels


def test_the_response_is_the_activation_on_the_image(inception: circuits.Model) -> None:
    result = visualize(inception, "mixed3a:2", steps=8, size=64)[0]
    acts = circuits.capture(inception, result.image[None], "mixed3a")["mixed3a"][0, 2]
    assert result.response == pytest.approx(float(acts.mean()), rel=1e-5)
    assert result.peak == pytest.approx(float(acts.max()), rel=1e-5)


def test_a_neuron_is_maximized_at_its_position(inception: circuits.Model) -> None:
    result = visualize(inception, "mixed3a:2@1,6", steps=8, size=64)[0]
    acts = circuits.capture(inception, result.image[None], "mixed3a")["mixed3a"][0, 2]
    assert result.response == pytest.approx(float(acts[1, 6]), rel=1e-5)


def test_a_direction_of_a_basis_is_a_unit_like_any_other() -> None:
    model = nets.wrap(nets.tiny_inception(), 64)
    along = torch.randn(2, model.layers["mixed3a"].channels, generator=torch.Generator().manual_seed(0))
    model.attach("mixed3a", "mine", circuits.Directions(along))
    result = visualize(model, "mixed3a~mine:1", steps=6, size=64)[0]
    acts = circuits.capture(model, result.image[None], "mixed3a")["mixed3a"][0]
    assert result.response == pytest.approx(float(torch.einsum("chw,c->hw", acts, along[1]).mean()), rel=1e-4)
    assert result.history[-1] > result.history[0]


def test_the_negative_optimum_is_below_zero_before_the_relu(inception: circuits.Model) -> None:
    low = visualize(inception, "mixed3a:2", steps=20, optimum="negative", size=64, transforms=[])[0]
    assert low.history[-1] > low.history[0]
    acts = circuits.capture(inception, low.image[None], "mixed3a")["mixed3a"][0, 2]
    gray = circuits.capture(inception, torch.full((1, 3, 64, 64), 0.5), "mixed3a")["mixed3a"][0, 2]
    assert float(acts.mean()) <= float(gray.mean())


def _silent(bias: float) -> circuits.Model:
    """A unit that is off in every ordinary picture."""
    net = nets.sequential(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU())
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].weight[0, 0, 1, 1] = 1.0
        net[0].bias.copy_(torch.tensor([bias, 1.0]))
    return nets.wrap(net, 16)


def test_an_inactive_unit_is_retried_and_a_dead_one_reported() -> None:
    asleep = visualize(_silent(-0.8), "1:0", steps=40)[0]
    assert asleep.status == "ok" and asleep.peak > 0.1
    without = visualize(_silent(-0.8), "1:0", steps=40, redirect=0, retries=0)[0]
    assert without.status == "dead" and without.peak == 0
    dead = visualize(_silent(-1.5), "1:0", steps=10)[0]
    assert dead.status == "dead" and math.isfinite(dead.response)
    assert [r.status for r in visualize(_silent(-1.5), "1:0", steps=3, variants=2)] == ["dead", "dead"]


def test_a_unit_that_natural_images_activate_is_not_reported_dead() -> None:
    model = circuits.load("scenes", device="cpu")
    first = visualize(model, "mixed4a:11", steps=48, retries=0)[0]
    assert first.status == "dead"  # in gray noise its parents are silent too
    woken = visualize(model, "mixed4a:11", steps=48)[0]
    assert woken.status == "ok"
    assert woken.peak > float(circuits.capture(model, "scenes:26", "mixed4a")["mixed4a"][:, 11].max())


def test_variants_of_a_unit_are_less_similar_than_without_diversity() -> None:
    model = circuits.load("scenes", device="cpu")
    diverse = visualize(model, "mixed4a:11", steps=40, variants=3)
    assert [r.variant for r in diverse] == [0, 1, 2]
    single = [visualize(model, "mixed4a:11", steps=40, seed=s)[0] for s in range(3)]
    similarity = objectives.diversity("mixed4a")

    def likeness(results: list[circuits.visualization.Visualization]) -> float:
        acts = circuits.capture(model, torch.stack([r.image for r in results]), "mixed4a")["mixed4a"]
        return float(similarity(lambda _: acts).mean())

    assert likeness(diverse) < likeness(single)


def test_frames_are_kept_and_a_plateau_ends_the_run(inception: circuits.Model) -> None:
    result = visualize(inception, "mixed3a:2", steps=5, frames=[1, 5], size=32)[0]
    assert sorted(result.frames) == [1, 5] and torch.equal(result.frames[5], result.image)
    ended = visualize(inception, "mixed3a:2", steps=200, size=32, plateau=10, transforms=[], rate=1e-6)[0]
    assert ended.steps == 20


def test_alpha_gives_an_opacity_and_leaves_transparent_what_does_not_matter() -> None:
    model = nets.wrap(nets.sequential(nn.Conv2d(3, 2, 7, padding=3)), 32)
    result = visualize(model, "0:0@16,16", steps=60, params=parametrizations.Fourier(alpha=True), transforms=[])[0]
    assert result.image.shape == (4, 32, 32)
    opacity = result.image[3]
    assert float(opacity[13:20, 13:20].mean()) > 0.5 > float(opacity[:8].mean())


def test_half_precision_is_used_and_comes_near(inception: circuits.Model) -> None:
    seen: list[torch.dtype] = []
    handle = inception.module.get_submodule("mixed3a_1x1_pre").register_forward_hook(
        lambda _m, _i, out: seen.append(out.dtype)
    )
    try:
        half = visualize(inception, "mixed3a:2", steps=6, size=64, precision="bf16")[0]
    finally:
        handle.remove()
    assert torch.bfloat16 in seen and half.image.dtype == torch.float32
    assert half.response == pytest.approx(visualize(inception, "mixed3a:2", steps=6, size=64)[0].response, rel=0.2)


def test_gradients_that_are_not_finite_are_skipped_and_reported() -> None:
    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x[:, :1] > 0.5, x[:, :1], torch.sqrt(x[:, :1] - 2)).flatten(1).mean(1)[:, None]

    plain = nn.Conv2d(3, 3, 1, bias=False)
    nn.init.dirac_(plain.weight)  # the picture itself: some of it above a half, some below
    result = visualize(nets.wrap(nn.Sequential(plain, Breaks()), 8), "1:0", steps=10)[0]
    assert result.status == "not finite" and torch.isfinite(result.image).all()


def test_a_batch_that_does_not_fit_is_halved(
    inception: circuits.Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = rendering.ascend

    def small(model: circuits.Model, objective: object, images: nn.Module, *args: object, **kwargs: object) -> object:
        if len(next(images.parameters())) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, objective, images, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(rendering, "ascend", small)
    results = visualize(inception, [f"mixed3a:{i}" for i in range(5)], steps=1, size=32, retries=0)
    assert [r.unit[-1] for r in results] == list("01234") and "out of memory" in caplog.text


def test_other_errors_are_not_swallowed(inception: circuits.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> object:
        raise RuntimeError("a kernel failed")

    monkeypatch.setattr(rendering, "ascend", fails)
    with pytest.raises(RuntimeError, match="a kernel failed"):
        visualize(inception, "mixed3a:0", steps=1)


def test_evidence_compares_an_image_with_natural_images(inception: circuits.Model) -> None:
    photographs = nets.pictures(20, 64)
    results = visualize(inception, ["mixed3a:2", "mixed3b:3@2,2"], steps=30, size=64)
    for result in examine(inception, results, photographs, top=4):
        evidence = result.evidence
        assert evidence is not None and evidence.count == 20 and len(evidence.examples) == 4
        layer, _, rest = result.unit.rpartition("/")[2].partition(":")
        acts = circuits.capture(inception, photographs, layer)[layer][:, int(rest.split("@")[0])]
        values = acts.flatten(1).amax(1) if "@" not in rest else acts[:, 2, 2]
        assert evidence.percentile == pytest.approx(100 * float((values < result.peak).float().mean()))
        assert evidence.strongest == pytest.approx(float(values.max()), rel=1e-5)
        assert [p.layer for p in evidence.path][-1] == layer and evidence.path[0].layer == "conv2d0"


def test_the_path_of_a_top_activating_image_itself_is_natural(inception: circuits.Model) -> None:

    photographs = nets.pictures(30, 64)
    acts = circuits.capture(inception, photographs, "mixed3b")["mixed3b"][:, 3].flatten(1).amax(1)
    result = visualize(inception, "mixed3b:3", steps=1, size=64)[0]
    same = replace(result, image=photographs[int(acts.argmax())], peak=float(acts.max()), input_size=(64, 64))
    results = examine(inception, [same], photographs, top=5)[0].evidence
    assert results is not None
    for path in results.path:
        assert path.visualization > path.natural  # it is one of them, and likest to itself


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (AddressError, "has no layer 'nowhere'", {"what": "nowhere:0"}),
        (AddressError, "got 999", {"what": "mixed3a:999"}),
        (VisualizationError, "name at least one unit", {"what": []}),
        (VisualizationError, "steps=0 must be a whole number of at least 1", {"steps": 0}),
        (VisualizationError, "variants=0 must be a whole number of at least 1", {"variants": 0}),
        (VisualizationError, "optimum='best': use one of 'positive', 'negative'", {"optimum": "best"}),
        (VisualizationError, "size is a number of pixels", {"size": 0}),
        (VisualizationError, "size is a number of pixels", {"size": (3, 4, 5)}),
        (VisualizationError, "larger size", {"what": "mixed4a:0@3,3", "size": 32}),
        (VisualizationError, "precision='int8': use one of None, 'bf16', 'fp16'", {"precision": "int8"}),
        (VisualizationError, "no option 'stpes'. Nearest: steps", {"stpes": 3}),
        (VisualizationError, "settings= takes a RenderSettings, not a dict", {"settings": {"steps": 3}}),
        (VisualizationError, "is no transform", {"transforms": ["jitter"]}),
        (VisualizationError, "no gradient can reach", {"what": objectives.Constant(1.0)}),
        (VisualizationError, "an objective of your own gives one number", {"what": lambda T: T("mixed3a")}),
        (VisualizationError, "the objective failed on a gray image", {"what": lambda T: 1 / 0}),
        (AddressError, "has no layer 'nowhere'", {"what": objectives.channel("nowhere", 0)}),
    ],
)
def test_what_makes_no_sense_is_refused(
    inception: circuits.Model, error: type[CircuitsError], message: str, options: dict[str, object]
) -> None:
    given: dict[str, object] = {"what": "mixed3a:0", "steps": 1, **options}
    with pytest.raises(error, match=message):
        visualize(inception, **given)  # type: ignore[arg-type]


def test_images_too_small_for_the_network_are_refused() -> None:
    model = nets.wrap(nets.sequential(nn.Conv2d(3, 2, 9), nn.ReLU(), nn.Conv2d(2, 2, 9)), 32)
    with pytest.raises(VisualizationError, match="cannot take images of 8x8"):
        visualize(model, "2:0", steps=1, size=8)


def test_training_mode_is_refused(inception: circuits.Model) -> None:
    model = nets.wrap(nets.sequential(nn.Conv2d(3, 2, 3), nn.Dropout()), 8)
    model.module.train()
    with pytest.raises(VisualizationError, match="training mode"):
        visualize(model, "0:0", steps=1)


def checkerboards() -> circuits.Model:
    """A unit that is active on a checkerboard of single pixels and on nothing smoother, in images of 72 x 96."""
    net = nn.Sequential(nn.Conv2d(1, 1, 8), nn.ReLU())
    board = 1.0 - 2 * ((torch.arange(8)[:, None] + torch.arange(8)) % 2)
    with torch.no_grad():
        net[0].weight[:] = board
        net[0].bias.zero_()
    return nets.wrap(net, size=(72, 96), channels=1)


def test_small_details_survive_the_default_transforms_of_small_networks() -> None:
    model = checkerboards()
    (result,) = visualize(model, "1:0", steps=64)
    (blurred,) = visualize(model, "1:0", steps=64, transforms=standard(32))
    assert result.peak > 20 > 16 > blurred.peak  # 21.3 and 14.1


def test_a_visualization_weaker_than_a_natural_image_is_called_so() -> None:
    model = checkerboards()
    photograph = torch.full((3, 1, 72, 96), 0.5)
    photograph[0, :, 20:28, 30:38] = ((torch.arange(8)[:, None] + torch.arange(8)) % 2 == 0).float()
    (result,) = examine(model, visualize(model, "1:0", steps=16), photograph)
    assert result.peak < 32 and "against 32" in (result.warning or "")
    assert result.describe()["warning"] == result.warning
    assert result.weaker_than(result.peak) is None and replace(result, optimum="negative").warning is None
