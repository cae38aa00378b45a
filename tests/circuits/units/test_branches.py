"""Branches: exact tests against closed forms and published tables, and planted branches seen in the weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import circuits
from circuits.errors import AddressError, CircuitsError
from circuits.units.branch_specialization import branch_enrichment, branch_structure, branches_of
from tests import nets

RANGES = {"1x1": (0, 64), "3x3": (64, 192), "5x5": (192, 224), "pool": (224, 256)}


def facts() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((resources.files("zoo") / "facts" / "inceptionv1_units.json").read_text("utf-8"))
    return found


def published_branches(layer: str) -> dict[str, tuple[int, int]]:
    spans = facts()["architecture"]["branches"][layer]
    return {b: (spans[b][0], spans[b][1] + 1) for b in ("1x1", "3x3", "5x5", "pool_proj")}


def families_of(layer: str) -> Mapping[str, list[int]]:
    return {f["family"]: f["units"] for f in facts()["families"] if f["layer"] == layer}


def test_published_black_and_white_units_live_in_the_5x5_branch() -> None:
    found = branch_enrichment(families_of("mixed3a")["BW vs Color"], published_branches("mixed3a"))
    row = found.row("5x5")
    assert (row.inside, row.members, row.size, row.total) == (9, 9, 32, 256)
    assert row.p == pytest.approx(math.comb(32, 9) / math.comb(256, 9), rel=1e-6) and row.p < 1e-8
    assert found.best == row and row.significant and row.expected == pytest.approx(9 / 8)


def test_published_curve_units_live_in_the_5x5_branch() -> None:
    names = ("Curves", "Double Curves", "Curves misc.", "Shallow Curves", "Curve Shapes", "Evolute", "Circles / Loops")
    units = [u for name in names for u in families_of("mixed3b")[name]]
    row = branch_enrichment(units, published_branches("mixed3b")).row("5x5")
    assert (row.inside, row.members) == (30, 30) and row.p < 1e-20
    assert row.p == pytest.approx(math.comb(96, 30) / math.comb(480, 30), rel=1e-6)


def test_all_published_families_are_tested_in_one_table() -> None:
    families = families_of("mixed3a")
    found = branch_enrichment(families, published_branches("mixed3a"))
    assert len(found.rows) == 4 * len(families)
    assert [r.p for r in found.rows] == sorted(r.p for r in found.rows)
    assert found.row("5x5", "BW vs Color").adjusted == pytest.approx(
        found.row("5x5", "BW vs Color").p * 4 * len(families)
    )
    for family, units in families.items():
        assert sum(r.inside for r in found.rows if r.family == family) == len(units)
    assert found.describe()["rows"][0]["branch"] == found.best.branch


def test_the_p_value_is_the_tail_of_the_urn() -> None:
    """Five of eight drawn from 20 with 6 marked: the sum over five and six."""
    ways = sum(math.comb(6, k) * math.comb(14, 8 - k) for k in (5, 6)) / math.comb(20, 8)
    row = branch_enrichment([0, 1, 2, 3, 4, 10, 11, 12], {"in": (0, 6), "out": (6, 20)}).row("in")
    assert row.inside == 5 and row.p == pytest.approx(ways)
    assert branch_enrichment([10], {"in": (0, 6), "out": (6, 20)}).row("in").p == pytest.approx(1.0)


def test_random_families_are_found_significant_as_seldom_as_promised() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        found = branch_enrichment(rng.choice(256, 12, replace=False).tolist(), RANGES)
        wrong += any(r.significant for r in found.rows)
    assert wrong / 200 <= 0.06


def test_units_are_given_by_number_or_address(inception: circuits.Model) -> None:
    spans = branches_of(inception, "mixed3b")
    assert spans == {
        "mixed3b_1x1": (0, 2), "mixed3b_3x3": (2, 6), "mixed3b_5x5": (6, 10), "mixed3b_pool_proj": (10, 12)
    }  # fmt: skip
    by_number = branch_enrichment([6, 7, 8, 9], spans)
    named = branch_enrichment(["model/mixed3b:6", "mixed3b:7", circuits.Unit("mixed3b", 8), np.int64(9)], spans)
    assert by_number == named and named.best.branch == "mixed3b_5x5"
    assert named.best.p == pytest.approx(1 / math.comb(12, 4))
    assert branches_of(inception, "conv2d1") == {}


@pytest.mark.parametrize(
    ("families", "branches", "says"),
    [
        ([], RANGES, "empty"),
        ([1, 1], RANGES, "twice"),
        ([256], RANGES, "no channel of a layer of 256"),
        ([-1], RANGES, "no channel"),
        (["mixed3a"], RANGES, "no channel"),
        ([1], {}, "one family and one branch"),
        ({}, RANGES, "one family and one branch"),
        ([1], {"a": (0, 5), "b": (4, 9)}, "do not overlap"),
        ([1], {"a": (5, 5)}, "do not overlap"),
    ],
)
def test_families_and_branches_that_make_no_sense_are_refused(families: Any, branches: Any, says: str) -> None:
    with pytest.raises(CircuitsError, match=says):
        branch_enrichment(families, branches)


def test_latents_lie_in_no_branch_and_a_missing_row_is_named() -> None:
    with pytest.raises(AddressError, match="latent"):
        branch_enrichment(["mixed3a~sae:4"], RANGES)
    with pytest.raises(CircuitsError, match="7x7"):
        branch_enrichment([1], RANGES).row("7x7")
    with pytest.raises(CircuitsError, match="2 rows"):
        branch_enrichment({"a": [1], "b": [2]}, RANGES).row("5x5")


# -- weights ------------------------------------------------------------------------------------------


class Grouped(nn.Module):
    """Two convolutions without any declared branch; the second reads in two groups that hardly mix."""

    def __init__(self, leak: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 24, 3, padding=1)
        self.first_relu = nn.ReLU()
        self.second = nn.Conv2d(24, 20, 3, padding=1)
        self.second_relu = nn.ReLU()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.second.weight.copy_(torch.randn(20, 24, 3, 3, generator=generator))
            self.second.weight[:10, 12:] *= leak
            self.second.weight[10:, :12] *= leak

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second_relu(self.second(self.first_relu(self.first(x))))
        return out


HALVES = {"source_groups": {"a": range(12), "b": range(12, 24)}, "target_groups": {"a": range(10), "b": range(10, 20)}}


def test_planted_groups_are_seen_on_both_sides_and_not_in_shuffled_weights() -> None:
    model = nets.wrap(Grouped(0.1))
    found = branch_structure(model, "second_relu", source="first_relu", vectors=2, shuffles=8, **HALVES)  # type: ignore[arg-type]
    assert found.values[0] == pytest.approx(1.0)
    for side in ("sources", "targets"):
        one = found.side(side)
        assert one.auc > 0.9 and max(one.shuffled) < 0.7
        vectors = found.sources if side == "sources" else found.targets
        half = len(vectors) // 2
        assert len(set(np.sign(vectors[:half, 1]))) == 1 and np.sign(vectors[0, 1]) == -np.sign(vectors[-1, 1])


def test_groups_that_mix_freely_do_not_show() -> None:
    model = nets.wrap(Grouped(1.0))
    found = branch_structure(model, "second_relu", source="first_relu", vectors=2, shuffles=20, **HALVES)  # type: ignore[arg-type]
    for one in found.separations:
        assert min(one.shuffled) - 0.05 < one.auc < max(one.shuffled) + 0.05


def test_how_strongly_a_channel_is_connected_is_left_out() -> None:
    module = Grouped(0.1)
    before = branch_structure(nets.wrap(module), "second_relu", source="first_relu", vectors=2, shuffles=0, **HALVES)  # type: ignore[arg-type]
    with torch.no_grad():
        module.second.weight.mul_(torch.logspace(-1, 1, 20)[:, None, None, None])
    after = branch_structure(nets.wrap(module), "second_relu", source="first_relu", vectors=2, shuffles=0, **HALVES)  # type: ignore[arg-type]
    assert (
        after.side("sources").auc == pytest.approx(before.side("sources").auc, abs=0.05)
        and after.side("targets").auc > 0.9
    )


def test_the_branches_of_an_inception_are_its_groups(inception: circuits.Model) -> None:
    found = branch_structure(inception, "mixed4a", vectors=2, shuffles=3)
    assert (found.source, found.target) == ("mixed3b", "mixed4a")
    assert set(found.side("sources").groups) == set(branches_of(inception, "mixed3b"))
    assert found.side("targets").layer == "mixed4a" and len(found.side().shuffled) == 3
    assert found.sources.shape == (12, 3) and found.targets.shape[1] == 3
    again = branch_structure(inception, "mixed4a", vectors=2, shuffles=3)
    assert again.side().shuffled == found.side().shuffled
    assert found.describe()["separations"][0]["groups"]["mixed3b_5x5"] == 4


def test_bottlenecks_keep_targets_together_before_anything_is_learned() -> None:
    """The untrained control: rows that go through one narrow bottleneck are alike whatever its weights are."""
    model = circuits.load("scenes")
    found = branch_structure(model, "mixed4a", shuffles=3)
    targets, sources = found.side("targets"), found.side("sources")
    assert targets.untrained is not None and sources.untrained is not None
    assert targets.untrained > max(targets.shuffled) + 0.05
    assert abs(sources.untrained - 0.5) < 0.1
    without = branch_structure(model, "mixed4a", shuffles=3, compare_untrained=False)
    assert without.side("targets").untrained is None and without.side("targets").auc == targets.auc


def test_layers_without_branches_or_sources_are_refused(inception: circuits.Model, planted: circuits.Model) -> None:
    with pytest.raises(CircuitsError, match="source_groups="):
        branch_structure(planted, "objects")
    with pytest.raises(CircuitsError, match="reads the image itself"):
        branch_structure(inception, "conv2d0")
    with pytest.raises(CircuitsError, match="vectors=99"):
        branch_structure(inception, "mixed4a", vectors=99)
    with pytest.raises(CircuitsError, match="outside of 0"):
        branch_structure(planted, "objects", source_groups={"a": [0, 1], "b": [2, 99]}, vectors=1)
    with pytest.raises(CircuitsError, match="at least two names"):
        branch_structure(planted, "objects", source_groups={"a": [0, 1]})
    with pytest.raises(CircuitsError, match="no groups on the side"):
        branch_structure(planted, "objects", source_groups={"a": [0, 1], "b": [2, 3]}, vectors=1).side("targets")


# -- figures ------------------------------------------------------------------------------------------


def words(figure: Any) -> list[str]:
    return [t.get_text() for t in figure.axes[0].texts]


def test_bars_show_counts_chance_and_corrected_p() -> None:
    from circuits.plot.units.comparison import enrichment_bars

    one = enrichment_bars(branch_enrichment(families_of("mixed3a")["BW vs Color"], published_branches("mixed3a")))
    said = words(one)
    assert "9 of 9" in said and "0 of 9" in said and "1 × 10⁻⁸" in said
    assert [t for t in said if t in RANGES] == ["1x1", "3x3", "5x5"]  # in the order of the layer
    several = enrichment_bars(branch_enrichment(families_of("mixed3a"), published_branches("mixed3a")), n=5)
    assert "BW vs Color" in words(several) and len([t for t in words(several) if " of " in t and t[0].isdigit()]) == 5


@pytest.mark.parametrize(("p", "text"), [(1.0, "1"), (0.5, "0.500"), (0.031, "0.031"), (1.7e-23, "2 × 10⁻²³")])
def test_p_values_are_written_for_people(p: float, text: str) -> None:
    from circuits.plot.units.comparison import p_value

    assert p_value(p) == text


def test_the_scatter_shows_every_group_and_both_controls() -> None:
    from circuits.plot.units.comparison import branch_scatter

    model = nets.wrap(Grouped(0.1))
    found = branch_structure(model, "second_relu", source="first_relu", vectors=2, shuffles=2, **HALVES)  # type: ignore[arg-type]
    figure = branch_scatter(found, "targets")
    said = " ".join(words(figure))
    assert "weights shuffled" in said and "untrained network" in said and "10 channels" in said
    drawn = sum(len(line.get_xdata()) for line in figure.axes[0].lines if line.get_marker() in "os")
    assert drawn == 20 + 2  # and one in the legend for each
    with pytest.raises(CircuitsError, match="two different ones"):
        branch_scatter(found, vectors=(1, 1))
