"""Objectives: what they say in closed form, their algebra, and that three steps raise each."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import circuits
from circuits.visualization import VisualizationError, objectives, parametrizations, visualize
from circuits.visualization.objectives import Objective, stack
from tests import nets


def seen(acts: Tensor) -> objectives.Seen:
    return lambda name: acts


@pytest.fixture
def acts() -> Tensor:
    return torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))


def test_channel_is_the_mean_and_neuron_the_value_at_a_position(acts: Tensor) -> None:
    torch.testing.assert_close(objectives.channel("a", 2)(seen(acts)), acts[:, 2].mean((1, 2)))
    torch.testing.assert_close(objectives.neuron("a", 1, x=5, y=0)(seen(acts)), acts[:, 1, 0, 5])
    torch.testing.assert_close(objectives.neuron("a", 1)(seen(acts)), acts[:, 1, 2, 3])


def test_a_one_hot_direction_is_its_channel(acts: Tensor) -> None:
    along = torch.eye(4)[2]
    torch.testing.assert_close(objectives.direction("a", along)(seen(acts)), acts[:, 2].mean((1, 2)))
    torch.testing.assert_close(objectives.direction_neuron("a", along, 1, 4)(seen(acts)), acts[:, 2, 4, 1])


def test_the_cosine_power_multiplies_by_the_cosine_but_never_by_less_than_a_tenth(acts: Tensor) -> None:
    along = torch.tensor([1.0, -2.0, 0.5, 3.0])
    dot = torch.einsum("nchw,c->nhw", acts, along)
    cosine = dot / (acts.norm(dim=1) * along.norm())
    expected = (dot * cosine.clamp(min=0.1) ** 2).mean((1, 2))
    torch.testing.assert_close(objectives.direction("a", along, cossim_pow=2)(seen(acts)), expected)


def test_norms_and_total_variation_by_hand() -> None:
    image = torch.tensor([[[[0.5, 1.0], [0.0, 0.5]]]])
    assert float(objectives.total_variation()(seen(image))) == pytest.approx(0.5 + 0.5 + 0.5 + 0.5)
    assert float(objectives.l1()(seen(image))) == pytest.approx(1.0)
    assert float(objectives.l2()(seen(image))) == pytest.approx(0.5**0.5, abs=1e-5)
    assert float(objectives.deepdream("a")(seen(image))) == pytest.approx((0.25 + 1 + 0.25) / 4)


def test_diversity_is_the_cosine_of_gram_matrices_with_the_others(acts: Tensor) -> None:
    grams = [(a.flatten(1) @ a.flatten(1).T).flatten() for a in acts]
    expected = [
        sum(float(torch.cosine_similarity(g, h, dim=0)) for j, h in enumerate(grams) if j != i)
        for i, g in enumerate(grams)
    ]
    torch.testing.assert_close(objectives.diversity("a")(seen(acts)), torch.tensor(expected))


def test_a_caricature_is_dot_times_cosine_with_the_given_activations(acts: Tensor) -> None:
    given = acts[:1].clone()
    dot = (acts * given).flatten(1).mean(1)
    cosine = torch.cosine_similarity(acts.flatten(1), given.expand_as(acts).flatten(1), dim=1).clamp(min=0.1)
    torch.testing.assert_close(objectives.caricature("a", given)(seen(acts)), dot * cosine)


def test_algebra_is_that_of_the_values(acts: Tensor) -> None:
    a, b = objectives.channel("a", 0), objectives.channel("a", 1)
    x, y = a(seen(acts)), b(seen(acts))
    for combined, expected in [
        (a + b, x + y), (a - b, x - y), (-a, -x), (2 * a, 2 * x), (a * 0.5, x / 2), (a / 4, x / 4), (a + 1, x + 1),
        (1 - a, 1 - x), (Objective.sum([a, b, a]), 2 * x + y), (Objective.mean([a, b]), (x + y) / 2),
        (sum([a, b]), x + y),
    ]:  # fmt: skip
        assert isinstance(combined, Objective)
        torch.testing.assert_close(combined(seen(acts)), expected)
    assert (a + objectives.neuron("b", 0)).layers == ("a", "b")


def test_stacked_objectives_give_each_image_its_own(acts: Tensor) -> None:
    several = [2 * objectives.channel("a", i) - objectives.neuron("a", 3 - i, i, i) for i in range(3)]
    expected = torch.stack([o(seen(acts))[i] for i, o in enumerate(several)])
    torch.testing.assert_close(stack(several)(seen(acts)), expected)
    along = [objectives.direction("a", v) for v in torch.randn(3, 4)]
    torch.testing.assert_close(stack(along)(seen(acts)), torch.stack([o(seen(acts))[i] for i, o in enumerate(along)]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: stack([objectives.channel("a", 0), objectives.channel("b", 0)]),
        lambda: stack([objectives.channel("a", 0), -objectives.channel("a", 0)]),
        lambda: objectives.channel("a", -1),
        lambda: objectives.channel("a", True),
        lambda: objectives.neuron("a", 0, x=1),
        lambda: objectives.direction("a", torch.ones(2, 2)),
        lambda: objectives.direction("a", torch.tensor([float("nan")])),
        lambda: objectives.channel("a", 0) * float("inf"),
        lambda: objectives.channel("a", 0) / 0,
        lambda: Objective.sum([]),
        lambda: objectives.as_objective("mixed4a"),
        lambda: objectives.as_objective(3),  # type: ignore[arg-type]
    ],
)
def test_objectives_that_make_no_sense_are_refused(make: object) -> None:
    with pytest.raises(VisualizationError):
        make()  # type: ignore[operator]


def _objectives(model: circuits.Model) -> dict[str, Objective]:
    acts = circuits.capture(model, nets.pictures(1, 32), "b")["b"]
    along = torch.linspace(-1, 1, acts.shape[1])
    return {
        "channel": objectives.channel("b", 1),
        "neuron": objectives.neuron("b", 2),
        "direction": objectives.direction("b", along),
        "direction with cosine": objectives.direction("b", along, cossim_pow=1),
        "direction neuron": objectives.direction_neuron("b", along),
        "deepdream": objectives.deepdream("b"),
        "class logit": objectives.class_logit(1),
        "caricature": objectives.caricature("b", acts),
        "less variation": -objectives.total_variation(),
        "away from gray": objectives.l1() + objectives.l2(),
        "blur": -objectives.blur_input_each_step(),
        "negative": -objectives.channel("a", 0),
        "unlike each other": objectives.channel("b", 1) - 0.1 * objectives.diversity("b"),
        "a function": objectives.as_objective(lambda T: -T("b")[:, 3].mean()),
    }


@pytest.fixture(scope="module")
def small() -> circuits.Model:
    return nets.wrap(nets.randomized(nets.Functional()), 32)


@pytest.mark.parametrize("name", list(_objectives(nets.wrap(nets.randomized(nets.Functional()), 32))))
def test_three_steps_raise_every_objective(small: circuits.Model, name: str) -> None:
    objective = _objectives(small)[name]
    noisy = parametrizations.Pixels(sd=1.0)  # no objective is at its best to begin with
    result = visualize(small, objective, steps=4, transforms=[], size=32, params=noisy, rate=0.01)[0]
    assert result.history[-1] > result.history[0]
