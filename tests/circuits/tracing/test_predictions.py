"""The predictions as a target: a divergence worked out in numpy; and target functions that cannot be one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import circuits
from circuits.errors import CircuitsError
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.baselines import Mean, Zero
from circuits.tracing.curves.null_circuits import strengths
from circuits.tracing.target import target_of
from tests import nets
from zoo.images.sources import open_images

CHANNELS, CLASSES = 6, 4


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3)
        self.relu = nn.ReLU()
        self.head = nn.Linear(CHANNELS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.stem(x)).mean(dim=(2, 3)))  # type: ignore[no-any-return]


def prepared(*, graph: bool = True) -> tuple[circuits.Model, Classifier, Tensor, str]:
    module = nets.randomized(Classifier(), 4)
    assert isinstance(module, Classifier)
    with torch.no_grad():
        module.head.weight.mul_(6)
    model = nets.wrap(module if graph else nets.Undecided(module), 10)
    return model, module, nets.pictures(9, 10), "relu" if graph else "inner.relu"


def divergences(model: circuits.Model, module: Classifier, images: Tensor, ablated: set[int], mean: bool) -> Any:
    """KL(clean || ablated) of each image, in numpy."""
    with torch.no_grad():
        acts = module.relu(module.stem(model.input.normalize(images))).double()
    edited = acts.clone()
    for c in ablated:
        edited[:, c] = acts[:, c].mean() if mean else 0.0
    weight, bias = (p.detach().double().numpy() for p in (module.head.weight, module.head.bias))

    def predicted(maps: Tensor) -> Any:
        scores = maps.mean(dim=(2, 3)).numpy() @ weight.T + bias
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    p, q = predicted(acts), predicted(edited)
    return (p * (np.log(p) - np.log(q))).sum(axis=1)


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("mean", [True, False])
def test_the_response_is_minus_the_divergence(graph: bool, mean: bool) -> None:
    model, module, images, layer = prepared(graph=graph)
    target = target_of(model, "predictions")
    ablation = Ablation(model, target, [layer], open_images(images), Mean() if mean else Zero(), batch_size=4)
    assert ablation.measure == "mean" and not ablation.clean.any()
    for kept in (set(), {1}, {0, 3, 5}):
        expected = -divergences(model, module, images, set(range(CHANNELS)) - kept, mean)
        response = ablation.respond({layer: kept}).flatten().numpy()
        np.testing.assert_allclose(response, expected, rtol=1e-3, atol=1e-5)


def test_patching_is_exact_and_integrated_gradients_are_complete() -> None:
    model, module, images, layer = prepared()
    options: dict[str, Any] = {"images": images, "layers": [layer], "share": 1.0}
    patched = circuits.rank(model, "predictions", method="patching", **options)
    for c in range(CHANNELS):
        lost = divergences(model, module, images, {c}, True).mean()
        assert patched.score_of(f"{layer}:{c}") == pytest.approx(lost, rel=1e-3, abs=1e-6)
    integrated = circuits.rank(model, "predictions", method="integrated", steps=64, **options)
    whole = divergences(model, module, images, set(range(CHANNELS)), True).mean()
    assert sum(integrated.scores) == pytest.approx(whole, rel=1e-2)
    assert integrated.nothing[layer] == pytest.approx(-whole, rel=1e-3) and integrated.clean[layer] == 0


def test_curves_and_the_smallest_circuit_take_predictions() -> None:
    model, module, images, layer = prepared()
    ranking = circuits.rank(model, "predictions", images=images, layers=[layer], method="integrated")
    curve = circuits.size_curve(model, ranking, sizes=[3, CHANNELS], random=3)
    assert curve.f[-1] == 1.0 and curve.f[0] < 1.0
    assert curve.nothing < 0 == curve.clean
    small = circuits.smallest(model, "predictions", images=images, layers=[layer], keep=0.7, steps=15)
    assert small.found_share >= 0.7 and len(small.units) < CHANNELS


def test_strong_units_are_those_of_the_likeliest_class() -> None:
    model, module, images, layer = prepared()
    ablation = Ablation(model, target_of(model, "predictions"), [layer], open_images(images), Mean(), batch_size=4)
    with torch.no_grad():
        acts = module.relu(module.stem(model.input.normalize(images)))
        scores = module.head(acts.mean(dim=(2, 3)))
        best, p = scores.argmax(dim=1), scores.softmax(dim=1)
        slope = (module.head.weight[best] - p @ module.head.weight)[:, :, None, None] / acts[0, 0].numel()
        expected = (slope * acts).abs().sum(dim=(0, 2, 3))
    torch.testing.assert_close(strengths(ablation)[layer], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("has no gradient where nothing is ablated", {"method": "gradient"}),
        ("has no gradient where nothing is ablated", {"method": "weights"}),
        ("of the predictions rank the units", {"method": "integrated", "of": "edges"}),
        ("its measure is 'mean'", {"method": "patching", "measure": "explained variance"}),
    ],
)
def test_what_sees_nothing_of_a_divergence_is_refused(message: str, options: dict[str, Any]) -> None:
    model, _, images, layer = prepared()
    with pytest.raises(CircuitsError, match=message):
        circuits.rank(model, "predictions", images=images, layers=[layer], **options)


def detached(out: Tensor) -> Tensor:
    return out[:, 0].detach()


def out_of_range(out: Tensor) -> Tensor:
    return out[:, 99]


def constant(out: Tensor) -> Tensor:
    return torch.ones(len(out))


def infinite(out: Tensor) -> Tensor:
    return out[:, 0] / 0.0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (detached, "passes no gradient back: it detaches the output"),
        (out_of_range, r"out_of_range fails on an output of \(.*, 4\): IndexError"),
        (constant, "the same response to all of these images"),
        (infinite, "is not a finite number"),
    ],
)
def test_a_function_that_is_no_target_is_refused_in_one_line(
    function: Callable[[Tensor], Tensor], message: str
) -> None:
    model, _, images, layer = prepared()
    with pytest.raises(CircuitsError, match=message) as caught:
        circuits.rank(model, function, images=images, layers=[layer], method="integrated")
    assert "\n" not in str(caught.value)


def test_a_function_without_a_gradient_is_still_patched() -> None:
    model, _, images, layer = prepared()
    options: dict[str, Any] = {"images": images, "layers": [layer], "method": "patching", "share": 1.0}
    assert circuits.rank(model, detached, **options).scores == circuits.rank(model, "logits:0", **options).scores
