"""Orientations on a circle, and curve detectors among latents that the channels hide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import circuits
from circuits import plot
from circuits.errors import AddressError, CircuitsError
from circuits.network.basis import Directions
from circuits.plot.sae.latent_quality import orientation_dials
from circuits.tuning.detectors import find_detectors
from sae.errors import SAEError
from sae.evaluation.curve_detection import CurveComparison, compare
from sae.evaluation.orientation_coverage import coverage, filling, gaps_of, nearest_distances
from tests.circuits import oriented

# -- orientations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5, 36])
@pytest.mark.parametrize("period", [360.0, 180.0])
def test_equally_spaced_orientations_leave_gaps_of_a_circle_over_n(n: int, period: float) -> None:
    found = coverage([7.0 + i * period / n for i in range(n)], within=3.0, period=period)
    for gap in (found.largest_gap, found.mean_gap, found.expected_gap):
        assert gap == pytest.approx(period / n)
    assert found.covered == pytest.approx(min(1.0, 6.0 * n / period))
    assert found.count == n and found.more_even == (0.5 if n == 1 else 1.0)


def test_gaps_are_worked_out_by_hand() -> None:
    found = coverage([350.0, 0.0, 20.0, 110.0], within=10.0)
    assert gaps_of(np.array([350.0, 0.0, 20.0, 110.0])).tolist() == [20.0, 90.0, 240.0, 10.0]
    assert found.largest_gap == 240 and found.mean_gap == 90
    assert found.expected_gap == pytest.approx((20**2 + 90**2 + 240**2 + 10**2) / 360)
    assert found.covered == pytest.approx((10 + 20 + 20 + 20) / 360)


def test_turning_all_orientations_changes_nothing() -> None:
    some = [3.0, 40.0, 41.0, 200.0, 310.0]
    a, b = coverage(some), coverage([s - 777.0 for s in some])
    assert b.describe() == {k: pytest.approx(v) for k, v in a.describe().items() if k != "chance"} | {
        "chance": a.describe()["chance"]
    }


@pytest.mark.parametrize("gap", [200.0, 270.0, 340.0])
def test_two_random_orientations_leave_a_gap_that_is_uniform_between_half_and_all_of_the_circle(gap: float) -> None:
    found = coverage([0.0, gap], draws=20_000)
    assert found.more_even == pytest.approx((360 - gap) / 180, abs=0.015)
    assert found.chance[0] == pytest.approx(270, abs=3)


def test_random_orientations_are_as_even_as_chance_and_clusters_are_not() -> None:
    rng = np.random.default_rng(0)
    shares = [coverage(rng.uniform(0, 360, 12).tolist(), draws=300).more_even for _ in range(200)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06) and np.std(shares) == pytest.approx(12**-0.5, abs=0.05)
    assert coverage(rng.uniform(0, 120, 12).tolist()).more_even < 0.01


def test_no_orientation_or_a_single_one_leaves_the_whole_circle() -> None:
    none, one = coverage([]), coverage([5.0])
    assert none.largest_gap == one.largest_gap == 360 and none.expected_gap == 360
    assert none.covered == 0 and one.covered == pytest.approx(20 / 360)
    assert none.describe()["mean_gap"] is None and none.more_even == 0.5


def test_distances_go_the_short_way_round() -> None:
    assert nearest_distances([350.0, 90.0], [10.0, 180.0]).tolist() == [20.0, 80.0]
    assert nearest_distances([170.0], [0.0], 180.0).tolist() == [10.0] and nearest_distances([1.0], []).tolist() == [
        360.0
    ]


def test_copies_fill_no_gap_and_orientations_in_the_gaps_do() -> None:
    there = [0.0, 30.0, 60.0, 90.0]
    again = filling(there, there)
    assert (again.in_gaps, again.in_largest, again.largest_gap) == (0, 0, 270.0) and again.chance < 0.01
    filled = filling(there, [144.0, 198.0, 252.0, 306.0])
    assert (filled.in_gaps, filled.in_largest, filled.largest_gap) == (4, 4, 54.0) and filled.chance > 0.98
    assert filled.expected == pytest.approx(4 * 270 / 360)
    nothing = filling(there, [])
    assert (nothing.in_gaps, nothing.largest_gap, nothing.chance) == (0, 270.0, 0.5)
    assert filling([], [10.0, 20.0]).in_largest == 2


@pytest.mark.parametrize("some", [[float("nan")], [[1.0]], ["up"], [1.0, float("inf")]])
def test_what_is_no_degrees_is_refused(some: Any) -> None:
    with pytest.raises(SAEError, match="degrees"):
        coverage(some)


def test_numbers_out_of_range_are_refused() -> None:
    wrong: Any
    for wrong in ({"within": 0.0}, {"period": -1.0}, {"draws": 0}):
        with pytest.raises(SAEError, match=r"within|period|draws"):
            coverage([0.0], **wrong)


# -- a layer that hides curves ------------------------------------------------------------------------------

OPEN = (0, 1, 2, 3)  # curves at 0, 45, 100 and 135 degrees that have a channel of their own


class Hidden(nn.Module):
    """Four curve detectors with channels of their own; four more that are added to the one opposite."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = oriented.Curved(1.0, 8.0)
        self.shared = nn.Conv2d(8, 8, 1, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.logits = nn.Linear(8, 2)
        with torch.no_grad():
            self.shared.weight.copy_(mixing()[..., None, None])

    def forward(self, x: Tensor) -> Tensor:
        inner = self.inner
        x = inner.curves(inner.curves_pre(inner.lines(inner.lines_pre(inner.gabors(inner.gabors_pre(x))))))
        scores: Tensor = self.logits(self.flatten(self.pool(self.shared(x))))
        return scores


def mixing() -> Tensor:
    matrix: Tensor = torch.eye(8)
    for i in range(4, 8):
        matrix[i, i - 4] = 1.0  # 190 and 0 degrees, 225 and 45, ...: a double curve
    return matrix


def hidden() -> circuits.Model:
    model = circuits.wrap(Hidden().eval(), circuits.InputSpec(72, 1, (0.5,), (0.25,)), name="hidden")
    model.attach("shared", "apart", Directions(torch.linalg.inv(mixing())))
    return model


@pytest.fixture(scope="module")
def model() -> circuits.Model:
    return hidden()


@pytest.fixture(scope="module")
def found(model: circuits.Model) -> CurveComparison:
    return compare(model, "shared", "apart", batch_size=128)


def test_latents_that_undo_the_mixing_are_the_curves_that_channels_mix(found: CurveComparison) -> None:
    assert {d.unit for d in found["channels"].detectors} == {f"hidden/shared:{i}" for i in OPEN}
    assert {d.unit for d in found["apart"].detectors} == {f"hidden/shared~apart:{i}" for i in range(8)}
    for d in found["apart"].detectors:
        planted = oriented.CURVES[int(d.unit.rpartition(":")[2])]
        assert nearest_distances([d.orientation], [planted])[0] < 5
    assert found.coverages["channels"].largest_gap == pytest.approx(225, abs=8)
    assert found.coverages["channels + apart"].largest_gap == pytest.approx(55, abs=8)
    added = found.fillings["apart"]
    assert added.in_gaps == added.in_largest == 4 and added.expected == pytest.approx(8 * 225 / 360, abs=0.2)
    assert found["apart"].units == found["channels"].units == 8


def test_random_directions_of_the_same_number_and_sparsity_go_through_the_same_tests(
    model: circuits.Model, found: CurveComparison
) -> None:
    (control,) = [one for one in found.searched if one.control]
    k = max(1, round(found["apart"].active))
    assert control.name == f"random-8-k{k}" and control.units == 8
    assert 0 < control.active <= k
    # where every channel answers to curves, so do sums of them: they pass the tests, but do not find what was planted
    off = [nearest_distances([d.orientation], oriented.CURVES)[0] for d in control.detectors]
    assert max(off) > 5
    again = compare(model, "shared", "apart", batch_size=128, seed=1)[control.name]
    assert again.orientations != control.orientations


def test_channels_are_judged_as_find_detectors_judges_them(model: circuits.Model, found: CurveComparison) -> None:
    pictures = circuits.stimuli.curves(8, (9.0,)).tensor(model.input)
    for images, ours in ((None, found), (pictures, compare(model, "shared", "apart", images=pictures, control=False))):
        theirs = find_detectors(model, "curve", layers="shared", images=images, control=None, batch_size=128)
        torch.testing.assert_close(ours["channels"].scores, theirs.scores["shared"])
        assert [d.unit for d in ours["channels"].detectors] == [d.unit for d in theirs.rows]
        assert ours.coverages["channels"].largest_gap == pytest.approx(theirs.gap("shared"))


def test_the_model_is_left_as_it_was(model: circuits.Model, found: CurveComparison) -> None:
    assert list(model.bases) == [("shared", "apart")]


def test_a_basis_that_copies_the_channels_adds_nothing(model: circuits.Model) -> None:
    own = hidden()
    own.attach("shared", "copy", Directions(torch.eye(8)))
    own.attach("shared", "flipped", Directions(torch.eye(8).flip(0)))
    same = compare(own, "shared", ["copy", "flipped"], batch_size=128)
    assert [one.control for one in same.searched] == [False, False, False, True]  # one control for both
    assert torch.equal(same["copy"].scores, same["flipped"].scores.flip(0))
    assert sorted(same["copy"].orientations) == pytest.approx(sorted(same["channels"].orientations))
    assert same.fillings["copy"].in_gaps == 0 and same.fillings["copy"].single == 4
    assert same.coverages["channels + copy"].largest_gap == same.coverages["channels"].largest_gap


def test_the_comparison_is_json_and_a_figure(found: CurveComparison, tmp_path: Path) -> None:
    import json

    said = json.loads(json.dumps(found.describe()))
    assert [one["name"] for one in said["searched"]][:2] == ["channels", "apart"]
    assert said["coverage"]["apart"]["count"] == 8 and len(said["searched"][1]["detectors"]) == 8
    plot.save_figure(found.figure(), tmp_path / "dials.png")
    assert (tmp_path / "dials.png").stat().st_size > 5000


def test_bad_arguments_are_refused(model: circuits.Model) -> None:
    with pytest.raises(SAEError, match="at least one basis"):
        compare(model, "shared", [])
    with pytest.raises(SAEError, match="different names"):
        compare(model, "shared", ["apart", "apart"])
    with pytest.raises(AddressError, match="no basis 'other'"):
        compare(model, "shared", "other")
    with pytest.raises(SAEError, match="multiple of 4"):
        compare(model, "shared", "apart", orientations=10)
    with pytest.raises(SAEError, match="threshold"):
        compare(model, "shared", "apart", threshold=0.0)
    with pytest.raises(SAEError, match="was not searched"):
        compare(model, "shared", "apart", orientations=8, control=False)["elsewhere"]
    with pytest.raises(CircuitsError, match="no set 'x'"):
        orientation_dials({"channels": [1.0]}, reference="x")
