"""Detectors: planted ones are found and untrained ones are not; the wiring between them is read right."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import circuits
from circuits import stimuli
from circuits.common.untrained import untrained
from circuits.errors import AddressError, CircuitsError
from circuits.stimuli import StimuliError
from circuits.tuning.detectors import KINDS, Detector, find_detectors, frequency_factors, sign_rule
from circuits.units.high_low_factors import preferred_frequencies
from tests import nets
from tests.circuits import oriented


def near(a: float, b: float, within: float, period: float = 360.0) -> bool:
    return abs((a - b + period / 2) % period - period / 2) <= within


@pytest.fixture(scope="module")
def curves() -> circuits.detectors.Detectors:
    return find_detectors(oriented.curved(1.0, 8.0), "curve", layers="curves", batch_size=128)


# -- the search ---------------------------------------------------------------------------------------------------


def test_planted_curve_detectors_are_found_and_untrained_units_score_less(
    curves: circuits.detectors.Detectors,
) -> None:
    assert {d.unit for d in curves.rows} == {f"curved/curves:{i}" for i in range(8)}
    chance = curves.chance("curves")
    assert chance is not None and chance[0] < min(d.score for d in curves.rows)
    for d in curves.rows:
        assert near(d.orientation, oriented.CURVES[int(d.unit.rpartition(":")[2])], 5)
        assert d.score == min(d.tests.values()) and set(d.tests) == set(KINDS["curve"].means)
        assert d.p == d.false_discovery_rate == pytest.approx(1 / 9)
        assert d.preferred["radius"] == pytest.approx(oriented.RADIUS, rel=0.4)
    assert [d.score for d in curves.rows] == sorted((d.score for d in curves.rows), reverse=True)


def test_the_share_of_detectors_that_chance_would_give_counts_all_units_of_the_layer() -> None:
    result = find_detectors(circuits.load("scenes"), "line", layers="conv2d1", orientations=12, threshold=0.3)
    scores, chance = result.scores["conv2d1"].numpy(), result.control["conv2d1"].numpy()
    by_chance = {s: (1 + (chance >= s).sum()) / (1 + len(chance)) * len(scores) for s in scores.tolist()}
    assert len(result.rows) > 2
    for d in result.rows:  # the least of all thresholds that the unit passes
        rates = [min(1.0, by_chance[s] / (scores >= s).sum()) for s in scores.tolist() if s <= d.score + 1e-7]
        assert d.false_discovery_rate == pytest.approx(min(rates)) and d.false_discovery_rate >= (d.p or 1)


def test_the_largest_gap_is_that_of_the_orientations_planted(curves: circuits.detectors.Detectors) -> None:
    assert curves.gap("curves") == pytest.approx(55, abs=8)


def test_planted_lines_are_found_and_are_no_curves() -> None:
    model = oriented.lined()
    faint = stimuli.lines(12, (4.0,), contrast=0.5).tensor(model.input)
    result = find_detectors(model, "line", layers="units", images=faint)
    assert {d.unit for d in result.rows} == {"lined/units:0", "lined/units:1"}
    chance = result.chance("units")
    assert chance is not None and chance[0] < min(d.score for d in result.rows)
    for d in result.rows:
        assert near(d.orientation, oriented.Lined.TURNS[int(d.unit.rpartition(":")[2])], 2, 180)
    assert result.period == 180 and result.gap("units") == pytest.approx(105, abs=3)
    assert not find_detectors(model, "curve", layers="units", images=faint, orientations=16, control=None).rows


def test_planted_high_low_frequency_detectors_are_found() -> None:
    result = find_detectors(oriented.sided(), "high-low", layers="sides", orientations=16)
    assert len(result.rows) == 3
    chance = result.chance("sides")
    assert chance is not None and chance[0] < min(d.score for d in result.rows)
    for d in result.rows:
        assert near(d.orientation, (0.0, 90.0, 200.0)[int(d.unit.rpartition(":")[2])], 6)


def test_planted_color_contrast_is_found_and_brightness_and_plain_color_are_not() -> None:
    result = find_detectors(oriented.colored(), "color_contrast", layers="units", orientations=16)
    assert {d.unit for d in result.rows} == {"colored/units:0", "colored/units:1"}
    chance = result.chance("units")
    assert chance is not None and chance[0] < min(d.score for d in result.rows)
    for d in result.rows:
        assert near(d.orientation, oriented.Colored.TURNS[int(d.unit.rpartition(":")[2])], 4)
        assert d.preferred["pair"] == "red-cyan"
    assert float(result.scores["units"][2:].max()) < 0.1


def test_a_unit_that_natural_images_activate_more_is_no_detector() -> None:
    """The same unit measured by natural pictures: faint ones, and ones that drive it further than hues can."""
    model = oriented.colored()
    options: dict[str, Any] = {"layers": "units", "orientations": 24, "control": None}
    faint = torch.full((2, 3, 48, 48), 0.5)
    faint[:, 0, :, 24:] += 0.01
    strong = {d.unit: d.tests["strong"] for d in find_detectors(model, "color-contrast", images=faint, **options).rows}
    assert strong == {"colored/units:0": 1.0, "colored/units:1": 1.0}
    # full red beside full cyan at the units' own orientations: 4/3 of the contrast that hues of one brightness can have
    loud = (stimuli.edges(oriented.Colored.TURNS).tensor(model.input) * 2 - 1)[:, :1].repeat(2, 3, 1, 1)
    loud[:, 1:] = 1 - loud[:, 1:]
    for d in find_detectors(model, "color-contrast", images=loud, **options).rows:
        assert d.tests["strong"] == pytest.approx(0.75, abs=0.02)


def test_an_inactive_unit_is_no_detector_and_no_error() -> None:
    module = nets.sequential(nn.Conv2d(3, 4, 5, padding=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 32 * 32, 2))
    with torch.no_grad():
        module[0].weight.zero_()
        module[0].bias.fill_(-1.0)
    model = nets.wrap(module, 32)
    for kind in KINDS:
        result = find_detectors(model, kind, layers="1", orientations=8, control=None)
        assert not result.rows and float(result.scores["1"].abs().max()) == 0


def test_the_same_seed_finds_the_same_and_the_model_is_left_alone() -> None:
    model = oriented.colored()
    before = nets.state(model)
    a, b = (find_detectors(model, "color-contrast", orientations=8, seed=3) for _ in range(2))
    assert a.describe() == b.describe() and nets.state(model) == before
    c = find_detectors(model, "color-contrast", orientations=8, seed=4)
    assert not torch.equal(a.control["units"], c.control["units"]) and torch.equal(a.scores["units"], c.scores["units"])


def test_several_controls_are_pooled_and_branches_keep_the_blocks_addresses(inception: circuits.Model) -> None:
    result = find_detectors(
        inception, "line", layers="mixed3b_5x5", orientations=8, threshold=0.01, controls=2, control="shuffled"
    )
    assert len(result.control["mixed3b_5x5"]) == 2 * len(result.scores["mixed3b_5x5"]) == 8
    assert all(d.unit.startswith("model/mixed3b:") for d in result.rows)
    assert result.describe()["layers"][0]["control_best"] == result.chance("mixed3b_5x5")[0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "options", "error", "says"),
    [
        ("curves", {}, CircuitsError, "curve"),
        ("curve", {"layers": []}, CircuitsError, "at least one layer"),
        ("curve", {"layers": "nowhere"}, AddressError, "no layer"),
        ("curve", {"orientations": 10}, CircuitsError, "multiple of 4"),
        ("curve", {"orientations": 4}, CircuitsError, "at least 8"),
        ("curve", {"threshold": 0}, CircuitsError, "threshold"),
        ("curve", {"controls": 0}, CircuitsError, "at least 1"),
        ("curve", {"layers": "lines", "control": "lucky"}, CircuitsError, "shuffled"),
        ("color-contrast", {"layers": "lines"}, StimuliError, "three channels"),
    ],
)
def test_bad_searches_are_refused(kind: str, options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        find_detectors(oriented.curved(), kind, **options)


# -- the control ----------------------------------------------------------------------------------------------------


def test_a_shuffled_network_keeps_its_numbers_and_a_random_one_its_shapes() -> None:
    model = nets.wrap(nets.randomized(nets.Residual(3)), 16)
    state = model.module.state_dict()
    shuffled, random = (untrained(model, how).module.state_dict() for how in ("shuffled", "random"))  # type: ignore[arg-type]
    for name, value in state.items():
        assert torch.equal(value.flatten().sort().values, shuffled[name].flatten().sort().values)
        assert random[name].shape == value.shape
    assert not torch.equal(state["conv1.weight"], shuffled["conv1.weight"])
    assert random["bn1.running_var"].tolist() == random["bn1.weight"].tolist() == [1, 1, 1]
    assert random["bn1.bias"].abs().max() == 0
    same = untrained(model, "random").module.state_dict()
    assert all(torch.equal(random[n], same[n]) for n in random)


def test_random_weights_keep_the_size_of_signals() -> None:
    """Ten rectified layers of torch's own initial weights let a signal all but die; the control's do not."""
    parts = [m for _ in range(10) for m in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())]
    model = nets.wrap(nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), *parts), 24)
    x = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))

    def grows(model: circuits.Model) -> float:
        return float(circuits.capture(model, x, "21")["21"].square().mean() / x.square().mean())

    usual = float(np.median([grows(untrained(model, seed=seed)) for seed in range(7)]))
    assert 0.1 < usual < 10 and usual > 20 * grows(model)


# -- wiring ---------------------------------------------------------------------------------------------------------


def detector(unit: str, orientation: float) -> Detector:
    return Detector(unit, unit.partition(":")[0], "curve", 1.0, {}, orientation, {}, 1.0)


def wired(weights: torch.Tensor) -> circuits.Model:
    """Two layers of 1x1 convolutions; the second has `weights` `(targets, sources)`."""
    targets, sources = weights.shape
    below, above = nn.Conv2d(3, sources, 1), nn.Conv2d(sources, targets, 1)
    with torch.no_grad():
        above.weight.copy_(weights[:, :, None, None])
    return nets.wrap(nn.Sequential(below, nn.ReLU(), above, nn.ReLU()), 8)


def test_weights_that_follow_the_cosine_correlate_fully_and_shuffled_ones_do_not() -> None:
    first, second = [40.0 * i for i in range(9)], [0.0, 75.0, 130.0, 260.0]
    turn = torch.deg2rad(torch.tensor(first)[None] - torch.tensor(second)[:, None])
    model = wired(turn.cos() * 2 + 0.5)
    sources = [detector(f"1:{i}", a) for i, a in enumerate(first)]
    targets = [detector(f"3:{i}", a) for i, a in enumerate(second)]
    rule = sign_rule(model, sources, targets, shuffles=200)
    assert rule.correlation == pytest.approx(1, abs=1e-6) and rule.p == pytest.approx(1 / 201)
    assert abs(float(rule.shuffled.mean())) < 0.1
    assert rule.mean(0, 30) > 2 and rule.mean(150, 181) < -1
    np.testing.assert_allclose(rule.weights, (turn.cos() * 2 + 0.5).numpy(), atol=1e-6)
    unrelated = torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    assert sign_rule(wired(unrelated), sources, targets, shuffles=200).p > 0.05
    with pytest.raises(CircuitsError, match="at least 3"):
        sign_rule(model, sources[:2], targets)
    with pytest.raises(CircuitsError, match="one layer"):
        sign_rule(model, [*sources[:2], targets[0]], targets)


def test_published_curve_edges_follow_the_sign_rule() -> None:
    """Summed 5x5 weights of 3a to 3b curves in InceptionV1, by the angle between their published orientations."""
    first, second = (0.0, 160.0, 200.0), (0.0, 180.0)
    weights = torch.tensor([[4.0, -5.0, -4.5], [-6.4, 3.1, 3.6]])
    model = wired(weights)
    sources = [detector(f"1:{i}", a) for i, a in enumerate(first)]
    rule = sign_rule(model, sources, [detector(f"3:{i}", a) for i, a in enumerate(second)], shuffles=50)
    assert rule.correlation > 0.95 and rule.mean(0, 36) > 3 and rule.mean(150, 181) < -3.7


# -- factors --------------------------------------------------------------------------------------------------------


def test_the_factors_of_planted_high_low_detectors_like_high_and_low_frequencies() -> None:
    model = oriented.sided()
    frequency = preferred_frequencies(model, "energy")
    assert frequency[:4].min() > 1.5 * frequency[4:].max()
    result = [detector(f"sides:{i}", turn) for i, turn in enumerate((0.0, 90.0, 200.0))]
    factors = frequency_factors(model, result, source="energy")
    assert {c for c, _, _ in factors.top(0, 4)} == {0, 1, 2, 3}
    assert {c for c, _, _ in factors.top(1, 4)} == {4, 5, 6, 7}
    assert factors.high > 1.5 * factors.low and factors.p < 0.05 and factors.explained > 0.99
    assert factors.alignment.min() > 0.9
    turned = [detector(d.unit, d.orientation + 180) for d in result]
    assert frequency_factors(model, turned, source="energy").alignment.max() < -0.9
    assert frequency_factors(model, result).source == "energy"
    assert math.isfinite(factors.describe()["octaves"])
    for wrong, says in (([], "none"), ([detector("sides:0", 0), detector("energy:0", 0)], "one layer")):
        with pytest.raises(CircuitsError, match=says):
            frequency_factors(model, wrong)


# -- a trained network ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_googlenet_has_curve_detectors_that_read_earlier_ones_by_the_sign_rule(weights_dir: Any, data_dir: Any) -> None:
    path = weights_dir / "bvlc_googlenet.safetensors"
    if not path.exists() or not (data_dir / "imagenet-sample").is_dir():
        pytest.skip("the weights of googlenet-bvlc or the photographs are not here")
    from zoo.images.sources import open_images

    model = circuits.load("googlenet-bvlc", weights=path)
    images = open_images(data_dir / "imagenet-sample", limit=40, seed=0)
    result = find_detectors(model, "curve", layers=["mixed3a", "mixed3b"], images=images)
    for layer, least, widest in (("mixed3a", 6, 120), ("mixed3b", 15, 70)):
        chance = result.chance(layer)
        assert chance is not None and chance[1] < 0.01
        assert len(result.of(layer)) >= least and result.gap(layer) <= widest
    assert sign_rule(model, result.of("mixed3a"), result.of("mixed3b")).p < 0.01
