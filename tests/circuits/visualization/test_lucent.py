"""A Lucent user's code runs, and Lucent's own objects do: same values on the same picture, same steps, same words."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from circuits.errors import AddressError
from circuits.visualization import VisualizationError
from circuits.visualization.lucent import objectives, param, render, transform
from circuits.visualization.objectives import as_objective
from tests import nets


def theirs() -> Any:
    """torch-lucent, if it is here and can be imported."""
    pytest.importorskip("lucent", reason="needs the extra `lucent`")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lucent.optvis import objectives as o
        from lucent.optvis import param as p
        from lucent.optvis import render as r
        from lucent.optvis import transform as t

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


def value_of_ours(net: nn.Module, objective: Any, pictures: Tensor) -> float:
    """The sum over pictures that is raised; what Lucent averages over the batch is a mean of it."""
    from circuits.network.hooks import read
    from circuits.visualization.optimization import layer_names

    model = render._wrapped(net, preprocess=True)
    result = as_objective(objective)
    names = layer_names(model, result)
    acts = read(model, pictures, [model.layers[n] for n in names.values()]) if names else {}
    return float(result(lambda n: pictures if n == "input" else acts[names[n]]).sum())


_PER_PICTURE = {"text", "channel", "neuron", "neuron at a place", "direction", "direction at the center",
                "weights of channels", "sum", "algebra", "labels"}  # fmt: skip


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_objectives_of_lucent_and_ours_have_the_same_value(net: nn.Module, name: str) -> None:
    o, _, _, _ = theirs()
    images = nets.pictures(3, 224)
    with torch.no_grad():
        expected = -loss_of_lucent(net, OBJECTIVES[name](o), images)
        borrowed = value_of_ours(net, OBJECTIVES[name](o), images)
        own = value_of_ours(net, OBJECTIVES[name](objectives), images)
    if name in _PER_PICTURE:  # a value per picture here, and their sum is raised; Lucent takes the mean
        own /= 3
    if name == "text":  # there is nothing of Lucent's in it
        borrowed /= 3
    if name == "algebra":  # adding a number is adding to a loss with Lucent, to a value here
        own -= 6
    assert borrowed == pytest.approx(expected, abs=1e-4)
    assert own == pytest.approx(expected, abs=1e-4)


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
        (VisualizationError, lambda net: transform.random_rotate([1], units="turns")),
    ],
)
def test_mistakes_are_errors_not_warnings(net: nn.Module, error: type[Exception], call: Callable[[Any], Any]) -> None:
    with pytest.raises(error):
        call(net)
