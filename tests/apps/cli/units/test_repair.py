"""`circuits repair` and `circuits bench repair`: figures, files, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.apps.terminal import Cli, is_refused

IMAGES = ("--images", "scenes:shortcuts/tag-bus-95/balanced:160")


def test_a_repair_is_measured_and_written_out(cli: Cli, tmp_path: Path) -> None:
    units = ("--units", "conv4:54", "--units", "conv4:5")
    ran = cli(
        "repair", "scenes-shortcuts/tag-bus-95", *units, *IMAGES, "--random", "3", "--export", str(tmp_path), "--json"
    )
    assert ran.code == 0, ran.err
    repair, export = ran.json["repair"], ran.json["export"]
    assert repair["units"] == ["conv4:54", "conv4:5"] and len(repair["random"]) == 3
    assert set(repair["group_sizes"]) == set(repair["before"]["groups"]) and sum(repair["group_sizes"].values()) == 80
    assert repair["after"]["groups"]["others with tag"] > repair["before"]["groups"]["others with tag"]
    assert export["files"] == ["edited.pt2", "weights.safetensors"] and export["difference"] <= 1e-5
    assert torch.export.load(tmp_path / "edited.pt2").module()(torch.zeros(2, 3, 64, 64)).shape == (2, 8)


def test_the_benchmark_holds_a_repair_against_networks_without_the_shortcut(cli: Cli) -> None:
    ran = cli(
        "bench", "repair", "--networks", "tag-bus-95", "--count", "96", "--judged", "64", "--random", "2", "--json"
    )
    assert ran.code == 0, ran.err
    (row,) = ran.json["rows"]
    assert row["network"] == "tag-bus-95" and 1 <= row["units"] <= 32
    assert {"worst_before", "worst_repaired", "worst_retrained", "worst_both", "worst_clean", "worst_mixed"} <= set(row)
    assert row["gap_both"] == pytest.approx(row["worst_mixed"] - row["worst_both"], abs=1e-6)
    assert row["low_both"] <= row["worst_both"] <= row["high_both"]


@pytest.mark.parametrize(
    "options",
    [
        ("--units", "conv4:5", "--layers", "conv4", *IMAGES),
        ("--images", "scenes:shortcuts/tag-bus-95/with:16"),
        ("--units", "conv4:99", *IMAGES),
        ("--units", "conv9:1", *IMAGES),
        ("--units", "scores:1", *IMAGES),
        ("--units", "conv4:5", "--groups", "absent.csv", *IMAGES),
        ("--audit", "absent", *IMAGES),
        ("--units", "conv4:5"),
    ],
)
def test_what_does_not_fit_is_refused(cli: Cli, options: tuple[str, ...]) -> None:
    assert is_refused(cli("repair", "scenes-shortcuts/tag-bus-95", *options))


def test_the_benchmark_refuses_what_it_does_not_have(cli: Cli) -> None:
    assert is_refused(cli("bench", "repair", "--networks", "tag-bus-94", "--count", "64"))
    assert is_refused(cli("bench", "repair", "--count", "50"))
