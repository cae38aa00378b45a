"""What cannot be ranked, scored or counted from a baseline is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import circuits
from circuits.errors import CircuitsError, ConstantError
from tests import nets

SIZE = 10
PICTURES = nets.pictures(8, SIZE)
OTHERS = nets.pictures(8, SIZE, seed=1)
Verb = Callable[..., Any]


class Net(nn.Module):
    """Two convolutions and class scores; the third score is a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3), nn.ReLU()
        self.middle, self.scores = nn.ReLU(), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.relu(self.second(self.middle(self.first(x))))
        scores: Tensor = self.scores(maps.mean((2, 3)))
        return scores


@pytest.fixture(scope="module")
def model() -> circuits.Model:
    network = nets.randomized(Net())
    with torch.no_grad():
        network.scores.weight[2] = 0
    return nets.wrap(network, SIZE)


def rank(model: circuits.Model, images: Any = PICTURES, target: Any = "scores:0", **options: Any) -> Any:
    return circuits.rank(model, target, images=images, layers="middle", **options)


def size_curve(model: circuits.Model, images: Any = PICTURES, target: Any = "scores:0", **options: Any) -> Any:
    ranking = circuits.rank(model, "scores:0", images=PICTURES, against=OTHERS, layers="middle")
    return circuits.size_curve(model, ranking, images=images, held_out=False, random=1, **options)


def smallest(model: circuits.Model, images: Any = PICTURES, target: Any = "scores:0", **options: Any) -> Any:
    return circuits.smallest(model, target, images=images, layers="middle", steps=2, **options)


def score(model: circuits.Model, images: Any = PICTURES, target: Any = "scores:0", **options: Any) -> Any:
    circuit = circuits.trace(model, "scores:0", images=PICTURES, layers=["middle"], width=2, by="weights")
    return circuits.score(model, circuit, images=images, random=2, **options)


def trace(model: circuits.Model, images: Any = PICTURES, target: Any = "scores:0", **options: Any) -> Any:
    return circuits.trace(model, target, images=images, layers=["middle"], by="weights", **options)


def trace_ranked(model: circuits.Model, images: Any = PICTURES, target: Any = "scores:0", **options: Any) -> Any:
    return circuits.trace(model, target, images=images, layers=["middle"], by="integrated", **options)


VERBS: dict[str, Verb] = {f.__name__: f for f in (rank, size_curve, smallest, score, trace, trace_ranked)}


@pytest.mark.parametrize("verb", list(VERBS))
@pytest.mark.parametrize(
    ("message", "others"),
    [
        ("a counterfactual for each image: got 5 for 8 images", OTHERS[:5]),
        ("image 0 is 10x10 pixels and its counterfactual 10x12: give pairs of one size", nets.pictures(8, (10, 12))),
        ("image tensor-00000[0-9] and its counterfactual are the same image", PICTURES),
    ],
)
def test_pairs_that_do_not_fit_are_refused(model: circuits.Model, verb: str, message: str, others: Tensor) -> None:
    with pytest.raises(CircuitsError, match=message):
        VERBS[verb](model, against=others)


def test_a_pair_of_another_size_is_found_among_others(model: circuits.Model) -> None:
    images = [Image.new("RGB", (SIZE, SIZE), (20 * i, 0, 90)) for i in range(4)]
    others = [Image.new("RGB", (SIZE, SIZE + 2 * (i == 2)), (0, 20 * i, 10)) for i in range(4)]
    with pytest.raises(CircuitsError, match="image 2 is 10x10 pixels and its counterfactual 12x10"):
        rank(model, images, against=others)
    larger = [image.resize((20, 20)) for image in images]
    assert len(rank(model, larger, against=[image.resize((20, 20)) for image in others]).units) == 4


def test_a_target_that_does_not_vary_is_refused(model: circuits.Model) -> None:
    """A sum of probabilities is 1 up to the last digit, which is no variation."""
    for target in ("scores:2", lambda out: out.softmax(dim=1).sum(dim=1)):
        for verb in (rank, smallest):
            with pytest.raises(ConstantError, match="has the same response to all of these images"):
                verb(model, target=target)
    with pytest.raises(ConstantError, match="has the same response"):
        score(model, PICTURES[:1].expand(4, -1, -1, -1))
    with pytest.raises(ConstantError, match="has the same response"):
        trace_ranked(model, PICTURES[:1].expand(4, -1, -1, -1))


def test_a_target_that_ablation_does_not_move_is_refused() -> None:
    """A circuit that was traced before the weights went to zero, in a network that reads the image beside it."""

    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.middle = nn.Conv2d(3, 4, 3), nn.ReLU()
            self.second, self.beside = nn.Conv2d(4, 2, 1), nn.Conv2d(3, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.second(self.middle(self.first(x))) + self.beside(x)
            return out.relu()

    network = nets.randomized(Beside())
    beside = nets.wrap(network, SIZE)
    target = next(reversed(beside.layers)) + ":0"
    circuit = circuits.trace(beside, target, images=PICTURES, layers=["middle"], width=2)
    assert circuits.score(beside, circuit, images=PICTURES, random=2).faithfulness < 1
    with torch.no_grad():
        network.second.weight.zero_()
    with pytest.raises(CircuitsError, match="with and without all units of middle: it does not depend on them"):
        circuits.score(beside, circuit, images=PICTURES, random=2)
    with pytest.raises(CircuitsError, match="it does not depend on them on these images"):
        circuits.smallest(beside, target, images=PICTURES, layers="middle")


def test_a_mean_that_stays_where_the_map_moves_names_the_other_measure(model: circuits.Model) -> None:
    """A counterfactual that is the image mirrored: a unit's mean over positions is the same."""
    conv = nn.Conv2d(3, 4, 1)
    network = nets.randomized(nn.Sequential(conv, nn.ReLU(), nn.Conv2d(4, 2, 1)))
    mirror = nets.wrap(network, SIZE)
    options: dict[str, Any] = {"images": PICTURES, "against": PICTURES.flip(3), "layers": "1"}
    with pytest.raises(CircuitsError, match="its map does: take measure='explained variance'"):
        circuits.rank(mirror, "2:0", **options)
    assert circuits.rank(mirror, "2:0", measure="explained variance", **options).clean == {"1": 1.0}


def test_an_ablated_network_that_overflows_is_refused() -> None:
    class Overflows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.source, self.out = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.source(x).reciprocal())  # type: ignore[no-any-return]

    model = nets.wrap(nets.randomized(Overflows()), SIZE)
    with pytest.raises(CircuitsError, match="not a finite number with all units of source at baseline zero"):
        circuits.rank(model, "out:0", images=PICTURES, layers="source", baseline="zero")
