"""Universality: a net matches itself whatever the order of its channels; noise and other images do not match."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import circuits
from circuits.common.untrained import untrained
from circuits.errors import AddressError, CircuitsError
from circuits.units.universality import RANDOM, SHUFFLED, match, match_responses, match_tuning
from tests import nets
from zoo.weights.loading import digest


class Small(nn.Module):
    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.first_pre = nn.Conv2d(3, 12, 5, padding=2, stride=stride)
        self.first = nn.ReLU()
        self.second_pre = nn.Conv2d(12, 10, 3, padding=1)
        self.second = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(self.second_pre(self.first(self.first_pre(x))))
        return out


ORDER = torch.randperm(10, generator=torch.Generator().manual_seed(1))


def small(seed: int = 0, size: int = 16) -> circuits.Model:
    return circuits.wrap(nets.randomized(Small(), seed), circuits.InputSpec(size=size), name="small")


def permuted() -> circuits.Model:
    """The same net; its second layer's channels stand in another order and are scaled."""
    module = nets.randomized(Small())
    assert isinstance(module, Small) and module.second_pre.bias is not None
    with torch.no_grad():
        scale = torch.linspace(0.5, 3, 10)
        module.second_pre.weight.copy_((module.second_pre.weight * scale[:, None, None, None])[ORDER])
        module.second_pre.bias.copy_((module.second_pre.bias * scale)[ORDER])
    return circuits.wrap(module.eval(), circuits.InputSpec(size=16), name="permuted")


PICTURES = nets.pictures(12)


@pytest.mark.parametrize("assignment", [False, True])
def test_permuted_units_are_matched_with_themselves(assignment: bool) -> None:
    found = match(small(), "second", permuted(), "second", images=PICTURES, assignment=assignment)
    silent = 10 - len(found.pairs)
    assert silent <= 2 and found.assignment == assignment
    for pair in found.pairs:
        mine, theirs = (int(name.rpartition(":")[2]) for name in (pair.unit, pair.other))
        assert int(ORDER[theirs]) == mine
        assert pair.correlation == pytest.approx(1, abs=1e-5) and pair.mutual
        assert pair.chance[RANDOM] < 0.9 and pair.chance[SHUFFLED] < 0.9
    assert found.pairs[0].unit.startswith("small/second:") and found.pairs[0].other.startswith("permuted/second:")
    summary = found.summary()
    assert summary["mutual"] == len(found.pairs) and summary["median"] == pytest.approx(1, abs=1e-5)
    assert summary["controls"][RANDOM]["beaten"] == len(found.pairs)


def test_two_random_nets_match_no_better_than_the_control() -> None:
    found = match(small(0), "second", small(5), "second", images=PICTURES)
    summary = found.summary()
    assert summary["median"] < 0.9 and abs(summary["median"] - summary["controls"][RANDOM]["median"]) < 0.25


def test_a_unit_is_looked_for_in_several_layers() -> None:
    found = match(small(), "second", permuted(), ["first", "second"], images=PICTURES, controls=False)
    assert len(found.others) == 22 and not found.controls
    assert {p.other.partition(":")[0] for p in found.pairs} == {"permuted/second"}
    branch = match(small(), "second", permuted(), "second", images=PICTURES, controls=False)
    assert found.of("second:1").correlation == branch.of("small/second:1").correlation


def test_places_are_the_same_in_nets_of_another_size() -> None:
    """The same function at half the resolution: read at the same places of the picture it is alike."""
    blobs = torch.nn.functional.interpolate(
        torch.rand(12, 3, 4, 4, generator=torch.Generator().manual_seed(2)), 32, mode="bicubic"
    )
    blobs = blobs.clamp(0, 1)
    fine = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
    coarse = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
    nets.randomized(fine)
    coarse.load_state_dict({f"1.{name.partition('.')[2]}": value for name, value in fine.state_dict().items()})
    a, b = (circuits.wrap(net.eval(), circuits.InputSpec(size=32)) for net in (fine, coarse))
    found = match(a, "1", b, "2", images=blobs, controls=False)
    right = [pair for pair in found.pairs if pair.unit.rpartition(":")[2] == pair.other.rpartition(":")[2]]
    assert len(right) >= len(found.pairs) - 1 and np.median([p.correlation for p in right]) > 0.8


def test_mutual_and_assigned_matches_by_hand() -> None:
    """Unit 0 and 1 both like other 0 best; other 0 likes unit 0."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(4000, 3))
    a = np.stack([base[:, 0], base[:, 0] + 0.7 * base[:, 1], base[:, 2]], axis=1)
    b = np.stack([base[:, 0], 0.5 * base[:, 0] + base[:, 1] * 0.3 + base[:, 2]], axis=1)
    units, others = ["a:0", "a:1", "a:2"], ["b:0", "b:1"]
    best = match_responses(a, b, units=units, others=others)
    assert {p.unit: (p.other, p.mutual) for p in best.pairs} == {
        "a:0": ("b:0", True), "a:1": ("b:0", False), "a:2": ("b:1", True),
    }  # fmt: skip
    assert best.of("a:1").correlation == pytest.approx(1 / np.sqrt(1.49), abs=0.02)
    again = match_responses(a, b, units=units, others=others, controls={"same": b, "one": b[:, :1]})
    assert again.mutual_by_chance == {"same": len(best.mutual), "one": 1}
    given = match_responses(a, b, units=units, others=others, assignment=True)
    assert {p.unit: p.other for p in given.pairs} == {"a:0": "b:0", "a:2": "b:1"}


def test_units_that_never_vary_have_no_match() -> None:
    a = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 3.0]])
    for assignment in (False, True):
        found = match_responses(a, a, units=["a:0", "a:1"], others=["b:0", "b:1"], assignment=assignment)
        assert [(p.unit, p.other) for p in found.pairs] == [("a:1", "b:1")]
    with pytest.raises(CircuitsError, match="has no match"):
        found.of("a:0")


def test_tuning_is_matched_stimulus_by_stimulus() -> None:
    angles = np.deg2rad(np.arange(0, 360, 10))
    peaks_a, peaks_b = np.deg2rad([0, 90, 200]), np.deg2rad([205, 5, 95])
    a = np.stack([np.exp(2 * np.cos(angles - p)) for p in peaks_a])[:, :, None] * [1.0, 0.5]
    b = SimpleNamespace(
        responses=np.stack([np.exp(2 * np.cos(angles - p)) for p in peaks_b])[:, :, None] * [1.0, 0.5],
        units=("b:0", "b:1", "b:2"),
    )
    found = match_tuning((a, ["a:0", "a:1", "a:2"]), b)
    assert {p.unit: p.other for p in found.pairs} == {"a:0": "b:1", "a:1": "b:2", "a:2": "b:0"}
    assert all(p.mutual and p.correlation > 0.98 for p in found.pairs)
    assert max(p.chance["shuffled stimuli"] for p in found.pairs) < 0.9
    with pytest.raises(CircuitsError, match="the same ones"):
        match_tuning((a[:, :5], ["a:0", "a:1", "a:2"]), b)


def test_an_untrained_copy_has_new_weights_and_leaves_the_model_alone(
    inception: circuits.Model, unchanged: list[circuits.Model]
) -> None:
    unchanged.append(inception)
    blank = untrained(inception)
    assert blank.digest != inception.digest and list(blank.layers) == list(inception.layers)
    assert digest(untrained(inception).module.state_dict()) == digest(blank.module.state_dict())
    assert digest(untrained(inception, seed=1).module.state_dict()) != digest(blank.module.state_dict())
    acts = circuits.capture(blank, nets.pictures(4, 64), "mixed4a")["mixed4a"]
    assert float((acts > 0).float().mean()) > 0.1 and acts.std() > 1e-3


def test_an_untrained_copy_forgets_normalization_too() -> None:
    model = nets.wrap(nets.sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    blank = untrained(model)
    norm = blank.module[1]  # type: ignore[index]
    assert torch.equal(norm.running_mean, torch.zeros(4)) and torch.equal(norm.weight, torch.ones(4))
    with circuits.edit(model, [circuits.Ablate("2:0")]):
        with pytest.raises(CircuitsError, match="being edited"):
            untrained(model)


def test_results_repeat_and_are_ready_for_json() -> None:
    a = match(small(), "second", permuted(), "second", images=PICTURES, positions=4)
    b = match(small(), "second", permuted(), "second", images=PICTURES, positions=4)
    assert json.dumps(a.describe()) == json.dumps(b.describe())
    assert a.samples == 48 and a.describe()["provenance"]["seed"] == 0


def test_latents_are_matched_like_channels() -> None:
    model = small()
    model.attach("second", "some", circuits.Directions(torch.eye(10)[[3, 7]]))
    found = match(model, "second~some", permuted(), "second", images=PICTURES, controls=False)
    for pair in found.pairs:
        latent, theirs = int(pair.unit[-1]), int(pair.other.rpartition(":")[2])
        assert int(ORDER[theirs]) == (3, 7)[latent] and pair.correlation == pytest.approx(1, abs=1e-5)


def test_bad_questions_are_refused() -> None:
    with pytest.raises(CircuitsError, match="at least two images"):
        match(small(), "second", permuted(), "second", images=PICTURES[:1])
    with pytest.raises(CircuitsError, match="at least one layer"):
        match(small(), "second", permuted(), [], images=PICTURES)
    with pytest.raises(AddressError, match="no layer"):
        match(small(), "second", permuted(), "third", images=PICTURES)
    with pytest.raises(CircuitsError, match="same two or more samples"):
        match_responses(np.ones((3, 2)), np.ones((4, 2)), units=["a", "b"], others=["a", "b"])
    with pytest.raises(CircuitsError, match="addresses"):
        match_responses(np.ones((3, 2)), np.ones((3, 2)), units=["a"], others=["a", "b"])


def test_figures_show_pairs_controls_and_the_diagonal() -> None:
    from circuits.plot.units.comparison import match_matrix, match_table

    found = match(small(), "second", permuted(), "second", images=PICTURES)
    said = [t.get_text() for t in match_table(found, n=4).axes[0].texts]
    assert sum(t.endswith("mutual") and t[0] == "1" for t in said) == 4
    assert f"best in {RANDOM}" in said and f"best in {SHUFFLED}" in said
    figure = match_matrix(found)
    matrix = np.asarray(figure.axes[0].get_images()[0].get_array())
    full = matrix[np.arange(len(matrix)), np.arange(len(matrix))]
    assert len(matrix) == len(found.pairs) and (full == full[0]).all()  # each row's own column has full color
    empty = match_responses(np.zeros((3, 2)), np.zeros((3, 2)), units=["a:0", "a:1"], others=["b:0", "b:1"])
    assert empty.pairs == () and match_table(empty) is not None and match_matrix(empty) is not None
    assert empty.summary()["median"] == 0
