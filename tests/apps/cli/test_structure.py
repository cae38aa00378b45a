"""The commands neighbors, match and factors; and the checks of families, which pass on planted facts and else fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import circuits
from apps.cli.verify import families
from apps.cli.verify.checks import FAIL, PASS, SKIPPED
from apps.cli.verify.facts import facts, family, unit_facts
from tests.apps.terminal import Cli, is_refused, written
from zoo.networks.inceptionv1 import TENSORFLOW_5H, InceptionV1


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -- neighbors ---------------------------------------------------------------------------------------


def test_neighbors_lists_units_of_the_layer_and_chance(cli: Cli, tmp_path: Path) -> None:
    ran = cli("neighbors", "scenes/mixed4a:11", "--top", "4", "--out", tmp_path, "--json")
    document = ran.json
    assert ran.code == 0 and document["schema"] == 1 and document["unit"] == "scenes/mixed4a:11"
    values = [row["likeness"] for row in document["rows"]]
    assert len(values) == 4 and values == sorted(values, reverse=True) and document["count"] == 47
    assert all(row["unit"].startswith("scenes/mixed4a:") for row in document["rows"])
    assert written(tmp_path) == {"neighbors.json", "neighbors.png"}
    assert "one pair in a hundred" in cli("neighbors", "scenes/mixed4a:11").out


@pytest.mark.parametrize("by", ["outgoing", "activations"])
def test_neighbors_by_other_measures(cli: Cli, by: str) -> None:
    pictures = ("--images", "scenes:26", "--positions", "4") if by == "activations" else ()
    document = cli("neighbors", "scenes/mixed3b:5", "--by", by, *pictures, "--json").json
    assert by.removesuffix("s") in document["measure"] or "positions of 26 images" in document["measure"]
    assert len(document["rows"]) == 10


def test_neighbors_is_quiet_about_nothing_it_cannot_do(cli: Cli) -> None:
    for wrong in (
        ("scenes/mixed4a",),
        ("scenes/conv2d0:1",),
        ("scenes/mixed4a:11", "--top", "0"),
        ("scenes/mixed4a:11", "--images", "scenes:5"),
        ("mixed4a:11",),
    ):
        assert is_refused(cli("neighbors", *wrong)), wrong


# -- match --------------------------------------------------------------------------------------------


def test_a_network_matches_itself_and_its_controls_do_not(cli: Cli, tmp_path: Path) -> None:
    ran = cli(
        "match", "scenes/mixed4a", "scenes/mixed4a", "--layers", "mixed3b", "--images", "scenes:26", "--out", tmp_path,
        "--json",
    )  # fmt: skip
    document = ran.json
    summary = document["summary"]
    assert ran.code == 0 and summary["others"] == 96 and summary["mutual"] == summary["matched"] > 25
    assert all(p["unit"] == p["other"] and p["correlation"] > 0.999 for p in document["pairs"])
    for name in ("random weights", "shuffled images"):
        assert summary["controls"][name]["median"] < 0.7
        assert summary["controls"][name]["beaten"] == summary["matched"]
    assert written(tmp_path) == {"match.json", "pairs.png", "matrix.png"}


def test_match_shows_pairs_and_controls(cli: Cli) -> None:
    out = cli("match", "scenes/mixed4a", "scenes/mixed4b", "--images", "scenes:13", "--top", "3", "--assignment").out
    assert "mutual" in out and "random weights" in out and out.count("mixed4b:") >= 3


def test_match_needs_layers_of_named_models_and_pictures(cli: Cli) -> None:
    for wrong in (
        ("scenes/mixed4a:3", "scenes/mixed4b"),
        ("scenes/mixed4a", "mixed4b"),
        ("scenes/mixed4a", "scenes/mixed9"),
        ("scenes/mixed4a", "torchvision/squeezenet1_1/features.3", "--other-weights", "random"),
        ("scenes/mixed4a", "scenes/mixed4b", "--images", "nowhere"),
        ("scenes/mixed4a", "scenes/mixed4b", "--top", "0"),
    ):
        assert is_refused(cli("match", *wrong)), wrong


# -- factors ------------------------------------------------------------------------------------------


def test_factors_of_a_unit_name_channels_and_places(cli: Cli, tmp_path: Path) -> None:
    ran = cli("factors", "scenes/mixed4a:25", "--factors", "2", "--out", tmp_path, "--json")
    document = ran.json
    assert ran.code == 0 and document["source"] == "mixed3b" and document["targets"] == ["mixed4a:25"]
    assert 0 < document["explained"] <= 1 and len(document["shuffled"]) == 3
    for factor in document["factors"]:
        assert factor["sources"][0]["unit"].startswith("mixed3b:") and len(factor["spatial"][0]) == 5
    with np.load(tmp_path / "factors.npz") as arrays:
        assert arrays["channels"].shape == (2, 48) and (arrays["channels"] >= 0).all()
    assert (tmp_path / "factors.png").is_file()
    assert "with channels shuffled" in cli("factors", "scenes/mixed4a:25").out


def test_factors_of_a_family_and_of_a_branch(cli: Cli) -> None:
    family_ = cli("factors", "scenes/mixed4a:25", "--also", "mixed4a:26", "--also", "mixed4a:27", "--json").json
    assert family_["targets"] == ["mixed4a:25", "mixed4a:26", "mixed4a:27"]
    branch = cli("factors", "scenes/mixed4a_5x5", "--source", "mixed3a", "--json").json
    assert len(branch["targets"]) == 20 and branch["factors"][0]["sources"][0]["unit"].startswith("mixed3a:")


def test_factors_refuses_what_has_no_weights_or_too_many_factors(cli: Cli) -> None:
    for wrong in (
        ("scenes/conv2d0:1",),
        ("scenes/mixed4a:11", "--factors", "0"),
        ("scenes/mixed4a:11", "--factors", "999"),
        ("scenes/mixed4a:11", "--also", "mixed3b:1"),
        ("scenes/mixed4a:11", "--top", "0"),
    ):
        assert is_refused(cli("factors", *wrong)), wrong


# -- known answers ------------------------------------------------------------------------------------


def test_planted_and_published_answers_of_the_library_come_out() -> None:
    found = list(families.library(0))
    assert [c.verdict for c in found] == [PASS] * 4, found


def test_published_checks_are_skipped_with_a_reason() -> None:
    found = list(families.without_weights("no weights here: --weights FILE"))
    assert {c.verdict for c in found} == {SKIPPED} and all("--weights" in c.ours for c in found)


def test_published_answers_fail_on_a_random_net_of_that_shape() -> None:
    model = circuits.load("inceptionv1", weights="random")
    assert [c.verdict for c in families.published(model)] == [FAIL] * 4


def planted_5h() -> circuits.Model:
    """A net of the 5h shape with just the published facts planted into random weights."""
    module = InceptionV1(TENSORFLOW_5H)
    generator = torch.Generator().manual_seed(0)
    w = {name.removesuffix("_pre.weight"): p for name, p in module.named_parameters() if name.endswith("weight")}
    expected = unit_facts("hl_two_factors")
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.02)
        # color and Gabor units are read by different halves of conv2d1
        color, gabor = sorted(family("conv2d0", "Color Contrast")), sorted(family("conv2d0", "Gabor Filters"))
        w["conv2d1"][:32, color] += 1
        w["conv2d1"][32:, gabor] += 1
        # the published channels of conv2d2 read the published ones of conv2d1, and feed the six units in mirror
        w["mixed3a_3x3_bottleneck"].zero_()
        units = [u - 64 for u in facts()["universality_units"]["high_low"]["InceptionV1 mixed3a"]]
        w["mixed3a_3x3"][units] = 0
        side = torch.randn(len(units), 3, 3, generator=generator)
        for place, kind in enumerate(("HF", "LF")):
            for channel, value in expected[f"conv2d2_{kind}"].items():
                w["conv2d2"][int(channel)] = 0
                for below, weight in expected[f"conv2d1_{kind}"].items():
                    w["conv2d2"][int(channel), int(below), 1, 1] = weight
                w["mixed3a_3x3_bottleneck"][place, int(channel)] = value
            w["mixed3a_3x3"][units, place] = side if kind == "HF" else -side
        # of the twenty units that read the high-low units, eight detect boundaries
        high_low = sorted(family("mixed3a", "High-Low Frequency"))
        boundary = family("mixed3b", "Boundary", "Double Boundary", "Boundary Misc")
        for branch in ("1x1", "3x3_bottleneck", "5x5_bottleneck", "pool_proj"):
            w[f"mixed3b_{branch}"][:, high_low] = 0
        w["mixed3b_3x3_bottleneck"][0, high_low] = 1
        w["mixed3b_3x3"][:, 0] = 0
        inside = [u for u in range(128, 320) if u in boundary][:8] + [u for u in range(128, 320) if u not in boundary][
            :12
        ]
        w["mixed3b_3x3"][[u - 128 for u in inside], 0, 1, 1] = 1
    return circuits.wrap(module.eval(), circuits.InputSpec(size=224), name="planted")


def test_published_answers_pass_on_a_net_into_which_they_were_planted() -> None:
    found = list(families.published(planted_5h()))
    assert [c.verdict for c in found] == [PASS] * 4, found


def test_two_networks_and_two_circuits_are_compared_by_one_command(cli: Cli, tmp_path: Path) -> None:
    short = ("--images", "scenes:26", "--steps", "20", "--latents", "32", "--k", "4")
    document = cli(
        "diff", "scenes-labels", "scenes", "--layer", "mixed4a", *short, "--out", str(tmp_path / "d"), "--json"
    ).json
    assert document["counts"]["shared"] + document["counts"]["dead"] > 0 and len(document["controls"]) == 1
    assert written(tmp_path / "d") == {"diff.json", "diff.png", "index.html", "comparison.json"}
    cli("trace", "scenes/mixed4a:11", "--images", "scenes:16", "--no-score", "--out", str(tmp_path / "c"))
    circuit = str(tmp_path / "c" / "circuit.json")
    same = cli("diff", circuit, circuit, "--json").json
    assert same["both"] and not same["only_first"] and not same["only_second"]
    assert is_refused(cli("diff", "scenes", "scenes"))
    for other in (("scenes", "--layer", "mixed4a"), (circuit, "--layer", "mixed4a")):
        refused = cli("diff", circuit, *other)
        assert is_refused(refused) and "two circuit.json, without layers and weights; or two networks" in refused.err
