"""A Lucent user's code runs, and Lucent's own objects do: same values on the same picture, same steps, same words."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import circuits
from circuits.errors import AddressError, CaptureError
from circuits.visualization import VisualizationError
from circuits.visualization.lucent import objectives, param, render, transform
from tests import nets


def theirs() -> Any:
    """torch-lucent, if it is here and can be imported."""
    pytest.importorskip("lucent", reason="needs the extra `lucent`")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lucent.optvis import objectives as o, param as p, render as r, transform as t

    return o, p, r, t


class Net(nn.Module):
    """Plain modules, as Lucent needs them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 5, 2), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(6)
        )
        self.head = nn.Linear(8 * 36, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return nets.randomized(Net())


ALONG = torch.linspace(-1, 2, 8)
IMAGENET_MEAN = [[[0.485]], [[0.456]], [[0.406]]]
IMAGENET_SD = [[[0.229]], [[0.224]], [[0.225]]]

OBJECTIVES: dict[str, Callable[[Any], Any]] = {
    "text": lambda o: "features_2:3",
    "channel": lambda o: o.channel("features_2", 3),
    "channel of one picture": lambda o: o.channel("features_2", 3, batch=1),
    "neuron": lambda o: o.neuron("features_2", 2),
    "neuron at a place": lambda o: o.neuron("features_2", 2, x=3, y=5),
    "direction": lambda o: o.direction("features_3", ALONG),
    "direction at the center": lambda o: o.direction_neuron("features_3", ALONG),
    "weights of channels": lambda o: o.channel_weight("features_3", ALONG),
    "interpolation": lambda o: o.channel_interpolate("features_1", 0, "features_3", 1),
    "alignment": lambda o: o.alignment("features_3"),
    "diversity": lambda o: -2 * o.diversity("features_3"),
    "sum": lambda o: o.Objective.sum([o.channel("features_3", 1), o.neuron("features_1", 2)]),
    "algebra": lambda o: -o.channel("features_3", 1) * 0.5 + 3 - o.channel("labels", 2) / 4,
    "labels": lambda o: o.channel("labels", 2),
    "blur": lambda o: o.blur_input_each_step(),
    "function": lambda o: lambda T: -(T("features_1") ** 2).mean(),
}


def loss_of_lucent(net: nn.Module, objective: Any, pictures: Tensor) -> float:
    o, _, r, _ = theirs()
    before = {id(m): dict(m._forward_hooks) for m in net.modules()}
    try:
        T = r.hook_model(net, lambda: pictures)
        mean, sd = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        net((pictures - mean[:, None, None]) / sd[:, None, None])
        return float(o.as_objective(objective)(T))
    finally:
        for m in net.modules():
            m._forward_hooks.clear()
            m._forward_hooks.update(before[id(m)])


def value_of_ours(net: nn.Module, objective: Any, pictures: Tensor) -> Tensor:
    """The sum over pictures that `render_vis` maximizes."""
    from circuits.network.hooks import read
    from circuits.visualization.optimization import layer_names

    model = render._wrapped(net, preprocess=True)
    result = render._to_maximize(objective, len(pictures))
    names = layer_names(model, result)
    acts = read(model, pictures, [model.layers[n] for n in names.values()]) if names else {}
    return result(lambda n: pictures if n == "input" else acts[names[n]]).sum()


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_objectives_of_lucent_and_ours_have_the_same_value(net: nn.Module, name: str) -> None:
    o, _, _, _ = theirs()
    images = nets.pictures(3, 224)
    with torch.no_grad():
        expected = -loss_of_lucent(net, OBJECTIVES[name](o), images)
        for objective in (OBJECTIVES[name](o), OBJECTIVES[name](objectives)):
            assert float(value_of_ours(net, objective, images)) == pytest.approx(expected, abs=1e-4)
    if name not in ("text", "function"):
        assert OBJECTIVES[name](objectives).description == OBJECTIVES[name](o).description
        assert OBJECTIVES[name](objectives).name == OBJECTIVES[name](o).name


@pytest.mark.parametrize("count", [2, 5])
def test_terms_of_images_and_of_the_batch_weigh_as_in_lucent_at_any_batch_size(net: nn.Module, count: int) -> None:
    """Worked out in plain PyTorch: a channel's mean less ten times Lucent's mean cosine of Gram matrices."""
    images = nets.pictures(count, 64).requires_grad_()
    mean, sd = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    acts = net.features[:4]((images - mean[:, None, None]) / sd[:, None, None])  # type: ignore[index]
    flat = acts.flatten(2)
    grams = nn.functional.normalize((flat @ flat.mT).flatten(1), dim=1)
    right = acts[:, 3].mean() - 10 * ((grams @ grams.T).sum() - count) / count + acts[1, 2].mean()
    expected = torch.autograd.grad(right, images)[0]
    o = objectives
    mixed = o.channel("features_3", 3) - 10 * o.diversity("features_3") + o.channel("features_3", 2, batch=1)
    own = value_of_ours(net, mixed, images)
    torch.testing.assert_close(own, right, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(own, images)[0], expected, atol=1e-6, rtol=1e-4)


def test_a_batch_is_optimized_as_lucent_optimizes_it(net: nn.Module) -> None:
    """A step of plain gradient descent on two images is a step along the gradient of Lucent's loss."""
    start = nets.pictures(2, 224)
    image = start.clone().requires_grad_()
    goal = objectives.channel("features_3", 3) - 5 * objectives.diversity("features_3")
    render.render_vis(
        net, goal, lambda: ([image], lambda: image), lambda ps: torch.optim.SGD(ps, lr=2.0), [], (1,), progress=False
    )
    point = start.clone().requires_grad_()
    step = torch.autograd.grad(value_of_ours(net, goal, point), point)[0]
    torch.testing.assert_close(image.detach(), start + 2 * step, atol=1e-6, rtol=1e-5)


def test_a_function_of_ones_own_counts_once_per_image_among_native_objectives() -> None:
    from circuits.visualization import objectives as native

    acts = nets.pictures(3, 4)

    def T(_: str) -> Tensor:
        return acts

    mixed = native.channel("a", 1) + native.as_objective(lambda T: -T("a")[:, 2].mean())
    torch.testing.assert_close(mixed(T).sum() / 3, acts[:, 1].mean() + acts[:, 2].mean())


def test_a_group_of_positions_is_weighted(net: nn.Module) -> None:
    o, _, _, _ = theirs()
    acts = nets.pictures(2, (9, 9), channels=8)
    for objective in (
        lambda o: o.localgroup_weight("a", ALONG, x=2, y=3, wx=3, wy=2),
        lambda o: o.localgroup_weight("a", None, x=2, y=3, batch=1),
        lambda o: o.neuron_weight("a", None),
        lambda o: o.neuron_weight("a", ALONG, x=1, y=2),
    ):
        torch.testing.assert_close(objective(objectives)(lambda _: acts), objective(o)(lambda _: acts))


def test_render_vis_returns_what_lucent_returns(net: nn.Module, tmp_path: Any) -> None:
    images = render.render_vis(
        net, "features_2:3", lambda: param.image(32, batch=2), thresholds=(1, 3), progress=False, show_image=False,
        save_image=True, image_name=str(tmp_path / "a.png"),
    )  # fmt: skip
    assert [i.shape for i in images] == [(2, 32, 32, 3)] * 2 and images[0].dtype == np.float32
    assert (tmp_path / "a.png").exists() and not np.array_equal(images[0], images[1])


def test_no_hook_is_left_and_weights_still_ask_for_gradients(net: nn.Module) -> None:
    before = nets.hook_count(net)
    for _ in range(2):
        render.render_vis(net, "features_2:3", lambda: param.image(16), thresholds=(1,), progress=False)
    assert nets.hook_count(net) == before and all(p.requires_grad for p in net.parameters())


def test_lucents_own_objects_work_in_our_loop(net: nn.Module) -> None:
    o, p, _, t = theirs()
    torch.manual_seed(0)
    given = p.image(32, batch=2)
    start = given[1]().detach().clone()
    images = render.render_vis(
        net, o.channel("features_2", 3) + o.neuron("features_2", 1), lambda: given,
        optimizer=lambda ps: torch.optim.Adam(ps, lr=0.05), transforms=[t.pad(4), t.jitter(4)], thresholds=(4,),
        progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(images[0], given[1]().detach().permute(0, 2, 3, 1).numpy())
    assert not torch.equal(start, given[1]().detach())


def test_without_transformations_both_loops_take_the_same_steps(net: nn.Module) -> None:
    _, p, r, _ = theirs()
    batch = []
    for call, objective in ((r.render_vis, "features_2:3"), (render.render_vis, objectives.channel("features_2", 3))):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # not Adam: its first steps are signs of gradients, and those of next to nothing are rounding
            images = call(
                net, objective, lambda: p.image(48), lambda ps: torch.optim.SGD(ps, lr=300.0), [], (1, 12),
                progress=False, show_image=False,
            )  # fmt: skip
        batch.append(images)
        for m in net.modules():
            m._forward_hooks.clear()  # Lucent leaves them behind
    assert np.abs(batch[0][0] - batch[0][1]).max() > 0.05
    np.testing.assert_allclose(batch[0], batch[1], atol=1e-4)


def test_an_optimizer_that_needs_a_closure_runs(net: nn.Module) -> None:
    images = render.render_vis(
        net, "features_2:3", lambda: param.image(16), optimizer=lambda ps: torch.optim.LBFGS(ps, max_iter=3),
        transforms=[], thresholds=(2,), progress=False,
    )  # fmt: skip
    assert np.isfinite(images[0]).all()


def test_objectives_of_ones_own_are_losses_as_in_lucent(net: nn.Module) -> None:
    @objectives.wrap_objective()
    def darkest(layer: str, batch: int | None = None) -> Callable[[Any], Tensor]:
        @objectives.handle_batch(batch)
        def inner(T: Any) -> Tensor:
            return T(layer).mean()

        return inner

    before = param.image(16, seed=0)[1]().mean().detach()
    images = render.render_vis(
        net, darkest("input"), lambda: param.image(16, seed=0), thresholds=(5,), transforms=[], progress=False
    )
    assert float(images[0].mean()) < float(before)


def test_parametrizations_have_lucents_shapes() -> None:
    for options in ({}, {"fft": False}, {"decorrelate": False}):
        assert param.image(20, 12, batch=2, **options)[1]().shape == (2, 3, 12, 20)
    assert param.image(8, channels=5)[1]().shape == (1, 5, 8, 8)
    assert param.cppn(16)[1]().shape == (1, 3, 16, 16)
    torch.manual_seed(1)
    first = param.image(8)[1]()
    torch.manual_seed(1)
    assert torch.equal(first, param.image(8)[1]())


def test_parametrizations_of_numbers_are_lucents() -> None:
    _, p, _, _ = theirs()
    for call in (
        lambda p: p.fft_image((2, 3, 8, 10), decay_power=2),
        lambda p: p.fft_image((1, 1, 1, 1)),
        lambda p: p.pixel_image((2, 3, 4, 5), sd=0.1),
        lambda p: p.lowres_tensor((6, 3, 12, 10), (1, 3, 4, 4)),
        lambda p: p.lowres_tensor((6, 3, 12, 10), (1, 3, 4, 4), offset=2),
        lambda p: p.lowres_tensor((6, 3, 12, 10), (2, 3, 4, 5), offset=[1, False, 1, True]),
    ):
        torch.manual_seed(0)
        (own,), own_image = call(param)
        torch.manual_seed(0)
        (other,), other_image = call(p)
        assert torch.equal(own, other) and own.requires_grad
        torch.testing.assert_close(own_image(), other_image(), atol=1e-6, rtol=1e-5)
    torch.manual_seed(0)
    image = param.to_valid_rgb(param.pixel_image((2, 3, 4, 5), sd=1.0)[1], decorrelate=True)()
    torch.manual_seed(0)
    torch.testing.assert_close(image, p.images.to_valid_rgb(p.pixel_image((2, 3, 4, 5), sd=1.0)[1], decorrelate=True)())
    assert param.cppn(8, 4)[1]().shape == (1, 4, 8, 8)  # Lucent's second argument: the channels


def test_transforms_are_functions_too_and_compose() -> None:
    images = nets.pictures(2, (9, 12))
    torch.manual_seed(0)
    moved = transform.jitter(8)(images)
    shifts = [(y, x) for y in range(-4, 5) for x in range(-4, 5)]
    for before, after in zip(images, moved, strict=True):  # each image by whole pixels of its own, black outside
        padded = nn.functional.pad(before, [4] * 4)
        assert any(torch.allclose(after, padded[:, 4 - y : 13 - y, 4 - x : 16 - x], atol=1e-6) for y, x in shifts)
    assert not torch.equal(moved, images)
    assert transform.random_scale([1.5])(images).shape == (2, 3, 14, 18)
    small = transform.random_scale([0.5])(images)
    assert small.shape == (2, 3, 9, 12) and float(small[..., 0, :].abs().max()) == 0
    torch.testing.assert_close(
        transform.normalize()(images), (images - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_SD)
    )
    assert torch.equal(transform.preprocess_inceptionv1()(images), images * 255 - 117)
    torch.manual_seed(0)
    both = transform.compose([transform.pad(2), transform.compose([transform.jitter(4)])])
    assert both(images).shape == (2, 3, 13, 16) and len(both) == 2


def test_composed_transforms_run_in_render_vis_with_its_seed(net: nn.Module) -> None:
    def run(transforms: Any) -> Any:
        return render.render_vis(
            net, "features_2:3", lambda: param.image(24, seed=0), transforms=transforms, thresholds=(3,), progress=False
        )[0]

    parts = [transform.pad(4), transform.jitter(8), transform.random_scale([0.9, 1.1])]
    assert np.array_equal(run(parts), run([transform.compose(parts)]))


def test_transforms_compose_as_functions() -> None:
    images = nets.pictures(1, 8)
    grown = transform.compose([transform.pad(2), transform.pad(1, mode="constant", constant_value=0.0)])(images)
    assert grown.shape == (1, 3, 14, 14) and float(grown[0, 0, 0, 0]) == 0
    assert torch.equal(grown[..., 3:-3, 3:-3], images)


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (VisualizationError, lambda net: render.render_vis(net, "features_2:3", thresholds=(), progress=False)),
        (VisualizationError, lambda net: render.render_vis(net, "features_2", thresholds=(1,), progress=False)),
        (AddressError, lambda net: render.render_vis(net, "nowhere:1", thresholds=(1,), progress=False)),
        (VisualizationError, lambda net: transform.jitter(1)),
        (VisualizationError, lambda net: objectives.channel("a", 1) * objectives.channel("a", 2)),
        (VisualizationError, lambda net: objectives.channel("a", 1) / 0),
        (VisualizationError, lambda net: objectives.channel("a", 1, batch=2)(lambda _: torch.zeros(2, 3, 4, 4))),
        (VisualizationError, lambda net: objectives.channel_weight("a", ALONG)(lambda _: torch.zeros(2, 3, 4, 4))),
        (
            VisualizationError,
            lambda net: objectives.localgroup_weight("a", x=3, y=3, wx=2)(lambda _: torch.zeros(1, 3, 4, 4)),
        ),
        (VisualizationError, lambda net: param.lowres_tensor((1, 3, 4, 4), (3, 4, 4))),
        (CaptureError, lambda net: render.hook_model(net, lambda: None)("features_2")),
        (AddressError, lambda net: render.hook_model(net, lambda: None)("nowhere")),
        (VisualizationError, lambda net: transform.random_rotate([1], units="turns")),
    ],
)
def test_mistakes_are_errors_not_warnings(net: nn.Module, error: type[Exception], call: Callable[[Any], Any]) -> None:
    with pytest.raises(error):
        call(net)


def test_hooks_read_the_latest_run_and_are_removed(net: nn.Module) -> None:
    before = nets.hook_count(net)
    images = nets.pictures(2, 40).requires_grad_()
    T = render.hook_model(net, lambda: images)
    for scale in (1.0, 2.0):
        net(images * scale)
        torch.testing.assert_close(T("features_2"), net.features[:3](images * scale))  # type: ignore[index]
        net(images * scale)
    assert torch.equal(T("labels"), net(images * 2)) and T("input") is images
    assert float(torch.autograd.grad(T("features_2").sum(), images)[0].abs().sum()) > 0
    assert nets.hook_count(net) > before
    del T
    assert nets.hook_count(net) == before
    render.hook_model(net, lambda: images).close()  # type: ignore[attr-defined]
    assert nets.hook_count(net) == before


@pytest.mark.parametrize("form", ["as it is", "copied", "as a model"])
def test_a_module_of_the_zoo_is_fed_as_its_card_says(form: str) -> None:
    """Of `scenes`: (x - 0.5) / 0.25, not ImageNet's mean and deviation."""
    model = circuits.load("scenes")
    module = {
        "as it is": lambda: model.module,
        "copied": lambda: copy.deepcopy(model.module),
        "as a model": lambda: model,
    }[form]()
    fed: list[Tensor] = []
    inner = module.module if isinstance(module, circuits.Model) else module
    handle = inner.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0].detach()))
    image = torch.full((1, 3, 64, 64), 0.75).requires_grad_()
    for preprocess, value in ((True, 1.0), (False, 0.75)):
        render.render_vis(
            module, "mixed4a:11", lambda: ([image], lambda: image), lambda ps: torch.optim.SGD(ps, lr=0.0), [], (1,),
            preprocess=preprocess, progress=False,
        )  # fmt: skip
        torch.testing.assert_close(fed[-1], torch.full((1, 3, 224, 224), value))
    handle.remove()
    if not isinstance(module, circuits.Model):
        assert "_zoo_origin" in module.__getstate__()  # what a pickle of it holds
        assert circuits.wrap(module).input == model.input
        assert circuits.wrap(module, circuits.InputSpec(size=32)).input == circuits.InputSpec(size=32)


def test_an_inceptionv1_that_nobody_loaded_is_not_fed_by_guess() -> None:
    with pytest.raises(VisualizationError, match="how it is fed is not known"):
        render.render_vis(nets.tiny_inception(), "mixed3a:1", thresholds=(1,), progress=False)
